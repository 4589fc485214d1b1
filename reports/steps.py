"""Every number of every step, over its hold.

Joins the run's tables into one `StepRow` per step. What is counted where:
rates by the instant something happened within the hold, whichever step the
message belongs to; response times by the messages that were *started* in the
hold, whenever they arrived. Rates and slopes are worked out in `steady`, what
makes a step unusable in `validity`, the times at the stations in `stations`.
"""

from collections import Counter
from typing import Any

import numpy as np

from loadgen.records import BEFORE_FIRST_STEP
from reports.stations import LogJoin, StationTimes, read_station_times
from reports.steady import is_precise, measure_rate, measure_slope, time_mean
from reports.steprow import Little, Percentiles, QueueDepth, StepRow
from reports.tables import Floats, Hold, Run, message_key
from reports.usage import mean_gauge, read_cost, read_host
from reports.validity import Surroundings, find_reasons

__all__ = ["QUEUES", "check_little", "describe_steps", "is_overloaded", "take_percentiles"]

QUEUES = ("queue.maildrop", "queue.incoming", "queue.active", "queue.deferred")
"""The gauges that together are the queue depth; "hold" is mail an administrator put aside."""

_LATE_S = 0.01
_MEMORY_EARLIER_S = 2.0
_LEAST_BEYOND = 10
_OVERLOAD_RATIO = 0.01
_LEAST_GROWTH = 5.0
"""Messages: less growth than this over a hold is a wobble."""


def describe_steps(run: Run, join: LogJoin, first: int = 0) -> list[StepRow]:
    """Return one row per step of the run from *first* on, in its order."""
    times = read_station_times(run, join)
    left = _left_in_chain(run)
    instants = _telemetry_instants(run)
    return [_describe_step(run, row, times[row["step"]], left, instants) for row in run.steps if row["step"] >= first]


def take_percentiles(values: Floats) -> Percentiles:
    """Return percentiles of raw values; one with fewer than ten values beyond it would be a guess: None."""
    n = len(values)
    if n == 0:
        return Percentiles(mean=None, p50=None, p95=None, p99=None, max=None, messages=0)

    def quantile(share: float) -> float | None:
        enough = round(n * (1 - share), 6) >= _LEAST_BEYOND
        return float(np.quantile(values, share)) if enough else None

    return Percentiles(
        mean=float(values.mean()),
        p50=quantile(0.5),
        p95=quantile(0.95),
        p99=quantile(0.99),
        max=float(values.max()),
        messages=n,
    )


def check_little(entered: Floats, left: Floats, start_s: float, end_s: float, concurrency: int | None) -> Little | None:
    """Return Little's law for messages that *entered* and *left* the chain, over a window.

    A message that never left (infinite) counts as present; it has no response
    time, so a record that misses arrivals fails the check. *concurrency* is N
    where the system is closed, else None.
    """
    length = end_s - start_s
    if length <= 0 or not len(entered):
        return None
    present = np.clip(np.minimum(left, end_s) - np.maximum(entered, start_s), 0, None).sum() / length
    done = (left >= start_s) & (left < end_s)
    if present <= 0 or not done.any():
        return None
    product = float((left[done] - entered[done]).sum() / length)
    return Little(
        in_chain=float(present),
        x_times_r=product,
        error_ratio=abs(float(present) - product) / float(present),
        closed_error_ratio=None if concurrency is None else abs(concurrency - product) / concurrency,
    )


def is_overloaded(growth_per_s: float, lowest_per_s: float, throughput_per_s: float, hold_s: float) -> bool:
    """Return whether a queue grew all through a hold: by over 1 % of the throughput, and beyond its noise.

    *lowest_per_s* is the lower end of the interval of the growth.
    """
    return (
        growth_per_s > _OVERLOAD_RATIO * throughput_per_s
        and lowest_per_s > 0
        and growth_per_s * hold_s >= _LEAST_GROWTH
    )


