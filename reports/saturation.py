"""The verdict of a run at one process count: does it saturate, from where, at what throughput, and where.

Pure: rows and facts in, a `Verdict` out. Only valid steps count. In a closed
system (pacing "delivered") the plateau of the curve is the answer; with an
open or an unheeding load (pacing "rate", "accepted") it is what comes out
while the queue grows. Nothing beyond the tested range is ever a number.
"""

from collections.abc import Sequence

from reports.attribution import Attribution, Limits, attribute
from reports.plateau import Plateau, Point, find_plateau, mean_rate
from reports.steprow import StepRow
from reports.summary import Verdict

__all__ = ["judge"]


def judge(rows: Sequence[StepRow], pacing: str, limits: Limits) -> Verdict:
    """Return the verdict over the steps of one process count."""
    valid = [row for row in rows if row["valid"] and row["delivered_per_s"]]
    if not valid:
        return _no_verdict("No verdict: no step is valid.", "The reasons are in the table of steps.", tested_to=None)
    lightest = min(valid, key=lambda row: (row["concurrency"], row["rate_per_s"] or 0.0))
    if pacing == "delivered":
        return _judge_closed(valid, lightest, limits)
    return _judge_open(valid, lightest, pacing, limits)


def _judge_closed(valid: Sequence[StepRow], lightest: StepRow, limits: Limits) -> Verdict:
    points = [_point(row) for row in valid]
    tested_to = max(row["concurrency"] for row in valid)
    if len({row["concurrency"] for row in valid}) < 2:
        row = valid[0]
        verdict = _no_verdict(
            f"{row['delivered_per_s'] or 0:.1f} msg/s delivered at N = {row['concurrency']}; one concurrency shows no saturation.",
            "Add steps with more and with fewer sessions to see whether throughput still follows the load.",
            tested_to,
        )
        verdict["beyond_per_s"] = row["delivered_per_s"]
        return verdict
    plateau = find_plateau(points)
    if plateau is None:
        return _not_saturated(valid, tested_to)
    shown = max(
        (row for row in valid if row["step"] in plateau.steps),
        key=lambda row: row["concurrency"],
    )
    why = attribute(shown, lightest, limits)
    crossing = _crossing(plateau, lightest)
    sentences = [
        (
            f"From N = {plateau.concurrency} on, more sessions bring no more mail: the next ones tested, up to N = {tested_to}, "
            f"stay at {plateau.per_s:.1f} msg/s (95 % interval {plateau.interval[0]:.1f} to {plateau.interval[1]:.1f}) "
            f"and only wait longer."
        )
    ]
    if plateau.fall is not None:
        sentences[0] = (
            f"Throughput is best around N = {plateau.concurrency} with {plateau.per_s:.1f} msg/s "
            f"(95 % interval {plateau.interval[0]:.1f} to {plateau.interval[1]:.1f})."
        )
        sentences.append(
            f"More sessions make it slower: at N = {tested_to} it is {plateau.fall:.0%} less, more than the noise explains."
        )
    if crossing is not None:
        sentences.append(
            f"The line of messages that never wait crosses the plateau at N = {crossing:.1f}"
            + (", between the tested steps." if crossing < 0.9 * plateau.concurrency else ".")
        )
    return Verdict(
        saturated=True,
        headline=f"Saturated from N = {plateau.concurrency}: {plateau.per_s:.1f} msg/s delivered",
        sentences=[*sentences, *why.sentences],
        concurrency=plateau.concurrency,
        crossing_concurrency=crossing,
        delivered_per_s=plateau.per_s,
        delivered_per_s_interval=list(plateau.interval),
        beyond_per_s=None,
        kept_up_per_s=None,
        tested_to=tested_to,
        retrograde=plateau.fall is not None,
        plateau_steps=list(plateau.steps),
        station=why.station,
        candidates=list(why.candidates),
        evidence=why.evidence,
    )


