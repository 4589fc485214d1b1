"""One row per process count of a sweep: its repeats together, what it needs, and what limits it.

Pure but for the raw response times, which are taken from the run. Only valid
steps at the load of the sweep count; how many were left out is told.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from reports.attribution import Limits, attribute
from reports.gains import STOCK
from reports.sizing import Spread, measure_spread
from reports.steprow import Delays, StepRow
from reports.steps import take_percentiles
from reports.sweepsummary import Level, Repeat
from reports.tables import Floats, Run

__all__ = ["describe_levels", "level_rates", "level_spread"]


def level_rates(rows: Sequence[StepRow], variant: str = STOCK) -> dict[int, list[float]]:
    """Return level to the throughputs of its valid repeats, msg/s."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if _counts(row) and row["variant"] == variant and row["valid"] and row["delivered_per_s"] and row["level"]:
            found.setdefault(row["level"], []).append(row["delivered_per_s"])
    return dict(sorted(found.items()))


def level_spread(rows: Sequence[StepRow]) -> Spread:
    """Return the spread between repeats, pooled over all levels of all variants."""
    names = {row["variant"] for row in rows}
    return measure_spread([rates for name in sorted(names) for rates in level_rates(rows, name).values()])


def describe_levels(run: Run, rows: Sequence[StepRow], cpus: int | None) -> list[Level]:
    """Return the levels in ascending order, stock before the other variants."""
    spread = level_spread(rows)
    groups: dict[tuple[bool, str, int], list[StepRow]] = {}
    for row in rows:
        if _counts(row) and row["level"]:
            groups.setdefault((row["variant"] != STOCK, row["variant"], row["level"]), []).append(row)
    lightest: dict[str, StepRow] = {}
    for (_, name, _), group in sorted(groups.items()):
        valid = [row for row in group if row["valid"]]
        if valid:
            lightest.setdefault(name, valid[0])
    return [
        _describe(run, group, spread, lightest.get(name), cpus) for (_, name, _), group in sorted(groups.items())
    ]  # fmt: skip


def _describe(run: Run, group: Sequence[StepRow], spread: Spread, lightest: StepRow | None, cpus: int | None) -> Level:
    first = group[0]
    valid = [row for row in group if row["valid"] and row["delivered_per_s"]]
    rates = [row["delivered_per_s"] or 0.0 for row in valid]
    mean = float(np.mean(rates)) if rates else None
    half = spread.half_width(len(rates)) * mean if mean is not None else 0.0
    why = None
    if valid and lightest is not None:
        limits = Limits(first["feed_processes"], first["filter_servers"], None, cpus)
        middle = sorted(valid, key=lambda row: row["delivered_per_s"] or 0.0)[len(valid) // 2]
        why = attribute(middle, lightest, limits)
    busy = _mean([row["busy_processes"] for row in valid])
    return Level(
        processes=first["level"],
        filter_servers=first["filter_servers"],
        variant=first["variant"],
        delivered_per_s=mean,
        interval=[max(0.0, mean - half), mean + half] if mean is not None else None,
        saturated=True if valid else None,
        repeats=[
            Repeat(
                step=row["step"], visit=row["visit"], delivered_per_s=row["delivered_per_s"] or 0.0,
                interval=row["delivered_per_s_interval"],
            )
            for row in valid
        ],
        dropped=len(group) - len(valid),
        response_s=take_percentiles(_response_times(run, valid)),
        memory_bytes=_mean([row["memory_bytes"] for row in valid]),
        cpu_busy=_mean([row["host"]["cpu_busy"] for row in valid]),
        cpu_s_per_message=_mean([row["cost"]["chain_cpu_s_per_message"] for row in valid]),
        demand_s=busy / mean if busy is not None and mean else None,
        feed_delays=_mean_delays([row["feed_delays"] for row in valid]),
        timing_s=_mean_timing([row["timing_s"] for row in valid]),
        station=why.station if why else None,
        candidates=list(why.candidates) if why else [],
        why=list(why.sentences) if why else [],
    )  # fmt: skip


def _counts(row: StepRow) -> bool:
    """Return whether a step is a measurement of a level."""
    return row["purpose"] in ("level", "confirm") and row["load"] == "saturated"


def _response_times(run: Run, rows: Sequence[StepRow]) -> Floats:
    """Return the raw response times, seconds, of the messages started in the holds of *rows*."""
    started, completed = run.messages.started, run.arrivals.completed
    parts = []
    for row in rows:
        inside = (started >= (row["hold_began_at"] or 0.0)) & (started < (row["hold_ended_at"] or 0.0))
        parts.append((completed - started)[inside & ~np.isnan(completed)])
    return np.concatenate(parts) if parts else np.empty(0)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_delays(delays: Sequence[Delays | None]) -> Delays | None:
    known = [one for one in delays if one is not None]
    total = sum(one["messages"] for one in known)
    if not total:
        return None

    def mean(name: str) -> float:
        return sum(one[name] * one["messages"] for one in known) / total  # type: ignore[literal-required]

    return Delays(a_s=mean("a_s"), b_s=mean("b_s"), c_s=mean("c_s"), d_s=mean("d_s"), messages=total)


def _mean_timing(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for timing in timings for name in timing}
    return {name: float(np.mean([timing.get(name, 0.0) for timing in timings])) for name in sorted(names)}
