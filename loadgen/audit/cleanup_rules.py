"""Rules about two cleanup services: one before the filter and one after it."""

from collections.abc import Iterator

from loadgen.audit.facts import Facts, Service, names_in
from loadgen.audit.rule import Answer, Rule, answer, mend_main, mend_option, option_rule

__all__ = ["CLEANUP_RULES"]

_CHECKS = ("mime_header_checks", "nested_header_checks", "body_checks", "header_checks")
_DEFAULT = "cleanup"
_SUBMISSIONS = ("submissions", "smtps", "465")


def _pre_names(facts: Facts) -> list[str]:
    """Return the cleanup services that others name and that are not the usual one."""
    named = [facts.main.get("cleanup_service_name", _DEFAULT)]
    named += [one.options["cleanup_service_name"] for one in facts.services if "cleanup_service_name" in one.options]
    here = ["pre-cleanup"] if facts.find("pre-cleanup", "unix") is not None else []
    return [name for name in dict.fromkeys([*named, *here]) if name != _DEFAULT]


def _are_two(facts: Facts) -> bool:
    return bool(_pre_names(facts))


def _bcc_once(facts: Facts) -> Iterator[Answer]:
    if not _are_two(facts):
        return
    found = facts.main.get("always_bcc", "")
    back = facts.reinjection
    off = any(
        "no_address_mappings" in names_in(facts.value(one, "receive_override_options"))
        for one in [*([back] if back is not None else []), *facts.listeners]
    )
    pre = [one for name in _pre_names(facts) if (one := facts.find(name, "unix")) is not None]
    kept = any(one.options.get("always_bcc") == "" for one in pre)
    yield answer(
        not found or off or kept, f"always_bcc = {found}" if found else "not set", facts.where(None, "always_bcc"),
        "only on the cleanup service after the filter",
        f"postconf -c {facts.directory} -P 'cleanup/unix/always_bcc={found}' && " + mend_main(facts, "always_bcc", ""),
    )  # fmt: skip


def _pre_cleanup_is_whole(facts: Facts) -> Iterator[Answer]:
    for name in _pre_names(facts):
        one = facts.find(name, "unix")
        want = "unix, private n, maxproc 0, command cleanup, -o virtual_alias_maps="
        make = f"postconf -c {facts.directory} -M '{name}/unix={name} unix n - n - 0 cleanup -o virtual_alias_maps='"
        if one is None:
            yield answer(False, f"no service {name}/unix", "master.cf", want, make)
            continue
        mapped = one.options.get("virtual_alias_maps")
        fine = one.private == "n" and one.process_limit == "0" and one.program == "cleanup" and mapped == ""
        found = f"private {one.private}, maxproc {one.process_limit}, {one.program}, virtual_alias_maps {'empty' if mapped == '' else 'not emptied'}"
        yield answer(fine, found, f"master.cf, {one.label}", want, (
            f"postconf -c {facts.directory} -F '{one.label}/private=n' '{one.label}/process_limit=0' && "
            + mend_option(facts, one, "virtual_alias_maps", "")
        ), "warning" if one.program == "cleanup" else "")  # fmt: skip


def _names_pre(facts: Facts, service: Service) -> bool:
    return facts.value(service, "cleanup_service_name") in _pre_names(facts)


def _ways_in(facts: Facts) -> list[Service]:
    """Return pickup and the listeners that the guide knows: all but that of port 465."""
    pickup = next((one for one in facts.services if one.name == "pickup"), None)
    return [*(one for one in facts.listeners if not _is_port(one, _SUBMISSIONS)), *([pickup] if pickup else [])]


def _is_port(service: Service, names: tuple[str, ...]) -> bool:
    return service.name.rpartition(":")[2] in names


def _all_ways_lead_to_pre_cleanup(facts: Facts) -> Iterator[Answer]:
    names = _pre_names(facts)
    if not names:
        return
    for one in _ways_in(facts):
        yield answer(
            _names_pre(facts, one), f"{one.label}: {facts.value(one, 'cleanup_service_name') or _DEFAULT}",
            facts.where(one, "cleanup_service_name"), names[0], mend_option(facts, one, "cleanup_service_name", names[0]),
        )  # fmt: skip
    if (back := facts.reinjection) is not None:
        yield answer(
            not _names_pre(facts, back), f"{back.label}: {facts.value(back, 'cleanup_service_name') or _DEFAULT}",
            facts.where(back, "cleanup_service_name"), "the one after the filter, cleanup",
            mend_option(facts, back, "cleanup_service_name", _DEFAULT),
        )  # fmt: skip


def _checks_run_once(facts: Facts) -> Iterator[Answer]:
    after = facts.find(_DEFAULT, "unix")
    if not _are_two(facts) or after is None:
        return
    for name in _CHECKS:
        yield option_rule(
            facts, after, name, lambda value: not value, "empty", set_to="", own=bool(facts.main.get(name))
        )


def _cleanups_are_not_limited(facts: Facts) -> Iterator[Answer]:
    for one in facts.services:
        if one.program == "cleanup":
            yield answer(
                one.process_limit == "0", f"maxproc {one.process_limit}", f"master.cf, {one.label}", "0 (no limit)",
                f"postconf -c {facts.directory} -F '{one.label}/process_limit=0'",
            )  # fmt: skip


def _pickup_is_a_socket(facts: Facts) -> Iterator[Answer]:
    for one in facts.services:
        if one.name == "pickup":
            yield answer(
                one.kind == "unix", one.kind, f"master.cf, {one.label}", "unix",
                f"postconf -c {facts.directory} -F '{one.label}/type=unix'",
            )  # fmt: skip


def _submissions_is_wired(facts: Facts) -> Iterator[Answer]:
    names = _pre_names(facts)
    if not names:
        return
    for one in facts.listeners:
        if _is_port(one, _SUBMISSIONS):
            yield answer(
                _names_pre(facts, one), f"{one.label}: {facts.value(one, 'cleanup_service_name') or _DEFAULT}",
                facts.where(one, "cleanup_service_name"), names[0], mend_option(facts, one, "cleanup_service_name", names[0]),
            )  # fmt: skip


CLEANUP_RULES = (
    Rule("C39", "bcc copies are made once", "error", "4.2.2",
         "Each of the two cleanup services would make one.", _bcc_once),
    Rule("C40", "the cleanup service before the filter is whole", "error", "4.2.1",
         "What names a service that is not there accepts no mail; one that expands aliases does it twice.", _pre_cleanup_is_whole),
    Rule("C41", "every way in leads to the cleanup service before the filter", "error", "4.2.3",
         "Mail by the other ways would be treated as if it had been filtered.", _all_ways_lead_to_pre_cleanup),
    Rule("C42", "header and body checks run once", "warning", "4.2.2",
         "The cleanup service after the filter would apply them again.", _checks_run_once),
    Rule("C43", "cleanup services are not limited", "warning", "4.2.1",
         "Whatever takes mail waits for one.", _cleanups_are_not_limited),
    Rule("C44", "pickup is a socket", "warning", "4.2.3",
         "The guide's fifo is older than Postfix 2.10, whose default is unix; fifo is still taken.", _pickup_is_a_socket),
    Rule("C45", "port 465 leads there, too", "warning", "",
         "The guide is older than submissions; what it says of 587 is meant for it as well.", _submissions_is_wired),
)  # fmt: skip
