"""Two sets of runs side by side: what each run says about a few metrics, and what follows for the chain as a whole.

Reads summaries, never records. Throughput decides; the other metrics warn,
with verdicts that hold for all of them together. Runs of different loads are
no comparison and refused; of different machines, or at different settings, they are marked.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from loadgen.errors import UnusableRunError, UsageError
from reports.comparison import Difference, adjust_for_several, compare, needed_runs
from reports.runvalues import RunValues, StepValues, digest_settings, is_same_machine, load_of
from reports.steprow import Interval

__all__ = [
    "METRICS",
    "Compared",
    "Comparison",
    "Metric",
    "capacity_of",
    "check_comparable",
    "compare_runs",
    "read_metric",
]


@dataclass(frozen=True)
class Metric:
    """Something that one run has one value of."""

    name: str
    words: str
    higher_is_better: bool
    margin: float | None
    """Relative change for the worse that does not matter; None: that of the throughput."""
    read: Callable[[RunValues, StepValues, StepValues], float | None]
    """From the run, its lightest common step and its step with the most sessions."""
    scales: int = 0
    """How it follows the speed of a machine: 1 as messages per second do, -1 as seconds do, 0 not at all."""


METRICS = (
    Metric("delivered_per_s", "delivered, msg/s", True, None, lambda run, _, most: capacity_of(run, most), 1),
    Metric("response_p50_light_s", "response p50, least load", False, 0.1, lambda _, least, __: least["response_p50_s"], -1),
    Metric("response_p95_light_s", "response p95, least load", False, 0.1, lambda _, least, __: least["response_p95_s"], -1),
    Metric("cpu_s_per_message", "CPU per message", False, 0.05, lambda run, _, __: run["cpu_s_per_message"], -1),
    Metric("memory_bytes", "memory of the filter", False, 0.1, lambda _, __, most: most["memory_bytes"]),
)  # fmt: skip
"""The first one decides."""


class Compared(TypedDict):
    """One metric, base against candidate."""

    metric: str
    words: str
    higher_is_better: bool
    margin: float
    base: list[float]
    """One value per run."""
    candidate: list[float]
    ratio: float
    """Candidate over base."""
    interval: Interval | None
    free_interval: Interval | None
    """The same without assuming a distribution; None: too few runs."""
    agrees: bool
    """Both intervals say the same of "no change"."""
    verdict: str
    """improved, equivalent, regression or inconclusive."""
    detectable: float | None
    """Smallest change that these runs show in four of five cases."""


class Comparison(TypedDict):
    """What `loadgen compare --json` prints."""

    format: int
    verdict: str
    """Of the throughput."""
    block: int | None
    """Runs of a side that were taken together with as many of the other; 1: pairs; None: the sides stand by themselves."""
    relative: bool
    """On machines of different kinds: values are relative to what the generator carried on each."""
    machine_changed: bool
    """By itself the machine is faster or slower than it was for the base; nothing is then decided."""
    metrics: list[Compared]
    """The first one, throughput, decides."""
    curve: list[Compared]
    """Throughput at each load that all runs have; verdicts hold for all of them together."""
    notes: list[str]
    """In what the two sides differ besides."""
    needed_runs: int | None
    """On each side, to see a change as large as the margin in four of five cases; None: not known, or more than 200."""
    sentences: list[str]


def compare_runs(
    base: Sequence[RunValues],
    candidate: Sequence[RunValues],
    *,
    margin: float = 0.05,
    block: int | None = None,
    margins: Mapping[str, float] | None = None,
) -> Comparison:
    """Return what the *candidate* runs say against the *base* runs.

    Args:
        base: Complete runs of one load.
        candidate: The same load.
        margin: Loss of throughput that does not matter.
        block: So many runs of each side, in their order, were taken together; 1: pairs. None: the sides stand by themselves.
        margins: Those of single metrics, by name, instead.

    Raises:
        UnusableRunError: a run is not complete, the loads differ, or there is no valid step in common.
        UsageError: pairs of different number.
    """
    everything = [*base, *candidate]
    check_comparable(everything)
    if block is not None and len(base) != len(candidate):
        raise UsageError(f"--paired: got {len(base)} and {len(candidate)} runs, want as many on both sides")
    loads = _common_loads(everything)
    if not loads:
        raise UnusableRunError("the runs have no valid step in common; their reports say why steps are not valid")
    speed = None if _is_one_machine(everything) else _speed_of(candidate, base)
    relative = speed is not None
    allowed = {METRICS[0].name: margin, **(margins or {})}
    found: list[tuple[Metric, Difference, list[float], list[float]]] = []
    for metric in METRICS:
        x, y = (read_metric(metric, side, loads, speed=speed) for side in (base, candidate))
        if len(x) == len(base) and len(y) == len(candidate):
            difference = compare(
                x, y, margin=allowed.get(metric.name, metric.margin or margin), higher_is_better=metric.higher_is_better,
                block=block,
            )  # fmt: skip
            found.append((metric, difference, x, y))
    if not found or found[0][0] is not METRICS[0]:
        raise UnusableRunError("the runs say nothing of throughput; their reports say why")
    others = adjust_for_several([difference for _, difference, _, _ in found[1:]])
    differences = [found[0][1], *others]
    metrics = [
        _describe(
            metric.name, metric.words, metric.higher_is_better, allowed.get(metric.name, metric.margin or margin), x, y, one
        )
        for (metric, _, x, y), one in zip(found, differences, strict=True)
    ]  # fmt: skip
    main = differences[0]
    comparison = Comparison(
        format=1,
        verdict=main.verdict,
        block=block,
        relative=relative,
        machine_changed=False,
        metrics=metrics,
        curve=[] if relative else _compare_curves(base, candidate, loads, margin, block=block),
        notes=_find_notes(base, candidate, relative=relative),
        needed_runs=needed_runs(main.spread, margin, block=block) if main.spread is not None else None,
        sentences=_say(metrics, main, margin),
    )
    return _mind_the_machine(comparison, base, candidate, margin)


def check_comparable(runs: Sequence[RunValues]) -> None:
    """Raise unless all of *runs* are complete, of one load, and at one process count.

    Raises:
        UnusableRunError: naming the first that is not.
    """
    for run in runs:
        if run["status"] != "complete":
            raise UnusableRunError(
                f"{run['directory']}: {run['status']}, and only complete runs are compared; its report says why"
            )
        if run["workload_hash"] != runs[0]["workload_hash"]:
            raise UnusableRunError(
                f"{run['directory']}: another load than {runs[0]['directory']} "
                f"(profile {run['profile']} and {runs[0]['profile']}); only runs of one profile are compared"
            )
        if run["is_sweep"]:
            raise UnusableRunError(f"{run['directory']}: a sweep over process counts; compare runs at one count")


def _common_loads(runs: Sequence[RunValues]) -> list[tuple[str, int, float]]:
    """Return the loads that every run has a valid step of, the lightest first."""
    sets = [{load_of(step) for step in run["steps"]} for run in runs]
    return sorted(set.intersection(*sets), key=lambda key: key[1:])


def _step(run: RunValues, load: tuple[str, int, float]) -> StepValues:
    return next(step for step in run["steps"] if load_of(step) == load)


def capacity_of(run: RunValues, most: StepValues) -> float | None:
    """Return the plateau's throughput; where none was reached, that of *most*, the step with the most sessions."""
    return run["saturated_per_s"] or most["delivered_per_s"]


