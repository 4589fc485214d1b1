"""Doubts about the measurement and known defects of the chain, looked for by name.

Pure: what is known of a run in, findings out, the gravest first. Each has an
id, the evidence in numbers, and what to do. To add one: a function
that takes the `Case` and yields, and its name in `_CHECKS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reports.attribution import Limits
from reports.summary import Accounting, Cost, Finding, Level, StepRow, Verdict, name_step

__all__ = ["Case", "find_findings"]

_SEVERITIES = ("error", "warning", "information")
_TEXTS = 3
_TEXT_LENGTH = 160


@dataclass(frozen=True)
class Case:
    """Everything a check may look at."""

    rows: Sequence[StepRow]
    verdict: Verdict
    accounting: Accounting
    limits: Limits
    cost: Cost
    is_reference: bool = False
    has_filter_log: bool = False
    """Scans of the filter were found in a log."""
    has_maillog: bool = False
    """Queue entries were found in a log."""
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Kind to the texts of that kind."""
    status: str = "complete"
    """As the conductor left it: running, complete, incomplete."""
    end_reason: str = ""
    planned_steps: int = 0
    levels: Sequence[Level] = ()
    """Of a sweep."""


def find_findings(case: Case) -> list[Finding]:
    """Return what there is to say, "not-a-mail-server" first, then by severity."""
    found = [finding for check in _CHECKS for finding in check(case)]
    found.sort(key=lambda f: _SEVERITIES.index(f["severity"]))
    if case.is_reference:
        found.insert(0, _NOT_A_MAIL_SERVER)
    return found


_NOT_A_MAIL_SERVER = Finding(
    id="not-a-mail-server",
    severity="information",
    evidence="The chain of this run is loadgen's own stand-in with a capacity that is known. No Postfix, no amavisd took part.",
    advice="Use it to check the tool and to learn the report. Size nothing by it; run against a lab or your own chain for that.",
)


def _check_run(case: Case) -> Iterator[Finding]:
    if case.status != "complete":
        reason = case.end_reason or ("the record just stops" if case.status == "running" else "no reason given")
        measured = sum(row["hold_s"] is not None for row in case.rows)
        yield _finding(
            "run-interrupted", "error",
            f"The run did not end as planned: {reason}. {measured} of {case.planned_steps} steps were measured.",
            "What is here is right as far as it goes, and may miss the part that matters. Run it again.",
        )  # fmt: skip


def _check_accounting(case: Case) -> Iterator[Finding]:
    a = case.accounting
    if a["lost"]:
        yield _finding(
            "messages-lost", "error",
            f"{a['lost']} of {a['messages']} messages were answered 250 and found nowhere afterwards{_names(a, 'lost')}.",
            "Look for these ids in the mail log and in quarantine. Until they are found no number of this run is safe.",
        )  # fmt: skip
    if a["unknown"]:
        yield _finding(
            "messages-unknown", "error",
            f"The fate of {a['unknown']} of {a['messages']} messages is not known{_names(a, 'unknown')}: the connection "
            "broke after the final dot, or the record ends too early.",
            "Look for these ids in the mail log. If the run was cut off, run it again.",
        )  # fmt: skip
    if a["duplicates"]:
        yield _finding(
            "duplicates", "warning",
            f"{a['duplicates']} copies arrived that nobody sent.",
            "A hop timed out after the final dot and sent again: the feed's data_done timeout must be longer than the "
            "longest scan.",
        )  # fmt: skip
    if a["blocked"]:
        yield _finding(
            "messages-blocked", "warning",
            f"The filter blocked {a['blocked']} of {a['messages']} messages{_names(a, 'blocked')}. They cost it work and "
            "count as no delivery.",
            "Read the category in amavisd's log. Test mail should pass: check banned names, bad headers and the spam "
            "kill level.",
        )  # fmt: skip
    if a["bounced"]:
        yield _finding(
            "messages-bounced", "warning",
            f"{a['bounced']} messages were returned to their sender{_names(a, 'bounced')}.",
            "Read the status in the mail log; test mail should be delivered.",
        )  # fmt: skip
    if a["refused"] or a["not_sent"]:
        yield _finding(
            "messages-refused", "warning",
            f"The front refused {a['refused']} messages and {a['not_sent']} could not be sent.",
            "The replies are listed under the accounting. Postfix's own limits for clients are the usual cause.",
        )  # fmt: skip
    if a["locust_agrees"] is False:
        yield _finding(
            "locust-disagrees", "warning",
            f"Locust counted {a['locust_requests']} requests, the record has {a['messages']} messages.",
            "Part of the record is missing, or part of the load was not recorded. Run it again.",
        )  # fmt: skip


