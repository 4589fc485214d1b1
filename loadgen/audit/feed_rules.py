"""Rules about the service that hands mail to the filter, and about where content_filter points."""

import re
from collections.abc import Iterator

from loadgen.audit.facts import Facts, Service
from loadgen.audit.rule import Answer, Rule, answer, mend_main, mend_option, option_rule, unknown

__all__ = ["FEED_RULES"]

_BUILTIN = ("smtp", "lmtp", "relay")
_MARGIN_S = 60
"""What a timeout must be longer than the one that it waits for."""


def _prefix(feed: Service) -> str:
    return "lmtp" if feed.program == "lmtp" else "smtp"


def _transport_exists(facts: Facts) -> Iterator[Answer]:
    want = "a service of that name in master.cf, type unix, command lmtp or smtp"
    for hop in facts.hops:
        service = facts.find(hop.transport, "unix")
        if service is None:
            yield answer(False, f"{hop.text}: no service {hop.transport}/unix", hop.where, want, (
                f"postconf -c {facts.directory} -M '{hop.transport}/unix={hop.transport} unix - - n - 2 lmtp'"
            ))  # fmt: skip
        else:
            fine = service.program in ("lmtp", "smtp")
            yield answer(fine, f"{service.label} runs {service.program}", hop.where, want, (
                f"postconf -c {facts.directory} -F '{service.label}/command=lmtp'"
            ))  # fmt: skip


def _is_dedicated(facts: Facts) -> Iterator[Answer]:
    for hop in facts.hops:
        own = hop.transport not in _BUILTIN
        yield answer(
            own, f"{hop.transport} in {hop.text}", hop.where, "a service for the filter alone, such as amavisfeed",
            f"postconf -c {facts.directory} -M 'amavisfeed/unix=amavisfeed unix - - n - 2 lmtp' && "
            + mend_main(facts, "content_filter", f"amavisfeed:[{hop.host or '127.0.0.1'}]:{hop.port or '10024'}"),
        )  # fmt: skip


