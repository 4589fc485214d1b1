"""Rules about the service that takes mail back from the filter (10025)."""

from collections.abc import Callable, Iterator

from loadgen.audit.facts import Facts, Service, listens_at, names_in, parse_method
from loadgen.audit.rule import Answer, Rule, answer, mend_option, option_rule, unknown

__all__ = ["REINJECTION_RULES"]

_LOOPBACK = ("127.", "[::1]", "localhost:", "::1")
_OVERRIDES = ("no_header_body_checks", "no_unknown_recipient_checks", "no_milters")


def _exists(facts: Facts) -> Iterator[Answer]:
    want = "an smtpd in master.cf at that address, the same for both"
    forward, notify = facts.amavis.get("forward_method"), facts.amavis.get("notify_method")
    if not forward:
        yield unknown(facts.amavis_unread or "$forward_method is not set", want)
        return
    for name, method in (("$forward_method", forward), ("$notify_method", notify)):
        place = parse_method(str(method or ""))
        if place is None or place[0] not in ("127.0.0.1", "localhost", "::1", "*"):
            continue  # by another way, or to another host
        found = any(one.kind == "inet" and listens_at(one, place) for one in facts.services)
        yield answer(
            found, f"{name} = {method}" + ("" if found else ": nothing listens there"), "amavisd.conf", want,
            f"postconf -c {facts.directory} -M '{place[0]}:{place[1]}/inet={place[0]}:{place[1]} inet n - n - - smtpd "
            "-o content_filter='",
        )  # fmt: skip
    if notify and notify != forward:
        yield answer(
            False, f"$notify_method = {notify}, $forward_method = {forward}", "amavisd.conf", want,
            "in amavisd.conf: $notify_method = $forward_method;", "warning",
        )  # fmt: skip


def _has_no_filter(facts: Facts) -> Iterator[Answer]:
    back = facts.reinjection
    if back is None:
        return
    empty = facts.value(back, "content_filter") == ""
    own = "content_filter" in back.options
    found = (
        f"content_filter={facts.value(back, 'content_filter')}"
        if own or not empty
        else "no -o content_filter= (main.cf is empty now)"
    )
    yield answer(
        empty and own, found, facts.where(back, "content_filter"), "-o content_filter= (empty)",
        mend_option(facts, back, "content_filter", ""), "error" if not empty else "warning",
    )  # fmt: skip


def _overrides(facts: Facts, back: Service) -> list[str]:
    return list(names_in(facts.value(back, "receive_override_options")))


def _is_not_filtered_by_header(facts: Facts) -> Iterator[Answer]:
    back = facts.reinjection
    checks = [table for table in facts.filter_maps if table.access is None]
    if back is None or not checks:
        return
    found = _overrides(facts, back)
    yield answer(
        "no_header_body_checks" in found, f"receive_override_options={','.join(found)}; FILTER in {checks[0].table}",
        facts.where(back, "receive_override_options"), "no_header_body_checks among them",
        mend_option(facts, back, "receive_override_options", ",".join(dict.fromkeys([*found, *_OVERRIDES]))),
    )  # fmt: skip


def _does_nothing_twice(facts: Facts) -> Iterator[Answer]:
    back = facts.reinjection
    if back is None:
        return
    found = _overrides(facts, back)
    yield answer(
        set(_OVERRIDES) <= set(found), ",".join(found) or "none", facts.where(back, "receive_override_options"),
        ",".join(_OVERRIDES),
        mend_option(facts, back, "receive_override_options", ",".join(dict.fromkeys([*found, *_OVERRIDES]))),
    )  # fmt: skip


def _takes_from_loopback_only(facts: Facts) -> Iterator[Answer]:
    back = facts.reinjection
    if back is None:
        return
    bound = back.name.startswith(_LOOPBACK)
    networks = list(names_in(facts.value(back, "mynetworks")))
    near = all(one.startswith(("127.", "[::1]")) for one in networks) and bool(networks)
    own = "mynetworks" in back.options
    yield answer(
        bound and near and own, f"{back.name}, mynetworks={','.join(networks)}" + ("" if own else " (main.cf's)"),
        facts.where(back, "mynetworks"), "bound to a loopback address, and -o mynetworks=127.0.0.0/8",
        mend_option(facts, back, "mynetworks", "127.0.0.0/8") if bound else
        f"postconf -c {facts.directory} -F '{back.label}/service=127.0.0.1:{back.name.rpartition(':')[2]}'",
        "error" if not bound or not near else "warning",
    )  # fmt: skip


def _option(name: str, good: Callable[[str], bool], want: str, set_to: str) -> Callable[[Facts], Iterator[Answer]]:
    """Return what asks for one option of the service itself."""

    def ask(facts: Facts) -> Iterator[Answer]:
        if (back := facts.reinjection) is not None:
            yield option_rule(facts, back, name, good, want, set_to=set_to, own=True)

    return ask