def _check_log(case: Case) -> Iterator[Finding]:
    texts = case.remarks.get("suppressed", ())
    a = case.accounting
    missing = a["delivered"] - a["log_joined"] if case.has_maillog else 0
    if texts or missing > 0:
        parts = []
        if texts:
            parts.append(f"log lines were dropped: {_quote(texts)}")
        if missing > 0:
            parts.append(f"{missing} of {a['delivered']} delivered messages are not in the mail log as read")
        yield _finding(
            "log-incomplete", "warning", f"{'; '.join(parts)}.",
            "Delays and verdicts miss these. Let Postfix write its own file (maillog_file), or raise the rate limits of "
            "journald or rsyslog.",
        )  # fmt: skip
    if case.has_filter_log and any(row["timing_s"] for row in case.rows):
        steps = [row for row in case.rows if row["timing_s"]]
        if not any("SA check" in row["timing_s"] for row in steps):
            yield _finding(
                "nothing-scanned", "warning",
                "No message spent time in SpamAssassin: no TIMING line has a section \"SA check\".",
                "The filter did less than it will do with real mail. Check @bypass_spam_checks_maps and "
                "$sa_mail_body_size_limit.",
            )  # fmt: skip


def _check_chain(case: Case) -> Iterator[Finding]:
    limits = case.limits
    feed, servers = limits.feed_processes, limits.filter_servers
    destination = limits.destination_concurrency_limit
    stalls = [row for row in case.rows if 0.038 <= (row["smtp_data_median_s"] or 0.0) <= 0.050]
    if stalls:
        worst = max(stalls, key=lambda row: row["smtp_data_median_s"] or 0.0)
        yield _finding(
            "pipelining-stall", "warning",
            f"The filter waits {(worst['smtp_data_median_s'] or 0) * 1000:.0f} ms for the data of a message (median of the TIMING section "
            f"\"SMTP DATA\", {name_step(worst)}): Nagle's algorithm and delayed acknowledgements wait for each other.",
            "Discard PIPELINING on the feed (lmtp_discard_lhlo_keywords or smtp_discard_ehlo_keywords = pipelining) and "
            "measure again.",
        )  # fmt: skip
    if feed is not None and servers is not None and feed > servers:
        yield _finding(
            "feed-exceeds-servers", "warning",
            f"The feed may open {feed} connections and the filter has {servers} processes: the rest waits unseen in the "
            "accept queue, up to 300 s.",
            f"Set maxproc of the feed to {servers}, or $max_servers to {feed}.",
        )  # fmt: skip
    if destination is not None and servers is not None and servers > destination:
        yield _finding(
            "destination-limit-caps", "warning",
            f"The destination concurrency limit of the feed is {destination}, the filter has {servers} processes: at most "
            f"{destination} can ever work.",
            f"Set amavisfeed_destination_concurrency_limit (and initial_destination_concurrency) to {servers}.",
        )  # fmt: skip
    held = [
        row for row in case.rows
        if (row["held_processes"] or 0.0) >= 0.5 and row["feed_delays"] is not None and row["feed_delays"]["c_s"] >= 0.01
        and (row["utilisation"] is None or row["utilisation"] < 0.9)
    ]  # fmt: skip
    if held:
        worst = max(held, key=lambda row: row["held_processes"] or 0.0)
        wait = worst["feed_delays"]["c_s"] if worst["feed_delays"] else 0.0
        yield _finding(
            "held-children", "warning",
            f"At {name_step(worst)} idle cached sessions of the feed held {worst['held_processes']:.1f} filter processes on average, while "
            f"messages waited {wait * 1000:.0f} ms for one.",
            "Set lmtp_connection_cache_on_demand = no on the feed, or give the filter a few more processes than the feed "
            "has.",
        )  # fmt: skip
    missing = [
        row for row in case.rows
        if row["children"] is not None and row["filter_servers"] and row["children"] < 0.98 * row["filter_servers"]
    ]  # fmt: skip
    if missing:
        worst = min(missing, key=lambda row: row["children"] or 0.0)
        yield _finding(
            "children-missing", "warning",
            f"At {name_step(worst)} the filter had {worst['children']:.1f} of its {worst['filter_servers']} processes on average.",
            "A process retires after $max_requests messages. Its parent replaces it at once, or, when the signal comes "
            "between two of its looks, only after 10 s (Net::Server's PreForkSimple). With few processes that is a hole: "
            "raise $max_requests or $max_servers, and hold a step for longer than several such holes.",
        )  # fmt: skip
    if texts := case.remarks.get("dead-destination"):
        yield _finding(
            "dead-destination", "error", f"Postfix held the filter for dead ({_times(texts)}): {_quote(texts)}",
            "It then waits for minimal_backoff_time (300 s). Find out why the filter did not answer; 'postfix flush' ends "
            "the wait.",
        )  # fmt: skip
    undrained = case.remarks.get("not-drained", ())
    if undrained or case.accounting["queued"]:
        yield _finding(
            "queue-not-drained", "error",
            f"{case.accounting['queued']} messages were left in the queue at the end"
            + (f": {_quote(undrained)}" if undrained else "."),
            "Look at the queue (postqueue -p) and at the reasons in the mail log; give timing.drain more time if it was "
            "only slow.",
        )  # fmt: skip