def _describe_step(run: Run, plan: dict[str, Any], times: StationTimes, left: Floats, telemetry: Floats) -> StepRow:
    step, messages, chain = plan["step"], run.messages, run.meta.get("chain") or {}
    pacing = ((run.meta.get("profile") or {}).get("pacing") or {}).get("kind", "delivered")
    hold = run.hold(step)
    setting, precision = run.settings.get(step), run.precision(step)
    entry = run.entries.get(step, "front")
    feed = setting.feed_processes if setting else chain.get("feed_processes") or chain.get("processes")
    if entry in ("inside", "filter", "reinjection"):  # past it
        feed = None
    servers = setting.filter_servers if setting else chain.get("filter_servers") or chain.get("processes")
    start, end = (hold.began_at, hold.ended_at) if hold is not None else (0.0, 0.0)
    length = end - start
    rate = measure_rate(run.arrivals.instants, start, end)

    due = messages.intended if pacing == "rate" else messages.started
    mine = (due >= start) & (due < end)
    started = (messages.started >= start) & (messages.started < end)
    answered = (messages.ended >= start) & (messages.ended < end)
    accepted = messages.outcome == "accepted"
    begun = due if pacing == "rate" else messages.started
    response = (run.arrivals.completed - begun)[mine & ~np.isnan(messages.started)]
    # of this step only: what an earlier one lost is that one's fault
    own = (messages.step == step) & ~np.isnan(messages.started)
    in_hold = Counter(messages.outcome[answered & ~np.isnan(messages.started)].tolist())

    busy = mean_gauge(run, "amavis.busy", hold)
    feed_limit = _feed_limit(chain, feed, swept=setting is not None)
    depth, overloaded = _queue_depth(run, hold, rate.per_s, left)
    row = StepRow(
        step=step,
        entry=entry,
        level=plan["processes"],
        variant=str(plan["variant"] or "stock"),
        visit=setting.visit if setting else None,
        purpose=setting.purpose if setting else "",
        load=setting.load if setting else "",
        feed_processes=feed,
        filter_servers=servers,
        trimmed_s=hold.trimmed_s if hold else 0.0,
        precise=is_precise(rate, precision) if precision is not None else None,
        concurrency=plan["concurrency"],
        rate_per_s=plan["rate_per_s"],
        hold_began_at=start if hold else None,
        hold_ended_at=end if hold else None,
        hold_s=length if hold else None,
        offered_per_s=float(mine.sum()) / length if length > 0 else None,
        accepted_per_s=float((answered & accepted).sum()) / length if length > 0 else None,
        delivered_per_s=rate.per_s if length > 0 else None,
        delivered_per_s_interval=list(rate.interval) if rate.interval else None,
        known_delivered_per_s=_known(chain, plan, feed, servers) if pacing == "delivered" else None,
        deliveries=rate.events,
        batches=rate.batches,
        lag1=rate.lag1,
        halves_change=rate.halves_change,
        sessions_open=_sessions_open(run, step, hold),
        started=int(started.sum()),
        undelivered=int((mine & accepted & np.isnan(run.arrivals.completed)).sum()),
        response_s=take_percentiles(response[~np.isnan(response)]),
        accept_s=take_percentiles(messages.accept_s[started & accepted & ~np.isnan(messages.ended)]),
        queue_depth=depth,
        accept_queue=mean_gauge(run, "filter.accept_queue", hold),
        children=mean_gauge(run, "amavis.children", hold),
        busy_processes=busy,
        held_processes=mean_gauge(run, "amavis.held", hold),
        free_processes=mean_gauge(run, "amavis.free", hold),
        memory_bytes=_memory(run, hold),
        utilisation=busy / servers if busy is not None and servers else None,
        feed_utilisation=_feed_utilisation(run, hold, times, rate.per_s, feed_limit),
        feed_delays=times.feed,
        delivery_delays=times.delivery,
        timing_s=times.timing_s,
        smtp_data_median_s=times.smtp_data_median_s,
        little=check_little(
            messages.started[own],
            left[own],
            start,
            end,
            plan["concurrency"] if pacing == "delivered" else None,
        ),
        cost=read_cost(run, hold, rate.events),
        host=read_host(run, hold),
        refused=in_hold["refused"],
        unknown=in_hold["unknown"],
        not_sent=in_hold["not_sent"],
        duplicates=int(((run.arrivals.extra >= start) & (run.arrivals.extra < end)).sum()),
        late=int((mine & (messages.started - messages.intended > _LATE_S)).sum()) if pacing == "rate" else 0,
        dropped=int((mine & (messages.outcome == "dropped")).sum()),
        drain_s=_drain_s(run, step),
        overloaded=overloaded,
        valid=True,
        reasons=[],
    )
    if entry == "pickup":  # sendmail and postdrop come and go too fast to be told apart from what is not ours
        row["cost"]["others_cores"] = None
    row["reasons"] = find_reasons(row, _surroundings(run, plan, hold, rate.steady, pacing, telemetry))
    row["valid"] = not row["reasons"]
    return row