def read_metric(
    metric: Metric,
    runs: Sequence[RunValues],
    loads: Sequence[tuple[str, int, float]] = (),
    *,
    speed: float | None = None,
) -> list[float]:
    """Return the metric's value of each run that has one.

    Args:
        metric: Which.
        runs: With a valid step each.
        loads: The lightest and the heaviest that are read; empty: those that *runs* have in common.
        speed: What a generator carries on the machine to which the values are translated, msg/s; None: as they are.
    """
    loads = loads or (_common_loads(runs) if runs else [])
    if not loads:
        return []
    values = []
    for run in runs:
        value = metric.read(run, _step(run, loads[0]), _step(run, loads[-1]))
        if value is not None and value > 0:
            own = run["generator_per_s"]
            values.append(value * (speed / own) ** metric.scales if speed is not None and own is not None else value)
    return values


def _compare_curves(
    base: Sequence[RunValues], candidate: Sequence[RunValues], loads: Sequence[tuple[str, int, float]], margin: float,
    *, block: int | None,
) -> list[Compared]:  # fmt: skip
    differences, values = [], []
    for key in loads:
        x, y = ([_step(run, key)["delivered_per_s"] or 0.0 for run in side] for side in (base, candidate))
        if min(*x, *y) > 0:
            differences.append(compare(x, y, margin=margin, higher_is_better=True, block=block))
            values.append((key, x, y))
    return [
        _describe(f"N = {key[1]}" if not key[2] else f"{key[2]:g} msg/s", "delivered, msg/s", True, margin, x, y, one)
        for (key, x, y), one in zip(values, adjust_for_several(differences), strict=True)
    ]


def _speed_of(runs: Sequence[RunValues], others: Sequence[RunValues]) -> float | None:
    """Return what the generator carries on the machine of *runs*; None: it is not known of all of both."""
    known = [run["generator_per_s"] for run in (*runs, *others) if run["generator_per_s"] is not None]
    return statistics.median(known[: len(runs)]) if len(known) == len(runs) + len(others) else None


def _is_one_machine(runs: Sequence[RunValues]) -> bool:
    return all(is_same_machine(run, runs[0]) for run in runs)