def _check_steps(case: Case) -> Iterator[Finding]:
    unsteady = [row for row in case.rows if any(r.startswith("not steady") for r in row["reasons"])]
    if unsteady:
        numbers = ", ".join(f"{name_step(row)} ({row['halves_change']:+.0%})" for row in unsteady)
        yield _finding(
            "not-steady", "warning", f"Throughput still changed during the hold: {numbers}.",
            "Lengthen timing.warm_up and the hold. If it never settles, something in the chain drifts.",
        )  # fmt: skip
    slow = [row for row in case.rows if (row["cost"]["generator_cores"] or 0.0) >= 0.9]
    if slow:
        yield _finding(
            "generator-saturated", "error",
            f"The generator used a whole core at {', '.join(name_step(row) for row in slow)}.",
            "The load was not what it should be. Use a second machine, or Locust's workers.",
        )  # fmt: skip
    lag = max((row["cost"]["generator_lag_s"] or 0.0 for row in case.rows), default=0.0)
    if lag > 0.1 and not slow:
        yield _finding(
            "generator-late", "information", f"The generator's event loop ran up to {lag * 1000:.0f} ms late.",
            "Instants of sending may be off by as much. It shares the CPU with the chain: see the tool's own cost.",
        )  # fmt: skip
    sink = [row for row in case.rows if (row["cost"]["sink_cores"] or 0.0) >= 0.5]
    if sink:
        most = max(row["cost"]["sink_cores"] or 0.0 for row in sink)
        yield _finding(
            "sink-slow", "error" if most >= 0.9 else "warning",
            f"The sink used {most:.2f} cores.",
            "A slow end holds up the whole chain. Above 0.9 cores it limits: put it on another machine.",
        )  # fmt: skip
    stolen = [row for row in case.rows if (row["host"]["cpu_steal"] or 0.0) > 0.02 * (case.limits.cpus or 1)]
    if stolen:
        most = max(row["host"]["cpu_steal"] or 0.0 for row in stolen)
        yield _finding(
            "steal", "warning", f"The hypervisor took {most:.2f} cores away during a hold.",
            "Another guest competes for this host: numbers of different moments cannot be compared.",
        )  # fmt: skip
    disturbed = [row for row in case.rows if (row["cost"]["others_cores"] or 0.0) > 0.1 * (case.limits.cpus or 1)]
    if disturbed:
        worst = max(disturbed, key=lambda row: row["cost"]["others_cores"] or 0.0)
        yield _finding(
            "host-busy", "warning",
            f"At {name_step(worst)} something that is neither the chain nor loadgen used {worst['cost']['others_cores']:.1f} "
            f"cores of this host ({len(disturbed)} of {len(case.rows)} steps were disturbed).",
            "Find it (top), and measure again without it: the chain had less than the host can give.",
        )  # fmt: skip
    known = [row for row in case.rows if row["valid"] and _is_off(row)]
    if known:
        numbers = ", ".join(
            f"{name_step(row)}: {row['delivered_per_s']:.1f} instead of {row['known_delivered_per_s']:.1f}" for row in known
        )  # fmt: skip
        yield _finding(
            "reference-missed", "warning",
            f"The known capacity of the reference chain was missed by more than 5 %: {numbers} msg/s.",
            "This machine was too busy to measure, or one message's service is short against the stand-in's own handling "
            "(1 to 2 ms). If it was busy, do not trust it with a real chain either.",
        )  # fmt: skip