def _is_limited(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        limit = f"{feed.name}_destination_concurrency_limit"
        set_somewhere = feed.process_limit not in ("-", "0") or limit in facts.explicit
        servers = facts.amavis.get("max_servers") or 2
        found = f"maxproc {feed.process_limit}, {limit} {'set' if limit in facts.explicit else 'not set'}"
        yield answer(
            set_somewhere, found, f"master.cf, {feed.label}", "a number of processes, or a limit in main.cf",
            f"postconf -c {facts.directory} -F '{feed.label}/process_limit={servers}'",
        )  # fmt: skip


def _limit(facts: Facts, feed: Service) -> int:
    """Return how many deliveries the feed can have at a time, by maxproc and the destination's limit."""
    numbers = [
        int(text)
        for text in (
            feed.process_limit if feed.process_limit != "-" else facts.main.get("default_process_limit", "100"),
            _destination_limit(facts, feed),
        )
        if text.isdigit() and int(text) > 0
    ]
    return min(numbers, default=0)


def _destination_limit(facts: Facts, feed: Service) -> str:
    own = facts.expand(facts.main.get(f"{feed.name}_destination_concurrency_limit", ""))
    return own or facts.main.get("default_destination_concurrency_limit", "20")


def _sides_are_equal(facts: Facts) -> Iterator[Answer]:
    servers = facts.amavis.get("max_servers")
    for feed in facts.feeds:
        want = "as many as $max_servers, or one less"
        if not servers:
            yield unknown(facts.amavis_unread or "$max_servers is not set", want)
            continue
        limit, servers = _limit(facts, feed), int(servers)
        found = f"{limit} deliveries at a time, $max_servers = {servers}"
        where = f"master.cf, {feed.label}, maxproc"
        lower = f"postconf -c {facts.directory} -F '{feed.label}/process_limit={servers}'"
        if limit > servers or not limit:
            yield answer(False, found, where, want, lower, "error")
        else:
            yield answer(limit >= servers - 1, found, where, want, lower, "information")


def _destination_limit_is_wide(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        if not feed.process_limit.isdigit() or feed.process_limit == "0":
            continue  # the destination's limit is then the one that is meant
        name = f"{feed.name}_destination_concurrency_limit"
        found = _destination_limit(facts, feed)
        fine = not found.isdigit() or int(found) == 0 or int(found) >= int(feed.process_limit)
        yield answer(
            fine, f"{found}, maxproc is {feed.process_limit}", facts.where(None, name), f"at least {feed.process_limit}",
            mend_main(facts, name, feed.process_limit),
        )  # fmt: skip


def _waits_for_the_scan(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        name = f"{_prefix(feed)}_data_done_timeout"
        child = facts.amavis.get("child_timeout")
        want = "longer than $child_timeout, by a minute or more"
        if child is None:
            yield unknown(facts.amavis_unread or "$child_timeout is not known", want)
            continue
        found = _seconds(facts.value(feed, name))
        fine = found is not None and found >= float(child) + _MARGIN_S
        yield answer(
            fine, f"{facts.value(feed, name)}, $child_timeout is {child} s", facts.where(feed, name), want,
            mend_option(facts, feed, name, str(max(1200, int(float(child)) + 2 * _MARGIN_S))),
        )  # fmt: skip


def _seconds(text: str) -> float | None:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    number, unit = (text[:-1], text[-1]) if text and text[-1] in units else (text, "s")
    return float(number) * units[unit] if number.isdigit() else None


def _prefix_matches(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        mine = _prefix(feed)
        other = "smtp" if mine == "lmtp" else "lmtp"
        wrong = [name for name in feed.options if name.startswith(f"{other}_")]
        renamed = [f"'{feed.label}/{mine}_{name.removeprefix(f'{other}_')}={feed.options[name]}'" for name in wrong]
        remove = " ".join(f"'{feed.label}/{name}'" for name in wrong)
        yield answer(
            not wrong, ", ".join(wrong) or f"all options are {mine}_*", f"master.cf, {feed.label}",
            f"{mine}_* options: the service runs {feed.program}",
            f"postconf -c {facts.directory} -P {' '.join(renamed)} && postconf -c {facts.directory} -PX {remove}",
        )  # fmt: skip


def _sends_xforward(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        name = f"{_prefix(feed)}_send_xforward_command"
        yield option_rule(facts, feed, name, lambda value: value == "yes", "yes", set_to="yes")


def _ignores_starttls(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        name = f"{_prefix(feed)}_tls_note_starttls_offer"
        yield option_rule(facts, feed, name, lambda value: value == "no", "no", set_to="no")


def _has_no_stray_words(facts: Facts) -> Iterator[Answer]:
    chain = [*facts.feeds, *(one for one in facts.services if one.program in ("smtpd", "cleanup"))]
    for service in dict.fromkeys(one.label for one in chain):
        one = next(found for found in chain if found.label == service)
        if not one.options and not one.stray:
            continue
        yield answer(
            not one.stray, " ".join(one.stray) or "none", f"master.cf, {one.label}",
            "no white space around =, none inside a value, no # after it",
            f"postconf -c {facts.directory} -F '{one.label}/command={_repair(one)}'",
        )  # fmt: skip


def _repair(service: Service) -> str:
    """Return the command as it was meant: name, "=" and value of an option in one word, without a comment."""
    said: list[str] = []
    for word in service.words[1:]:
        if word.startswith("#"):
            break
        if re.fullmatch(r"-[a-zA-Z]+", word) or said[-1:] == ["-o"] or not said:
            said.append(word)
        else:  # it belongs to the option before it
            glued = said[-1].endswith(("=", ",")) or word.startswith(("=", ",")) or "=" not in said[-1]
            said[-1] += word if glued else f",{word}"
    return " ".join([service.program, *said])


def _port_matches(facts: Facts) -> Iterator[Answer]:
    ports = facts.amavis.get("inet_socket_port")
    want = "a port that amavisd listens on ($inet_socket_port)"
    for hop in facts.hops:
        if hop.host not in ("127.0.0.1", "localhost", "::1"):
            continue  # amavisd of another host
        if ports is None:
            yield unknown(facts.amavis_unread or "$inet_socket_port is not set", want)
            continue
        listening = [str(port) for port in (ports if isinstance(ports, list) else [ports])]
        yield answer(
            hop.port in listening, f"{hop.text}; amavisd listens on {', '.join(listening)}", hop.where, want,
            mend_main(facts, "content_filter", f"{hop.transport}:[{hop.host}]:{listening[0] if listening else 10024}"),
        )  # fmt: skip


def _hop_is_explicit(facts: Facts) -> Iterator[Answer]:
    for hop in facts.hops:
        fine = bool(hop.host and hop.port and hop.bracketed)
        yield answer(
            fine, hop.text, hop.where, "transport:[address]:port",
            mend_main(facts, "content_filter", f"{hop.transport}:[{hop.host or '127.0.0.1'}]:{hop.port or '10024'}"),
        )  # fmt: skip


def _discards_pipelining(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        local = [
            hop for hop in facts.hops if hop.transport == feed.name and hop.host in ("127.0.0.1", "localhost", "::1")
        ]
        if not local:
            continue
        name = "lmtp_discard_lhlo_keywords" if _prefix(feed) == "lmtp" else "smtp_discard_ehlo_keywords"
        yield option_rule(
            facts,
            feed,
            name,
            lambda value: "pipelining" in value.lower(),
            "pipelining among its words",
            set_to="pipelining",
        )


def _feed_by_smtp_leaves_mail_alone(facts: Facts) -> Iterator[Answer]:
    for feed in facts.feeds:
        if feed.program != "smtp":
            continue
        yield option_rule(facts, feed, "smtp_generic_maps", lambda value: not value, "empty", set_to="")
        yield option_rule(
            facts, feed, "disable_mime_output_conversion", lambda value: value == "yes", "yes", set_to="yes"
        )
        if facts.postfix_version >= (3, 11):
            yield option_rule(
                facts, feed, "smtp_tls_security_level", lambda value: value in ("", "none"), "none", set_to="none"
            )


FEED_RULES = (
    Rule("C01", "the transport that content_filter names exists", "error", "2.2",
         "Mail for a transport that does not exist is deferred for ever.", _transport_exists),
    Rule("C02", "the filter has a transport of its own", "warning", "2.2",
         "Limits and options for the filter would hit all other mail of the shared service.", _is_dedicated),
    Rule("C03", "the feed is limited", "error", "2.2.1, 5.1",
         "An unlimited feed opens more connections than amavisd has processes; the rest waits unseen, then times out.", _is_limited),
    Rule("C04", "the feed and the filter have as many processes as each other", "error", "5.1",
         "Connections beyond $max_servers wait in the listen queue; processes beyond the feed cost memory and do nothing.", _sides_are_equal),
    Rule("C05", "the destination concurrency limit is no lower than maxproc", "warning", "",
         "Its default of 20 caps the feed whatever maxproc says; all filter mail has one destination.", _destination_limit_is_wide),
    Rule("C06", "the feed waits longer than the filter may scan", "error", "2.2.1",
         "A feed that gives up while amavisd still works sends the message again: it is delivered twice.", _waits_for_the_scan),
    Rule("C07", "the feed's options are those of its program", "error", "2.2.2",
         "smtp_* options do nothing for lmtp, and the other way round.", _prefix_matches),
    Rule("C08", "the feed sends XFORWARD", "warning", "2.2.1",
         "amavisd then knows the client: for its log, policy banks and pen pals.", _sends_xforward),
    Rule("C09", "the feed does not note STARTTLS offers", "information", "2.2.1",
         "It would log a line for each session that could be secured on loopback.", _ignores_starttls),
    Rule("C10", "master.cf has no white space where there may be none", "error", "2.2.1",
         "Postfix takes name, = and value for three words and the option does nothing; postconf -P does not show it.", _has_no_stray_words),
    Rule("C12", "amavisd listens where content_filter points", "error", "2.1.1, 3.1",
         "Mail is deferred with connection refused.", _port_matches),
    Rule("C29", "content_filter names address and port, in brackets", "warning", "3.1",
         "Without brackets MX records are asked; without a next hop the recipient's domain is one.", _hop_is_explicit),
    Rule("C47", "the feed does not pipeline on loopback", "warning", "",
         "With PIPELINING, Nagle's algorithm and delayed acknowledgements wait 40 ms for each other at every message.", _discards_pipelining),
    Rule("C48", "a feed by smtp leaves mail alone", "information", "",
         "It would rewrite addresses and convert 8-bit content on the way to the filter.", _feed_by_smtp_leaves_mail_alone),
)  # fmt: skip