def _mind_the_machine(
    found: Comparison, base: Sequence[RunValues], candidate: Sequence[RunValues], margin: float
) -> Comparison:
    """Return *found*, undecided where the machine itself is not as fast as it was when the base was measured."""
    before, now = (
        [run["generator_per_s"] for run in side if run["generator_per_s"] is not None] for side in (base, candidate)
    )
    if found["relative"] or found["block"] is not None or len(before) < 2 or len(now) < 2:
        return found
    speed = compare(before, now, margin=margin, higher_is_better=True)
    assert speed.interval is not None  # noqa: S101 (of two and more)
    change = speed.ratio - 1
    if abs(change) <= margin or speed.interval[0] <= 1 <= speed.interval[1]:
        return found
    found["machine_changed"] = True
    found["notes"].insert(
        0,
        f"The machine itself has changed: what its generator carries, by {change:+.0%} ({speed.interval[0] - 1:+.0%} to "
        f"{speed.interval[1] - 1:+.0%}).",
    )
    if found["verdict"] != "inconclusive":
        found["sentences"].append(
            f"Not decided all the same ({found['verdict']} by the numbers): by itself the machine is {abs(change):.0%} "
            f"{'faster' if change > 0 else 'slower'} than it was for the base. Measure the base again, or both in turn with --ab."
        )
        found["verdict"] = "inconclusive"
    return found


def _describe(
    name: str, words: str, higher: bool, margin: float, x: list[float], y: list[float], found: Difference
) -> Compared:
    return Compared(
        metric=name, words=words, higher_is_better=higher, margin=margin, base=x, candidate=y, ratio=found.ratio,
        interval=list(found.interval) if found.interval else None,
        free_interval=list(found.free_interval) if found.free_interval else None, agrees=found.agrees, verdict=found.verdict,
        detectable=found.detectable,
    )  # fmt: skip


def _find_notes(base: Sequence[RunValues], candidate: Sequence[RunValues], *, relative: bool) -> list[str]:
    """Return in what the sides differ: the machines, which must be known, and the settings, which may be the question."""
    notes = []
    if relative:
        notes.append(
            "The runs were taken on machines of different kinds: throughput, response times and CPU of the base are translated to this "
            "one by what the generator carries on each (calibrate), which is about the speed of the machine and no more."
        )
    elif not _is_one_machine([*base, *candidate]):
        notes.append("Not all runs were taken on machines of one kind: differences are of the machines, too.")
    elif len({run["machine"].get("hostname") for run in (*base, *candidate)}) > 1:
        notes.append("The runs were taken on several machines of one kind.")
    software = [{tuple(sorted(run["software"].items())) for run in side} for side in (base, candidate)]
    if software[0] != software[1]:
        before, after = (dict(next(iter(side))) for side in software)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        notes.append(
            "Software: "
            + ", ".join(f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}" for name in changed)
            + "."
        )
    if any(line.startswith("sha256:") for run in base for lines in run["settings"].values() for line in lines):
        digests = [{str(digest_settings(run["settings"])) for run in side} for side in (base, candidate)]
        if digests[0] != digests[1]:
            notes.append("The settings of Postfix or amavisd are others than those of the base.")
        return notes
    for name in sorted({key for run in (*base, *candidate) for key in run["settings"]}):
        lines = [{line for run in side for line in run["settings"].get(name, ())} for side in (base, candidate)]
        gone, new = (sorted(one - other) for one, other in (lines, reversed(lines)))
        if gone or new:
            words = [*(f"- {line}" for line in gone[:5]), *(f"+ {line}" for line in new[:5])]
            notes.append(f"{name}: {'; '.join(words)}")
    return notes


def _say(metrics: Sequence[Compared], main: Difference, margin: float) -> list[str]:
    first = metrics[0]
    change = f"{first['ratio'] - 1:+.1%}"
    if first["interval"] is None:
        return [
            (
                f"Throughput changed by {change}; from {main.runs[0]} and {main.runs[1]} runs nothing can be said about how sure "
                "that is. Give at least two on each side, better five."
            )
        ]
    low, high = (f"{bound - 1:+.1%}" for bound in first["interval"])
    words = {
        "improved": "better, and by more than the noise explains",
        "equivalent": f"no worse and no better than the margin of {margin:.0%}",
        "regression": f"worse by more than the margin of {margin:.0%}",
        "inconclusive": f"not decided: the interval reaches across the margin of {margin:.0%}",
    }
    words_now = words[first["verdict"]]
    if first["verdict"] == "inconclusive" and first["interval"][0] > 1 - margin:
        words_now = f"a loss of more than {margin:.0%} is excluded; whether it is better is not decided"
    sentences = [f"Throughput: {change} ({low} to {high}): {words_now}."]
    undecided = first["verdict"] == "inconclusive"
    if undecided and first["detectable"] is not None and first["detectable"] > margin:
        sentences.append(
            f"These runs show a change of {first['detectable']:.0%} in four of five cases, and not one of {margin:.0%}."
        )
    if not first["agrees"]:
        sentences.append("The interval that assumes no distribution does not say the same: look at the single runs.")
    worse = [one for one in metrics[1:] if one["verdict"] == "regression"]
    sentences += [f"Also worse: {one['words']}, {one['ratio'] - 1:+.1%}." for one in worse]
    return sentences
