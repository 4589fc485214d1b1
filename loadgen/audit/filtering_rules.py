"""Rules about which mail is filtered: for a service, a recipient, a sender, a content; and about parameters for all mail."""

from collections.abc import Iterator

from loadgen.audit.facts import AccessMap, Facts, names_in, parse_hop
from loadgen.audit.rule import Answer, Rule, answer, mend_main, unknown

__all__ = ["FILTERING_RULES"]


def _soft_bounce_is_off(facts: Facts) -> Iterator[Answer]:
    found = facts.main.get("soft_bounce", "no")
    yield answer(
        found != "yes",
        f"soft_bounce = {found}",
        facts.where(None, "soft_bounce"),
        "no",
        mend_main(facts, "soft_bounce", "no"),
    )
    if str(facts.amavis.get("soft_bounce") or "0") not in ("0", ""):
        yield answer(False, "$soft_bounce = 1", "amavisd.conf", "0", "in amavisd.conf: $soft_bounce = 0;")


def _envelopes_are_strict(facts: Facts) -> Iterator[Answer]:
    found = facts.main.get("strict_rfc821_envelopes", "no")
    yield answer(
        found == "yes", f"strict_rfc821_envelopes = {found}", facts.where(None, "strict_rfc821_envelopes"), "yes",
        mend_main(facts, "strict_rfc821_envelopes", "yes"),
    )  # fmt: skip


def _one_way_of_filtering(facts: Facts) -> Iterator[Answer]:
    own = [one for one in facts.listeners if one.options.get("content_filter")]
    if not own:
        return
    everywhere = facts.main.get("content_filter", "")
    yield answer(
        not everywhere, f"content_filter = {everywhere}, and -o content_filter for {', '.join(one.name for one in own)}",
        facts.where(None, "content_filter"), "empty in main.cf where services have their own",
        mend_main(facts, "content_filter", ""),
    )  # fmt: skip


def _no_listener_for_all(facts: Facts) -> Iterator[Answer]:
    if not any(one.options.get("content_filter") for one in facts.listeners):
        return
    for one in facts.listeners:
        host, _, port = one.name.rpartition(":")
        if host:
            continue
        bound = [
            other.name
            for other in facts.listeners
            if other.name.rpartition(":")[0] and other.name.rpartition(":")[2] in (port, _number(port))
        ]
        yield answer(
            not bound, f"{one.name} beside {', '.join(bound)}" if bound else one.name, f"master.cf, {one.label}",
            "only services bound to an address on that port", f"postconf -c {facts.directory} -M# '{one.label}'",
        )  # fmt: skip


def _number(port: str) -> str:
    return {"smtp": "25", "submission": "587", "submissions": "465", "smtps": "465"}.get(port, port)


def _addresses_are_mapped_once(facts: Facts) -> Iterator[Answer]:
    back = facts.reinjection
    maps = [name for name in ("virtual_alias_maps", "canonical_maps", "recipient_canonical_maps", "sender_canonical_maps",
                              "always_bcc", "sender_bcc_maps", "recipient_bcc_maps")
            if facts.main.get(name)]  # fmt: skip
    if back is None or not maps or not facts.hops:
        return
    here = "no_address_mappings"
    after = here in names_in(facts.value(back, "receive_override_options"))
    pre = facts.find("pre-cleanup", "unix")
    ahead = [one for one in facts.listeners if one.kind == "inet"]
    before = bool(ahead) and all(here in names_in(facts.value(one, "receive_override_options")) for one in ahead)
    split = pre is not None and pre.options.get("virtual_alias_maps") == ""
    sides = sum((before or split, after))
    yield answer(
        sides == 1, f"{', '.join(maps)}; {here} {'before and after' if sides == 2 else 'on neither side'} the filter"
        if sides != 1 else f"{here} on one side", facts.where(None, "receive_override_options"),
        f"{here} before the filter, or two cleanup services", mend_main(facts, "receive_override_options", here),
    )  # fmt: skip


def _filter_actions_are_right(facts: Facts) -> Iterator[Answer]:
    want = "FILTER transport:[address]:port, with a transport of master.cf"
    for table in facts.filter_maps:
        for action in table.actions:
            hop = parse_hop(table.table, action)
            fine = hop is not None and bool(hop.host and hop.port) and facts.find(hop.transport, "unix") is not None
            feed = next((one.name for one in facts.feeds), "amavisfeed")
            yield answer(
                fine, f"FILTER {action}", f"{table.table} ({table.parameter})", want,
                f"in {table.table.partition(':')[2]}: FILTER {feed}:[127.0.0.1]:10024"
                + (f", then postmap {table.table}" if _is_indexed(table.table) else ""),
            )  # fmt: skip


def _is_indexed(table: str) -> bool:
    return table.partition(":")[0] in ("hash", "btree", "dbm", "cdb", "lmdb")


def _tables_are_fresh(facts: Facts) -> Iterator[Answer]:
    tables = dict.fromkeys([*(one.table for one in facts.access_maps), *(one.table for one in facts.filter_maps)])
    for table in tables:
        kind, _, name = table.partition(":")
        problem = facts.stale_tables.get(table, "")
        if facts.map_types and kind not in facts.map_types:
            problem = f"this Postfix has no tables of type {kind}"
        known = [one for one in ("lmdb", "cdb", "hash", "texthash") if one in facts.map_types]
        mend = f"postmap -c {facts.directory} {table}" if _is_indexed(table) and kind in facts.map_types else (
            f"use {known[0] if known else 'texthash'}:{name} instead"
        )  # fmt: skip
        yield answer(
            not problem,
            problem or "fresh",
            table,
            "a type that postconf -m lists, with an index newer than its source",
            mend,
        )


