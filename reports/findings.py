"""Doubts about the measurement and known defects of the chain, looked for by name.

Pure: what is known of a run in, findings out, the gravest first. Each has an
id, the evidence in numbers, and what to do. To add one: a function
that takes the `Case` and yields, and its name in `_CHECKS`.
"""

import math
from collections.abc import Callable, Iterator

from reports.case import Case, make_finding, names, quote, times
from reports.chainfindings import CHAIN_CHECKS
from reports.steprow import StepRow, name_step
from reports.summary import Finding

__all__ = ["Case", "find_findings"]

_MEMORY_PRESSURE = 0.1
_LEAST_MEMORY_SHARE = 0.03
_SEVERITIES = ("error", "warning", "information")


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
        yield make_finding(
            "run-interrupted", "error",
            f"The run did not end as planned: {reason}. {measured} of {case.planned_steps} steps were measured.",
            "What is here is right as far as it goes, and may miss the part that matters. Run it again.",
        )  # fmt: skip


def _check_accounting(case: Case) -> Iterator[Finding]:
    a = case.accounting
    if a["lost"]:
        yield make_finding(
            "messages-lost", "error",
            f"{a['lost']} of {a['messages']} messages were answered 250 and found nowhere afterwards{names(a, 'lost')}.",
            "Look for these ids in the mail log and in quarantine. Until they are found no number of this run is safe.",
        )  # fmt: skip
    if a["unknown"]:
        yield make_finding(
            "messages-unknown", "error",
            f"The fate of {a['unknown']} of {a['messages']} messages is not known{names(a, 'unknown')}: the connection "
            "broke after the final dot, or the record ends too early.",
            "Look for these ids in the mail log. If the run was cut off, run it again.",
        )  # fmt: skip
    if a["duplicates"]:
        yield make_finding(
            "duplicates", "warning",
            f"{a['duplicates']} copies arrived that nobody sent.",
            "A hop timed out after the final dot and sent again: the feed's data_done timeout must be longer than the "
            "longest scan.",
        )  # fmt: skip
    if a["blocked"]:
        yield make_finding(
            "messages-blocked", "warning",
            f"The filter blocked {a['blocked']} of {a['messages']} messages{names(a, 'blocked')}. They cost it work and "
            "count as no delivery.",
            "Read the category in amavisd's log. Test mail should pass: check banned names, bad headers and the spam "
            "kill level.",
        )  # fmt: skip
    if a["bounced"]:
        yield make_finding(
            "messages-bounced", "warning",
            f"{a['bounced']} messages were returned to their sender{names(a, 'bounced')}.",
            "Read the status in the mail log; test mail should be delivered.",
        )  # fmt: skip
    if a["refused"] or a["not_sent"]:
        yield make_finding(
            "messages-refused", "warning",
            f"The front refused {a['refused']} messages and {a['not_sent']} could not be sent.",
            "The replies are listed under the accounting. Postfix's own limits for clients are the usual cause.",
        )  # fmt: skip
    if a["locust_agrees"] is False:
        yield make_finding(
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
            parts.append(f"log lines were dropped: {quote(texts)}")
        if missing > 0:
            parts.append(f"{missing} of {a['delivered']} delivered messages are not in the mail log as read")
        yield make_finding(
            "log-incomplete", "warning", f"{'; '.join(parts)}.",
            "Delays and verdicts miss these. Let Postfix write its own file (maillog_file), or raise the rate limits of "
            "journald or rsyslog.",
        )  # fmt: skip
    if case.has_filter_log and any(row["timing_s"] for row in case.rows):
        steps = [row for row in case.rows if row["timing_s"]]
        if not any("SA check" in row["timing_s"] for row in steps):
            yield make_finding(
                "nothing-scanned", "warning",
                "No message spent time in SpamAssassin: no TIMING line has a section \"SA check\".",
                "The filter did less than it will do with real mail. Check @bypass_spam_checks_maps and "
                "$sa_mail_body_size_limit.",
            )  # fmt: skip


def _check_steps(case: Case) -> Iterator[Finding]:
    unsteady = [row for row in case.rows if any(r.startswith("not steady") for r in row["reasons"])]
    if unsteady:
        numbers = ", ".join(f"{name_step(row)} ({row['halves_change']:+.0%})" for row in unsteady)
        yield make_finding(
            "not-steady", "warning", f"Throughput still changed during the hold: {numbers}.",
            "Lengthen timing.warm_up and the hold. If it never settles, something in the chain drifts.",
        )  # fmt: skip
    slow = [row for row in case.rows if (row["cost"]["generator_cores"] or 0.0) >= 0.9]
    if slow:
        yield make_finding(
            "generator-saturated", "error",
            f"The generator used a whole core at {', '.join(name_step(row) for row in slow)}.",
            "The load was not what it should be. Use a second machine, or Locust's workers.",
        )  # fmt: skip
    lag = max((row["cost"]["generator_lag_s"] or 0.0 for row in case.rows), default=0.0)
    if lag > 0.1 and not slow:
        yield make_finding(
            "generator-late", "information", f"The generator's event loop ran up to {lag * 1000:.0f} ms late.",
            "Instants of sending may be off by as much. It shares the CPU with the chain: see the tool's own cost.",
        )  # fmt: skip
    sink = [row for row in case.rows if (row["cost"]["sink_cores"] or 0.0) >= 0.5]
    if sink:
        most = max(row["cost"]["sink_cores"] or 0.0 for row in sink)
        yield make_finding(
            "sink-slow", "error" if most >= 0.9 else "warning",
            f"The sink used {most:.2f} cores.",
            "A slow end holds up the whole chain. Above 0.9 cores it limits: put it on another machine.",
        )  # fmt: skip
    stolen = [row for row in case.rows if (row["host"]["cpu_steal"] or 0.0) > 0.02 * (case.limits.cpus or 1)]
    if stolen:
        most = max(row["host"]["cpu_steal"] or 0.0 for row in stolen)
        yield make_finding(
            "steal", "warning", f"The hypervisor took {most:.2f} cores away during a hold.",
            "Another guest competes for this host: numbers of different moments cannot be compared.",
        )  # fmt: skip
    disturbed = [row for row in case.rows if (row["cost"]["others_cores"] or 0.0) > 0.1 * (case.limits.cpus or 1)]
    if disturbed:
        worst = max(disturbed, key=lambda row: row["cost"]["others_cores"] or 0.0)
        yield make_finding(
            "host-busy", "warning",
            f"At {name_step(worst)} something that is neither the chain nor loadgen used {worst['cost']['others_cores']:.1f} "
            f"cores of this host ({len(disturbed)} of {len(case.rows)} steps were disturbed).",
            "Find it (top), and measure again without it: the chain had less than the host can give.",
        )  # fmt: skip
    yield from _check_memory_and_disk(case)
    known = [row for row in case.rows if row["valid"] and _is_off(row)]
    if known:
        numbers = ", ".join(
            f"{name_step(row)}: {row['delivered_per_s']:.1f} instead of {row['known_delivered_per_s']:.1f}" for row in known
        )  # fmt: skip
        yield make_finding(
            "reference-missed", "warning",
            f"The known capacity of the reference chain was missed by more than 5 %: {numbers} msg/s.",
            "This machine was too busy to measure, or one message's service is short against the stand-in's own handling "
            "(1 to 2 ms). If it was busy, do not trust it with a real chain either.",
        )  # fmt: skip


def _check_memory_and_disk(case: Case) -> Iterator[Finding]:
    tight = [
        row for row in case.rows
        if (row["host"]["psi_memory_some"] or 0.0) >= _MEMORY_PRESSURE
        or (row["host"]["memory_available_bytes"] or math.inf) < _LEAST_MEMORY_SHARE * (case.memory_bytes or 0)
    ]  # fmt: skip
    bounds = case.remarks.get("memory-bound", ())
    if tight or bounds:
        parts = [quote(bounds)] if bounds else []
        if tight:
            worst = max(tight, key=lambda row: row["host"]["psi_memory_some"] or 0.0)
            parts.append(
                f"at {name_step(worst)} something waited for memory {worst['host']['psi_memory_some'] or 0:.0%} of the time, "
                f"{(worst['host']['memory_available_bytes'] or 0) / 1e6:.0f} MB were left"
            )
        yield make_finding(
            "memory-bound", "warning", f"{'; '.join(parts)}.",
            "More filter processes than memory allows make the host swap, and everything stop. Add memory, or stay below.",
        )  # fmt: skip
    cpus = case.limits.cpus or 1
    full = [
        row for row in case.rows
        if ((row["host"]["psi_io_full"] or 0.0) >= 0.2 or (row["host"]["disk_busy"] or 0.0) >= 0.9)
        and (row["host"]["cpu_busy"] or 0.0) < 0.9 * cpus
    ]  # fmt: skip
    if full:
        worst = max(full, key=lambda row: row["host"]["disk_busy"] or 0.0)
        yield make_finding(
            "disk-bound", "warning",
            f"At {name_step(worst)} the disk of the queue was busy {worst['host']['disk_busy'] or 0:.0%} of the time, and everything "
            f"waited for it {worst['host']['psi_io_full'] or 0:.0%}, while the CPU had room.",
            "Postfix syncs every message to the disk twice. A faster disk, or a battery-backed cache, raises the limit; more "
            "processes do not.",
        )  # fmt: skip


def _check_environment(case: Case) -> Iterator[Finding]:
    share = case.cost["own_share"]
    if share is not None and share > 0.05 and not case.is_reference:
        yield make_finding(
            "own-cost", "warning" if share > 0.2 else "information",
            f"loadgen used {case.cost['own_cores']:.2f} cores on this host, {share:.0%} of what the chain used.",
            "A chain that has the host to itself carries somewhat more. Send from another machine to be exact.",
        )  # fmt: skip
    for kind, (name, severity, advice) in _REMARKS.items():
        if texts := case.remarks.get(kind):
            yield make_finding(name, severity, f"{times(texts).capitalize()}: {quote(texts)}", advice)


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
    "not-tuned": (
        "settings-left-alone", "information",
        "One process count says nothing of the others. Run it with --apply (as root), or measure a lab.",
    ),
    "setting-failed": (
        "setting-failed", "error", "The sweep ended there. Look at what the daemons logged, and continue the run.",
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
    *CHAIN_CHECKS,
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