def _check_environment(case: Case) -> Iterator[Finding]:
    share = case.cost["own_share"]
    if share is not None and share > 0.05 and not case.is_reference:
        yield _finding(
            "own-cost", "warning" if share > 0.2 else "information",
            f"loadgen used {case.cost['own_cores']:.2f} cores on this host, {share:.0%} of what the chain used.",
            "A chain that has the host to itself carries somewhat more. Send from another machine to be exact.",
        )  # fmt: skip
    for kind, (name, severity, advice) in _REMARKS.items():
        if texts := case.remarks.get(kind):
            yield _finding(name, severity, f"{_times(texts).capitalize()}: {_quote(texts)}", advice)


_REMARKS = {
    "backlog-limit": (
        "backlog-limit", "warning", "The load ran ahead of the chain. Lower it, or raise limits.backlog on purpose.",
    ),
    "disk-limit": ("disk-limit", "error", "Make room where the queue is."),
    "front-unreachable": ("front-unreachable", "error", "Is the front Postfix running, and does it let this client in?"),
    "collector-gap": (
        "collector-gap", "warning", "The host was too busy to be observed; steps with a gap over 2 s are not valid.",
    ),
    "exit": ("process-ended", "error", "A process of loadgen ended on its own; see its log in the run directory."),
    "fatal": ("daemon-fatal", "error", "A daemon gave up; read the mail log around it."),
    "panic": ("daemon-panic", "error", "A daemon found a fault in itself; read the mail log around it."),
    "error": ("daemon-error", "warning", "A daemon reported trouble; read its log around it."),
    "limit": (
        "process-limit-reached", "information",
        "Some service used all of its processes. Where that is the feed it is meant to be so.",
    ),
    "unavailable": (
        "readings-missing", "information",
        "Nothing was put in their place. Most need root, or the right path in the chain file.",
    ),
    "settings-unknown": (
        "settings-unknown", "information",
        "The report cannot show the chain's settings: give postfix.config_directory in the chain file.",
    ),
}  # fmt: skip
"""Kind of remark to id, severity and advice of the finding it makes."""

_CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _check_run,
    _check_accounting,
    _check_chain,
    _check_log,
    _check_steps,
    _check_environment,
)


def _is_off(row: StepRow) -> bool:
    known, measured, interval = row["known_delivered_per_s"], row["delivered_per_s"], row["delivered_per_s_interval"]
    if not known or measured is None:
        return False
    outside = interval is None or not interval[0] <= known <= interval[1]
    return outside and abs(measured / known - 1) > 0.05


def _finding(name: str, severity: str, evidence: str, advice: str) -> Finding:
    return Finding(id=name, severity=severity, evidence=evidence, advice=advice)


def _names(accounting: Accounting, fate: str) -> str:
    some = accounting["examples"].get(fate, [])
    return f" (such as {', '.join(some[:_TEXTS])})" if some else ""


def _times(texts: Sequence[str]) -> str:
    return "once" if len(texts) == 1 else f"{len(texts)} times"


def _quote(texts: Sequence[str]) -> str:
    """Return a few different texts, cut: they come from logs."""
    different = list(dict.fromkeys(text[:_TEXT_LENGTH] for text in texts))
    more = f" (and {len(different) - _TEXTS} other texts)" if len(different) > _TEXTS else ""
    return "; ".join(f'"{text}"' for text in different[:_TEXTS]) + more