def _not_saturated(valid: Sequence[StepRow], tested_to: int) -> Verdict:
    best = max(valid, key=lambda row: row["delivered_per_s"] or 0.0)
    per_s = best["delivered_per_s"] or 0.0
    verdict = _no_verdict(
        f"Not saturated up to N = {tested_to}: more than {_floor(best):.1f} msg/s",
        f"Throughput still follows the load at the largest tested concurrency ({per_s:.1f} msg/s at N = {best['concurrency']}). "
        "What the chain carries is more than that; how much more was not measured. Add steps with more sessions, "
        "twice the largest at least.",
        tested_to,
    )
    verdict["saturated"] = False
    verdict["beyond_per_s"] = per_s
    return verdict


def _judge_open(valid: Sequence[StepRow], lightest: StepRow, pacing: str, limits: Limits) -> Verdict:
    over = [row for row in valid if row["overloaded"]]
    tested_to = max(row["concurrency"] for row in valid)
    kept = [row for row in valid if not row["overloaded"]]
    highest = max(kept, key=lambda row: row["delivered_per_s"] or 0.0, default=None)
    if not over:
        assert highest is not None  # noqa: S101 (valid is not empty)
        verdict = _no_verdict(
            f"Not saturated: the chain kept up with {highest['delivered_per_s'] or 0:.1f} msg/s",
            "No queue grew. What the chain carries is more than that; offer more to find the limit.",
            tested_to,
        )
        verdict["saturated"] = False
        verdict["beyond_per_s"] = highest["delivered_per_s"]
        verdict["kept_up_per_s"] = highest["offered_per_s"]
        return verdict
    mean, interval = mean_rate([_point(row) for row in over])
    first = min(over, key=lambda row: row["offered_per_s"] or 0.0)
    why: Attribution = attribute(max(over, key=lambda row: row["delivered_per_s"] or 0.0), lightest, limits)
    sentences = [
        (
            f"With {first['offered_per_s'] or 0:.1f} msg/s offered the front accepted {first['accepted_per_s'] or 0:.1f} "
            f"and {first['delivered_per_s'] or 0:.1f} msg/s came out; the queue grew by "
            f"{first['queue_depth']['growth_per_s'] or 0:.1f} messages a second."
        ),
        (
            f"While it grows the chain delivers {mean:.1f} msg/s (95 % interval {interval[0]:.1f} to {interval[1]:.1f}): "
            "that is what it carries, whatever is accepted."
        ),
    ]
    if highest is not None:
        sentences.append(f"No queue grew up to {highest['offered_per_s'] or 0:.1f} msg/s offered.")
    return Verdict(
        saturated=True,
        headline=f"Saturated: {mean:.1f} msg/s delivered while the queue grows",
        sentences=[*sentences, *why.sentences],
        concurrency=first["concurrency"] if pacing == "accepted" else None,
        crossing_concurrency=None,
        delivered_per_s=mean,
        delivered_per_s_interval=list(interval),
        beyond_per_s=None,
        kept_up_per_s=highest["offered_per_s"] if highest is not None else None,
        tested_to=tested_to,
        retrograde=False,
        plateau_steps=[row["step"] for row in over],
        station=why.station,
        candidates=list(why.candidates),
        evidence=why.evidence,
    )


def _no_verdict(headline: str, sentence: str, tested_to: int | None) -> Verdict:
    return Verdict(
        saturated=None,
        headline=headline,
        sentences=[sentence],
        concurrency=None,
        crossing_concurrency=None,
        delivered_per_s=None,
        delivered_per_s_interval=None,
        beyond_per_s=None,
        kept_up_per_s=None,
        tested_to=tested_to,
        retrograde=False,
        plateau_steps=[],
        station=None,
        candidates=[],
        evidence={},
    )


def _point(row: StepRow) -> Point:
    interval = row["delivered_per_s_interval"]
    return Point(
        row["step"],
        row["concurrency"],
        row["delivered_per_s"] or 0.0,
        (interval[0], interval[1]) if interval else None,
    )


def _floor(row: StepRow) -> float:
    """Return the lower end of what a step delivered: "more than" must hold."""
    interval = row["delivered_per_s_interval"]
    return interval[0] if interval else row["delivered_per_s"] or 0.0


def _crossing(plateau: Plateau, lightest: StepRow) -> float | None:
    """Return Xmax R(N min): the concurrency that would fill the chain if nothing ever waited."""
    mean = lightest["response_s"]["mean"]
    if mean is None or lightest["concurrency"] >= plateau.concurrency:
        return None
    return plateau.per_s * mean