def _surroundings(
    run: Run, plan: dict[str, Any], hold: Hold | None, steady: bool, pacing: str, telemetry: Floats
) -> Surroundings:
    step, chain, profile = plan["step"], run.meta.get("chain") or {}, run.meta.get("profile") or {}
    entry = run.entries.get(step, "front")
    span = run.span(step) or (0.0, 0.0)
    setting = run.settings.get(step)
    inside = [(kind, text) for at, _, kind, text in run.remarks if span[0] <= at <= span[1]]
    failed = [
        error
        for of, opened, ended, error in run.sessions
        if of == step and error and hold and opened < hold.ended_at and ended >= hold.began_at
    ]
    drained: bool | None = None
    if "end" in run.phases.get(step, {}):
        drained = not any(kind == "not-drained" for kind, _ in inside)
        left = "SELECT 1 FROM queued WHERE step = ? AND queue_id NOT IN (SELECT queue_id FROM queued WHERE step = ?)"
        drained = drained and not run.reader.query(f"{left} LIMIT 1", (step, BEFORE_FIRST_STEP))
    gap: float | None = None
    if hold is not None:
        read = telemetry[(telemetry >= hold.began_at) & (telemetry < hold.ended_at)]
        if len(read):
            gap = float(np.diff(np.concatenate([[hold.began_at], read, [hold.ended_at]])).max())
    return Surroundings(
        pacing=pacing,
        hold_whole=hold is not None and hold.whole,
        planned_hold_s=plan["hold_s"] or 0.0,
        steady=steady,
        settled=hold is None or hold.settled,
        remarks=Counter(kind for kind, _ in inside),
        filter_servers=setting.filter_servers if setting else chain.get("filter_servers"),
        swept_load=setting.load if setting else "",
        cpus=(run.meta.get("host") or {}).get("cpus"),
        has_host_to_itself=chain.get("kind") == "lab",
        failed_sessions=len(failed),
        sessions_kept=not (profile.get("session") or {}).get("messages_per_session") and entry != "filter",
        drained=drained,
        largest_gap_s=gap,
    )


def _left_in_chain(run: Run) -> Floats:
    """Return when each message left the chain: at its arrival, when blocked, or never (infinite)."""
    messages = run.messages
    left = np.where(np.isnan(run.arrivals.completed), np.inf, run.arrivals.completed)
    never_in = np.isin(messages.outcome, ("refused", "not_sent", "dropped")) & np.isinf(left)
    left[never_in] = messages.ended[never_in]
    left[np.isnan(left)] = np.inf
    blocked = {
        message_key(row[6]): row[0]
        for row in run.reader.rows("scan", "WHERE verdict = 'Blocked' AND message_id IS NOT NULL")
    }
    if blocked:
        for index, key in enumerate(messages.id):
            if np.isinf(left[index]) and key in blocked:
                left[index] = blocked[key]
    return left


