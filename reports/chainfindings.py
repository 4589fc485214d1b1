"""Findings about the chain itself: how its two sides are set, how they behave, and what happened to it."""

from collections.abc import Callable, Iterator

from reports.case import Case, make_finding, quote, times
from reports.stages import FED
from reports.steprow import StepRow, name_step
from reports.summary import Finding

__all__ = ["CHAIN_CHECKS"]

_STOCK = ("stock", "present")
"""What is out of step under any other variant is so on purpose."""
_LEAST_SLOW_REPLIES = 5
_SLOW_SHARE = 0.02


def _check_sides(case: Case) -> Iterator[Finding]:
    limits = case.limits
    found = {
        (row["feed_processes"], row["filter_servers"]) for row in case.rows if row["variant"] in _STOCK
    } or {(limits.feed_processes, limits.filter_servers)}  # fmt: skip
    for feed, servers in sorted(found, key=str):
        if feed is None or servers is None:
            continue
        if feed > servers:
            yield make_finding(
                "feed-exceeds-servers", "warning",
                f"The feed may open {feed} connections and the filter has {servers} processes: the rest waits unseen in the "
                "accept queue, up to 300 s.",
                f"Set maxproc of the feed to {servers}, or $max_servers to {feed}.",
            )  # fmt: skip
        if servers > feed:
            yield make_finding(
                "servers-exceed-feed", "information",
                f"The filter has {servers} processes and the feed can keep {feed} of them at work: {servers - feed} cost "
                "memory, and serve at most while idle sessions hold others.",
                f"Set $max_servers to {feed}, or maxproc of the feed to {servers}, unless they are spare on purpose.",
            )  # fmt: skip
    if any(row["visit"] is not None for row in case.rows):
        return  # a sweep sees to it that the other limits are out of the way
    servers, destination, back = (
        limits.filter_servers,
        limits.destination_concurrency_limit,
        limits.reinjection_processes,
    )
    if destination is not None and servers is not None and servers > destination:
        yield make_finding(
            "destination-limit-caps", "warning",
            f"The destination concurrency limit of the feed is {destination}, the filter has {servers} processes: at most "
            f"{destination} can ever work.",
            f"Set amavisfeed_destination_concurrency_limit (and initial_destination_concurrency) to {servers}.",
        )  # fmt: skip
    if back is not None and servers is not None and back < servers:
        yield make_finding(
            "reinjection-limit-low", "warning",
            f"The service that takes mail back may have {back} processes, the filter has {servers}: when all have scanned, "
            f"{servers - back} wait to hand over.",
            f"Set the process limit of the reinjection service in master.cf to at least {servers}, or to -.",
        )  # fmt: skip


