"""What each part of the chain carries by itself: the same load, put in at one place after another.

Pure: the steps of a run with several entries in, one verdict per entry and what their
differences say out. The further in messages are put, the fewer stations they pass, so
what an entry carries more than the one before it is what the stations between them cost.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from reports.attribution import Limits
from reports.saturation import judge
from reports.steprow import StepRow
from reports.summary import Stage, Stages, Verdict

__all__ = ["FED", "choose_main", "compare_stages", "judge_entry"]

FED = ("front", "submission", "pickup")
"""Entries from which a message passes the whole chain, its feed included."""

_WAYS = {
    "front": ["front", "queue", "feed", "filter", "reinjection", "delivery"],
    "submission": ["submission", "queue", "feed", "filter", "reinjection", "delivery"],
    "pickup": ["pickup", "queue", "feed", "filter", "reinjection", "delivery"],
    "inside": ["inside", "queue", "delivery"],
    "filter": ["filter", "reinjection", "delivery"],
    "reinjection": ["reinjection", "delivery"],
}
_WORDS = {
    "front": "the whole chain",
    "submission": "the whole chain, entered by submission,",
    "pickup": "the whole chain, entered by pickup,",
    "inside": "the way past the filter",
    "filter": "the filter with what follows it",
    "reinjection": "reinjection and delivery",
}
_BEFORE = {"filter": "front, queue and feed", "reinjection": "the filter"}
"""What a message put in here does not pass, and one put in at the next entry outwards does."""


def choose_main(rows: Sequence[StepRow]) -> list[StepRow]:
    """Return the steps that the run's verdict is about: those at the front, or at the outermost entry there is."""
    present = {row["entry"] for row in rows}
    main = next((entry for entry in _WAYS if entry in present), "front")
    return [row for row in rows if row["entry"] == main]


def judge_entry(rows: Sequence[StepRow], pacing: str, limits: Limits) -> Verdict:
    """Return the verdict over the steps of one entry; what its messages do not pass cannot limit them."""
    if rows and rows[0]["entry"] not in FED:
        limits = replace(limits, feed_processes=None, destination_concurrency_limit=None)
    return judge(rows, pacing, limits)


def compare_stages(rows: Sequence[StepRow], pacing: str, limits: Limits) -> Stages | None:
    """Return a verdict per entry and what follows from them; None for a run with one entry."""
    entries = [entry for entry in _WAYS if any(row["entry"] == entry for row in rows)]
    if len(entries) < 2:
        return None
    stages = [_describe(entry, [row for row in rows if row["entry"] == entry], pacing, limits) for entry in entries]
    return Stages(entries=stages, sentences=_compare(stages))


def _describe(entry: str, rows: Sequence[StepRow], pacing: str, limits: Limits) -> Stage:
    valid = [row for row in rows if row["valid"]]
    lightest = min(valid, key=lambda row: (row["concurrency"], row["rate_per_s"] or 0.0), default=None)
    return Stage(
        entry=entry,
        passes=_WAYS[entry],
        verdict=judge_entry(rows, pacing, limits),
        alone_response_s=lightest["response_s"]["mean"] if lightest else None,
        alone_concurrency=lightest["concurrency"] if lightest else None,
        steps=[row["step"] for row in rows],
    )


def _compare(stages: Sequence[Stage]) -> list[str]:
    """Return what each entry says beside the next one outwards."""
    sentences = []
    whole = [stage for stage in stages if stage["entry"] in FED]
    for other in whole[1:]:
        sentences += _compare_ways_in(whole[0], other)
    for past in (stage for stage in stages if stage["entry"] == "inside"):
        if whole:
            sentences += _compare_depths(whole[0], past, "feed, filter and reinjection")
    inwards = [*whole[:1], *(stage for stage in stages if stage["entry"] not in (*FED, "inside"))]
    for outer, inner in itertools.pairwise(inwards):
        between = (
            "everything before it"
            if inner["entry"] == "reinjection" and outer["entry"] in FED
            else _BEFORE[inner["entry"]]
        )
        sentences += _compare_depths(outer, inner, between)
    return sentences


def _compare_ways_in(one: Stage, other: Stage) -> list[str]:
    gain = _gain(one["verdict"], other["verdict"])
    if gain is None:
        return [_why_not(one, other)]
    value, low, high = gain
    said = f"Mail by {other['entry']} comes through at {_rate(other)}, mail by {one['entry']} at {_rate(one)}"
    if low <= 0 <= high:
        return [f"{said}: no difference beyond the noise ({low:+.0%} to {high:+.0%})."]
    return [f"{said}: {value:+.0%} ({low:+.0%} to {high:+.0%})."]


def _compare_depths(outer: Stage, inner: Stage, between: str) -> list[str]:
    gain = _gain(outer["verdict"], inner["verdict"])
    words = _WORDS[inner["entry"]]
    if gain is None:
        reached, carried = inner["verdict"]["beyond_per_s"], outer["verdict"]["delivered_per_s"]
        if inner["verdict"]["saturated"] is False and reached and carried and reached > carried:
            return [
                (
                    f"By itself, {words} carried {reached:.1f} msg/s and was not saturated, {_WORDS[outer['entry']]} carries "
                    f"{_rate(outer)}: {between} set the limit, not what follows."
                )
            ]
        return [_why_not(outer, inner)]
    value, low, high = gain
    said = f"By itself, {words} carries {_rate(inner)}, {_WORDS[outer['entry']]} {_rate(outer)}"
    if low <= 0 <= high:
        return [f"{said}: {between} cost no throughput beyond the noise ({low:+.0%} to {high:+.0%})."]
    if value > 0:
        return [f"{said}: without {between} it is {value:+.0%} ({low:+.0%} to {high:+.0%})."]
    return [
        (
            f"{said}, {value:+.0%} ({low:+.0%} to {high:+.0%}): sessions of this tool keep its processes less busy than the "
            f"chain's own do, so this is no limit of the stations."
        )
    ]


def _why_not(one: Stage, other: Stage) -> str:
    names = [stage["entry"] for stage in (one, other) if stage["verdict"]["delivered_per_s"] is None]
    return f"{one['entry'].capitalize()} and {other['entry']} are not compared: no saturation was seen at {' and '.join(names)}."


def _gain(one: Verdict, other: Verdict) -> tuple[float, float, float] | None:
    """Return by how much *other* carries more than *one*, with its 95 % interval (the relative errors add in squares)."""
    a, b = one["delivered_per_s"], other["delivered_per_s"]
    if not a or not b:
        return None
    errors = [
        (interval[1] - interval[0]) / 2 / rate
        for rate, interval in ((a, one["delivered_per_s_interval"]), (b, other["delivered_per_s_interval"]))
        if interval
    ]
    spread = math.exp(math.hypot(*errors)) if errors else 1.0
    ratio = b / a
    return ratio - 1, ratio / spread - 1, ratio * spread - 1


def _rate(stage: Stage) -> str:
    verdict = stage["verdict"]
    interval = verdict["delivered_per_s_interval"]
    known = f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
    return f"{verdict['delivered_per_s'] or 0:.1f} msg/s{known}"