def _queue_depth(run: Run, hold: Hold | None, throughput: float, left: Floats) -> tuple[QueueDepth, bool]:
    """Return the depth of the queues, and whether they grew all through the hold.

    Where no queue can be looked at, growth is that of the messages in the chain.
    """
    at, depth = run.sample_sum(QUEUES)
    empty = QueueDepth(mean=None, max=None, growth_per_s=None, before_filter=None, after_filter=None)
    if hold is None or hold.ended_at <= hold.began_at:
        return empty, False
    inside = depth[(at >= hold.began_at) & (at < hold.ended_at)]
    if not len(inside):
        grid = np.linspace(hold.began_at, hold.ended_at, 41)[:-1]
        entered = np.sort(run.messages.started[~np.isnan(run.messages.started)])
        gone = np.sort(left)
        at, depth = grid, (np.searchsorted(entered, grid) - np.searchsorted(gone, grid)).astype(float)
    slope = measure_slope(at, depth, hold.began_at, hold.ended_at)
    overloaded = slope is not None and is_overloaded(
        slope.per_s, slope.interval[0], throughput, hold.ended_at - hold.began_at
    )
    return (
        QueueDepth(
            mean=time_mean(at, depth, hold.began_at, hold.ended_at) if len(inside) else None,
            max=float(inside.max()) if len(inside) else None,
            growth_per_s=slope.per_s if slope is not None else None,
            before_filter=mean_gauge(run, "queue.pass1", hold),
            after_filter=mean_gauge(run, "queue.pass2", hold),
        ),
        overloaded,
    )


def _feed_limit(chain: dict[str, Any], feed: int | None, *, swept: bool) -> int | None:
    """Return how many deliveries the feed can have at a time; a sweep sees to it that its processes decide."""
    if swept:
        return feed
    limits = [n for n in (feed, chain.get("destination_concurrency_limit")) if n]
    return min(limits, default=None)


def _memory(run: Run, hold: Hold | None) -> float | None:
    """Return the memory of the filter; a reading at the end of the warm-up will do where a short hold has none."""
    if hold is None:
        return None
    at, value = run.sample("amavis.pss_bytes")
    inside = (at >= hold.began_at - _MEMORY_EARLIER_S) & (at < hold.ended_at)
    return float(value[inside].mean()) if inside.any() else None


def _feed_utilisation(
    run: Run, hold: Hold | None, times: StationTimes, throughput: float, limit: int | None
) -> float | None:
    """Return busy feed processes over their limit: X (c + d) where the log tells c and d, else their connections."""
    if not limit or hold is None:
        return None
    if times.feed is not None:
        return throughput * (times.feed["c_s"] + times.feed["d_s"]) / limit
    sessions = mean_gauge(run, "feed.sessions", hold)
    return sessions / limit if sessions is not None else None


def _sessions_open(run: Run, step: int, hold: Hold | None) -> float | None:
    """Return the mean number of open sessions; sessions without a row of their own count by their messages."""
    if hold is None or hold.ended_at <= hold.began_at:
        return None
    total = sum(
        max(0.0, min(ended, hold.ended_at) - max(opened, hold.began_at))
        for of, opened, ended, _ in run.sessions
        if of == step
    )
    if total <= 0:  # their rows are written when they end, which a killed run never saw
        mine = run.messages.session[(run.messages.step == step) & (run.messages.started < hold.ended_at)]
        return float(len(np.unique(mine[~np.isnan(mine)]))) or None
    return total / (hold.ended_at - hold.began_at)


def _telemetry_instants(run: Run) -> Floats:
    """Return when any gauge was read, those aside that the generator reads of itself."""
    found = run.reader.query("SELECT DISTINCT at FROM sample WHERE name != 'own.generator_lag_s' ORDER BY at")
    return np.array([at for (at,) in found])


def _drain_s(run: Run, step: int) -> float | None:
    began = run.phases.get(step, {})
    return began["end"] - began["drain"] if "end" in began and "drain" in began else None


def _known(chain: dict[str, Any], plan: dict[str, Any], feed: int | None, servers: int | None) -> float | None:
    """Return what the law of a reference chain says: for as many messages in service as sessions and processes allow."""
    if plan["variant"] not in (None, "stock"):  # an option may have an effect there
        return None
    known = chain.get("known_delivered_per_s") or {}
    served = min(n for n in (plan["concurrency"], feed, servers) if n)
    value = known.get(str(served), known.get(served))
    return float(value) if value is not None else None