def _check_behaviour(case: Case) -> Iterator[Finding]:
    stalls = [row for row in case.rows if row["entry"] in FED and 0.038 <= (row["smtp_data_median_s"] or 0.0) <= 0.050]
    if stalls:
        worst = max(stalls, key=lambda row: row["smtp_data_median_s"] or 0.0)
        yield make_finding(
            "pipelining-stall", "warning",
            f"The filter waits {(worst['smtp_data_median_s'] or 0) * 1000:.0f} ms for the data of a message (median of the TIMING section "
            f"\"SMTP DATA\", {name_step(worst)}): Nagle's algorithm and delayed acknowledgements wait for each other.",
            "Discard PIPELINING on the feed (lmtp_discard_lhlo_keywords or smtp_discard_ehlo_keywords = pipelining) and "
            "measure again.",
        )  # fmt: skip
    held = [
        row for row in case.rows
        if (row["held_processes"] or 0.0) >= 0.5 and row["feed_delays"] is not None and row["feed_delays"]["c_s"] >= 0.01
        and (row["utilisation"] is None or row["utilisation"] < 0.9)
    ]  # fmt: skip
    if held:
        worst = max(held, key=lambda row: row["held_processes"] or 0.0)
        wait = worst["feed_delays"]["c_s"] if worst["feed_delays"] else 0.0
        yield make_finding(
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
        yield make_finding(
            "children-missing", "warning",
            f"At {name_step(worst)} the filter had {worst['children']:.1f} of its {worst['filter_servers']} processes on average.",
            "A process retires after $max_requests messages. Its parent replaces it at once, or, when the signal comes "
            "between two of its looks, only after 10 s (Net::Server's PreForkSimple). With few processes that is a hole: "
            "raise $max_requests or $max_servers, and hold a step for longer than several such holes.",
        )  # fmt: skip
    if case.verdict["retrograde"]:
        yield make_finding(
            "retrograde", "warning",
            "More load, or more processes, made the chain slower by more than the noise explains.",
            "Past the best count processes wait for each other: do not go beyond what is recommended.",
        )  # fmt: skip
    replies = case.slow_replies
    if replies is not None and _is_flow_delay(replies.at_whole_seconds, replies.beside, replies.messages):
        yield make_finding(
            "in-flow-delay", "warning",
            f"{replies.at_whole_seconds} of {replies.messages} messages were answered just after whole seconds ({replies.beside} at "
            "other times near them): Postfix's in_flow_delay holds the sender back because its queue manager does not keep up.",
            "Accepting is then not limited by the front. Find what keeps the queue manager (the active queue full, a slow "
            "disk); in_flow_delay = 0 on cleanup takes the brake away, in a test only.",
        )  # fmt: skip
    if case.network_tests:
        yield make_finding(
            "network-tests-on", "warning",
            "SpamAssassin asks the network about every message: what was measured depends on resolvers and lists of others.",
            "Set $sa_local_tests_only = 1, or point it at a resolver of yours with a known delay, and say which in the report.",
        )  # fmt: skip
    slow = [row for row in case.rows if _delivery_s(row) >= 0.1]
    if slow and not any((row["cost"]["sink_cores"] or 0.0) >= 0.5 for row in case.rows):
        worst = max(slow, key=_delivery_s)
        yield make_finding(
            "sink-slow", "warning",
            f"The end of the chain took {_delivery_s(worst) * 1000:.0f} ms to take a message at {name_step(worst)} (c and d after reinjection).",
            "A slow end holds up the whole chain: look at the network to it, and at the host it is on.",
        )  # fmt: skip


def _check_incidents(case: Case) -> Iterator[Finding]:
    if texts := case.remarks.get("dead-destination"):
        yield make_finding(
            "dead-destination", "error", f"Postfix held the filter for dead ({times(texts)}): {quote(texts)}",
            "It then waits for minimal_backoff_time (300 s). Find out why the filter did not answer; 'postfix flush' ends "
            "the wait.",
        )  # fmt: skip
    undrained = case.remarks.get("not-drained", ())
    if undrained or case.accounting["queued"]:
        yield make_finding(
            "queue-not-drained", "error",
            f"{case.accounting['queued']} messages were left in the queue at the end"
            + (f": {quote(undrained)}" if undrained else "."),
            "Look at the queue (postqueue -p) and at the reasons in the mail log; give timing.drain more time if it was "
            "only slow.",
        )  # fmt: skip
    for source, name, what in (
        ("amavisd", "amavisd-restarted", "amavisd"), ("postfix", "postfix-restarted", "Postfix"),
    ):  # fmt: skip
        if texts := case.remarks.get(f"{source}:restart"):
            yield make_finding(
                name, "error", f"{what} was restarted during the run ({times(texts)}): {quote(texts)}",
                "A filter that is away for a moment is held for dead for 300 s. Reload instead of restarting, and never with "
                "mail queued; 'postfix flush' ends the wait.",
            )  # fmt: skip


def _delivery_s(row: StepRow) -> float:
    """Return what the end of the chain took for a message, its greeting included, seconds."""
    delays = row["delivery_delays"]
    return delays["c_s"] + delays["d_s"] if delays else 0.0


def _is_flow_delay(at_whole_seconds: int, beside: int, messages: int) -> bool:
    """Return whether replies cluster at whole seconds: a few, a share of all, and far more than beside them."""
    return (
        at_whole_seconds >= _LEAST_SLOW_REPLIES
        and at_whole_seconds >= _SLOW_SHARE * messages
        and at_whole_seconds >= 3 * beside
    )


CHAIN_CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (_check_sides, _check_behaviour, _check_incidents)
"""Every check of this file."""
