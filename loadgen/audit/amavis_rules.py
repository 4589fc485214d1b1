"""Rules about amavisd's own settings."""

from collections.abc import Iterator

from loadgen.audit.facts import Facts
from loadgen.audit.rule import Answer, Rule, answer, unknown

__all__ = ["AMAVIS_RULES"]

_FEW_REQUESTS = 10
_BYPASSES = (
    "bypass_virus_checks_maps",
    "bypass_spam_checks_maps",
    "bypass_banned_checks_maps",
    "bypass_header_checks_maps",
)


def _children_live_long_enough(facts: Facts) -> Iterator[Answer]:
    requests, servers = facts.amavis.get("max_requests"), facts.amavis.get("max_servers")
    want = f"at least {_FEW_REQUESTS}, and more than one process"
    if requests is None:
        yield unknown(facts.amavis_unread or "$max_requests is not known", want)
        return
    fine = (int(requests) == 0 or int(requests) >= _FEW_REQUESTS) and int(servers or 2) > 1
    yield answer(
        fine, f"$max_requests = {requests}, $max_servers = {servers}", "amavisd.conf", want,
        "in amavisd.conf: $max_requests = 20; $max_servers = 2;",
    )  # fmt: skip


def _sessions_outlast_the_feeds(facts: Facts) -> Iterator[Answer]:
    timeout = facts.amavis.get("smtpd_timeout")
    idle = facts.main.get("max_idle", "100s").removesuffix("s")
    want = "longer than Postfix's max_idle"
    if timeout is None or not idle.isdigit():
        yield unknown(facts.amavis_unread or "$smtpd_timeout or max_idle is not known", want)
        return
    yield answer(
        float(timeout) > float(idle), f"$smtpd_timeout = {timeout} s, max_idle = {idle} s", "amavisd.conf", want,
        "in amavisd.conf: $smtpd_timeout = 8*60;",
    )  # fmt: skip


def _something_is_scanned(facts: Facts) -> Iterator[Answer]:
    if not facts.amavis:
        yield unknown(facts.amavis_unread or "amavisd's configuration is not known", "known")
        return
    all_off = [name for name in _BYPASSES if [str(one) for one in facts.amavis.get(name) or []][:1] == ["1"]]
    spam_or_virus = {"bypass_virus_checks_maps", "bypass_spam_checks_maps"}
    yield answer(
        not spam_or_virus <= set(all_off), ", ".join(f"@{name} = (1)" for name in all_off) or "nothing is bypassed for all",
        "amavisd.conf", "spam or virus checks for some mail", "in amavisd.conf: @bypass_spam_checks_maps = ();",
    )  # fmt: skip


AMAVIS_RULES = (
    Rule("C49", "filter processes live long enough", "error", "",
         "A process that retires leaves a hole of up to 10 s; with one process, or few messages for each, that is most of the time.",
         _children_live_long_enough),
    Rule("C50", "amavisd keeps sessions longer than the feed does", "warning", "",
         "A cached session that amavisd closes first costs the feed an error and a new connection.", _sessions_outlast_the_feeds),
    Rule("C51", "something is scanned", "warning", "",
         "A chain that scans nothing is measured faster than it will be.", _something_is_scanned),
)  # fmt: skip