def _filters_by(facts: Facts, kind: str) -> list[AccessMap]:
    return [table.access for table in facts.filter_maps if table.access is not None and table.access.kind == kind]


def _position(facts: Facts, access: AccessMap, name: str) -> int | None:
    words = list(names_in(_list_of(facts, access)))
    return words.index(name) if name in words else None


def _list_of(facts: Facts, access: AccessMap) -> str:
    for service in facts.services:
        if f"{service.label}, -o {access.parameter}" in access.where:
            return facts.expand(service.options[access.parameter])
    return facts.main.get(access.parameter, "")


def _recipients_of_which_clients(facts: Facts) -> Iterator[Answer]:
    for access in _filters_by(facts, "check_recipient_access"):
        permit = _position(facts, access, "permit_mynetworks")
        after = permit is not None and access.position > permit
        clients = "external clients only" if after else "all clients"
        yield answer(True, f"{access.table} filters mail of {clients}", access.where, "what is meant")


def _senders_before_networks(facts: Facts) -> Iterator[Answer]:
    for access in _filters_by(facts, "check_sender_access"):
        permit = _position(facts, access, "permit_mynetworks")
        words = list(names_in(_list_of(facts, access)))
        pair = [access.kind, access.table]
        rest = [word for index, word in enumerate(words) if index not in (access.position, access.position + 1)]
        place = rest.index("permit_mynetworks") if "permit_mynetworks" in rest else len(rest)
        ordered = [*rest[:place], *pair, *rest[place:]]
        yield answer(
            permit is None or access.position < permit,
            "before permit_mynetworks" if permit is None or access.position < permit else f"{access.table} after permit_mynetworks",
            access.where, f"{access.kind} before permit_mynetworks", mend_main(facts, access.parameter, _join(ordered)),
        )  # fmt: skip


def _join(words: list[str]) -> str:
    """Return a restriction list with a comma after each restriction and none between a check and its table."""
    said: list[str] = []
    for word in words:
        if said and said[-1].startswith("check_") and " " not in said[-1]:
            said[-1] += f" {word}"
        else:
            said.append(word)
    return ", ".join(said)


def _strangers_cannot_relay(facts: Facts) -> Iterator[Answer]:
    if not facts.listeners:
        return
    relay, recipient = (
        facts.main.get("smtpd_relay_restrictions", ""),
        facts.main.get("smtpd_recipient_restrictions", ""),
    )
    good = ("reject_unauth_destination", "defer_unauth_destination", "reject", "defer")
    found = [word for text in (relay, recipient) for word in names_in(text) if word in good]
    where = "smtpd_relay_restrictions" if relay else "smtpd_recipient_restrictions"
    words = list(names_in(recipient))
    yield answer(
        bool(found), f"{', '.join(found) or 'neither list has it'}", facts.where(None, where),
        "reject_unauth_destination in smtpd_relay_restrictions or smtpd_recipient_restrictions",
        mend_main(facts, "smtpd_relay_restrictions", "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination")
        if not words or facts.postfix_version >= (2, 10)
        else mend_main(facts, "smtpd_recipient_restrictions", _join([*words, "reject_unauth_destination"])),
    )  # fmt: skip


def _whole_messages_are_filtered(facts: Facts) -> Iterator[Answer]:
    for access in _filters_by(facts, "check_recipient_access"):
        yield answer(
            True, "a message with one such recipient is filtered for all of its recipients; of several FILTER actions the last counts",
            access.where, "known",
        )  # fmt: skip


def _unread(facts: Facts) -> Iterator[Answer]:
    for table, why in facts.unread_tables.items():
        yield unknown(f"{table}: {why}", "entries that can be listed, to look for FILTER actions")


FILTERING_RULES = (
    Rule("C27", "soft_bounce is off again", "error", "1.2",
         "Left on after the integration, mail that should bounce stays in queues for days.", _soft_bounce_is_off),
    Rule("C28", "envelopes are strict", "information", "1",
         "Addresses with malformed syntax are refused; it does not test whether replies would work.", _envelopes_are_strict),
    Rule("C30", "there is one way of filtering", "warning", "3.2",
         "A content_filter in main.cf applies to every service, those that were to be left out included.", _one_way_of_filtering),
    Rule("C31", "no listener takes all addresses beside those of one", "error", "3.2",
         "The two cannot listen on the same port: one of them does not start.", _no_listener_for_all),
    Rule("C32", "addresses are mapped once", "warning", "3.2",
         "Aliases and canonical maps would be applied twice, and bcc copies made twice.", _addresses_are_mapped_once),
    Rule("C33", "FILTER actions name a transport and a place", "error", "3.3-3.5",
         "Mail for a transport or a place that does not exist is deferred.",
         lambda facts: (*_filter_actions_are_right(facts), *_unread(facts))),
    Rule("C34", "lookup tables are of a type that exists, and fresh", "error", "3.3, 3.5",
         "Postfix reads the index, not the text: what was edited since does not count.", _tables_are_fresh),
    Rule("C35", "which clients' mail to a recipient is filtered", "information", "3.3",
         "Before permit_mynetworks it is everybody's, after it only that of strangers.", _recipients_of_which_clients),
    Rule("C36", "filtering by sender comes before permit_mynetworks", "error", "3.4",
         "Own users' mail would be permitted before it is looked at.", _senders_before_networks),
    Rule("C37", "strangers cannot relay", "error", "3.3",
         "Without reject_unauth_destination this is an open relay.", _strangers_cannot_relay),
    Rule("C38", "filtering by recipient is for whole messages", "information", "3.3",
         "A message cannot be split by what its recipients want.", _whole_messages_are_filtered),
)  # fmt: skip