def _several(*options: tuple[str, str]) -> Callable[[Facts], Iterator[Answer]]:
    """Return what asks for several options with one value each; white space and commas are the same."""

    def ask(facts: Facts) -> Iterator[Answer]:
        if (back := facts.reinjection) is None:
            return
        for name, value in options:
            yield option_rule(
                facts, back, name, lambda found, value=value: list(names_in(found)) == list(names_in(value)),  # type: ignore[misc]
                value or "empty", set_to=value, own=bool(value) or bool(facts.main.get(name)),
            )  # fmt: skip

    return ask


def _is_wide_enough(facts: Facts) -> Iterator[Answer]:
    back = facts.reinjection
    servers = facts.amavis.get("max_servers")
    if back is None:
        return
    wanted = (
        int(servers)
        if servers
        else max((int(f.process_limit) for f in facts.feeds if f.process_limit.isdigit()), default=0)
    )
    limit = back.process_limit if back.process_limit != "-" else facts.main.get("default_process_limit", "100")
    found = int(limit) if limit.isdigit() else 0
    yield answer(
        found == 0 or found >= wanted, f"{back.process_limit} ({found or 'no limit'}), the filter has {wanted}",
        f"master.cf, {back.label}, maxproc", f"- or at least {wanted}",
        f"postconf -c {facts.directory} -F '{back.label}/process_limit=-'",
    )  # fmt: skip


def _believes_xforward(facts: Facts) -> Iterator[Answer]:
    back = facts.reinjection
    if back is None:
        return
    yield option_rule(
        facts, back, "smtpd_authorized_xforward_hosts", lambda value: "127.0.0." in value, "127.0.0.0/8 among them",
        set_to="127.0.0.0/8",
    )  # fmt: skip


_PERMIT = "permit_mynetworks,reject"

REINJECTION_RULES = (
    Rule("C11", "something listens where the filter hands mail back", "error", "2.1.2",
         "The filter can hand nothing back, and defers everything.", _exists),
    Rule("C13", "mail that comes back is not filtered again", "error", "2.3",
         "It would go round for ever. An empty main.cf protects only until somebody sets it.", _has_no_filter),
    Rule("C14", "mail that comes back is not filtered again by its content", "error", "2.3, 3.5",
         "A FILTER action in header or body checks would send it round for ever.", _is_not_filtered_by_header),
    Rule("C15", "nothing is done twice", "warning", "2.3",
         "Checks, recipient validation and milters have had this message already.", _does_nothing_twice),
    Rule("C16", "milters do not see the message again", "information", "2.3",
         "They have seen it at the front.", _several(("smtpd_milters", ""))),
    Rule("C17", "only this host may hand mail back", "error", "2.3",
         "Whatever comes in here is trusted and not scanned: open to others it is an open relay.", _takes_from_loopback_only),
    Rule("C18", "restrictions admit this host and nobody else", "warning", "2.3",
         "Restrictions of main.cf would judge mail that has been accepted already.",
         _several(("smtpd_client_restrictions", _PERMIT), ("smtpd_recipient_restrictions", _PERMIT))),
    Rule("C19", "the other restrictions are empty", "information", "2.3",
         "What main.cf says of senders and greetings is meant for the front.",
         _several(("smtpd_helo_restrictions", ""), ("smtpd_sender_restrictions", ""), ("smtpd_end_of_data_restrictions", ""),
                  ("smtpd_restriction_classes", ""), ("smtpd_data_restrictions", "reject_unauth_pipelining"))),
    Rule("C20", "relay restrictions do not judge again", "warning", "",
         "Since Postfix 2.10 main.cf's smtpd_relay_restrictions are asked as well; the guide is older.",
         _option("smtpd_relay_restrictions", lambda value: list(names_in(value)) in ([], ["permit_mynetworks", "reject"]),
                 f"empty, or {_PERMIT}", _PERMIT)),
    Rule("C21", "restrictions are asked at once", "information", "2.3",
         "With one client there is nothing to wait for.", _several(("smtpd_delay_reject", "no"))),
    Rule("C22", "addresses are not looked up or rewritten again", "information", "2.3",
         "The front has done so.",
         _several(("local_header_rewrite_clients", ""), ("local_recipient_maps", ""), ("relay_recipient_maps", ""))),
    Rule("C23", "errors do not slow the filter down", "information", "2.3",
         "The filter is no client to be discouraged. The hard limit below the soft one is meant.",
         _several(("smtpd_error_sleep_time", "0"), ("smtpd_soft_error_limit", "1001"), ("smtpd_hard_error_limit", "1000"))),
    Rule("C24", "limits per client do not hit the filter", "warning", "2.3",
         "All mail comes from one client address.",
         _several(("smtpd_client_connection_count_limit", "0"), ("smtpd_client_connection_rate_limit", "0"))),
    Rule("C25", "as many can hand back as can scan", "error", "",
         "Filter processes would wait for a place here while holding their own.", _is_wide_enough),
    Rule("C26", "XFORWARD is believed", "warning", "",
         "Without it the log does not say which message of the first pass this is, and the two cannot be joined.", _believes_xforward),
)  # fmt: skip
