"""Two sets of runs side by side: what each run says about a few metrics, and what follows for the chain as a whole.

Reads summaries, never records. Throughput decides; the other metrics warn,
with verdicts that hold for all of them together. Runs of different loads are
no comparison and refused; of different machines, or at different settings, they are marked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from loadgen.errors import UnusableRunError, UsageError
from reports.comparison import Difference, adjust_for_several, compare, needed_runs
from reports.steprow import Interval, StepRow
from reports.summary import Summary

__all__ = ["Compared", "Comparison", "compare_runs"]


@dataclass(frozen=True)
class _Metric:
    """Something that one run has one value of."""

    name: str
    words: str
    higher_is_better: bool
    margin: float | None
    """Relative change for the worse that does not matter; None: that of the throughput."""
    read: Callable[[Summary, StepRow, StepRow], float | None]
    """From the summary, its lightest common step and its step with the most sessions."""


_METRICS = (
    _Metric("delivered_per_s", "delivered, msg/s", True, None, lambda s, _, most: _capacity(s, most)),
    _Metric("response_p50_light_s", "response p50, least load", False, 0.1, lambda _, least, __: least["response_s"]["p50"]),
    _Metric("response_p95_light_s", "response p95, least load", False, 0.1, lambda _, least, __: least["response_s"]["p95"]),
    _Metric("cpu_s_per_message", "CPU per message", False, 0.05, lambda s, _, __: s["cost"]["chain_cpu_s_per_message"]),
    _Metric("memory_bytes", "memory of the filter", False, 0.1, lambda _, __, most: most["memory_bytes"]),
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
    paired: bool
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
    base: Sequence[Summary], candidate: Sequence[Summary], *, margin: float = 0.05, paired: bool = False
) -> Comparison:
    """Return what the *candidate* runs say against the *base* runs.

    Args:
        base: Summaries of complete runs of one load.
        candidate: The same load.
        margin: Loss of throughput that does not matter.
        paired: The runs were taken in pairs, in this order.

    Raises:
        UnusableRunError: a run is not complete, the loads differ, or there is no valid step in common.
        UsageError: pairs of different number.
    """
    everything = [*base, *candidate]
    _check(everything)
    if paired and len(base) != len(candidate):
        raise UsageError(f"--paired: got {len(base)} and {len(candidate)} runs, want as many on both sides")
    loads = _common_loads(everything)
    if not loads:
        raise UnusableRunError("the runs have no valid step in common; their reports say why steps are not valid")
    least, most = loads[0], loads[-1]
    found: list[tuple[_Metric, Difference, list[float], list[float]]] = []
    for metric in _METRICS:
        sides = [[metric.read(s, _step(s, least), _step(s, most)) for s in side] for side in (base, candidate)]
        x, y = ([value for value in side if value is not None and value > 0] for side in sides)
        if len(x) == len(base) and len(y) == len(candidate):
            difference = compare(
                x, y, margin=metric.margin or margin, higher_is_better=metric.higher_is_better, paired=paired
            )
            found.append((metric, difference, x, y))
    if not found or found[0][0] is not _METRICS[0]:
        raise UnusableRunError("the runs say nothing of throughput; their reports say why")
    others = adjust_for_several([difference for _, difference, _, _ in found[1:]])
    differences = [found[0][1], *others]
    metrics = [
        _describe(metric.name, metric.words, metric.higher_is_better, metric.margin or margin, x, y, difference)
        for (metric, _, x, y), difference in zip(found, differences, strict=True)
    ]
    main = differences[0]
    return Comparison(
        format=1,
        verdict=main.verdict,
        paired=paired,
        metrics=metrics,
        curve=_compare_curves(base, candidate, loads, margin, paired=paired),
        notes=_find_notes(base, candidate),
        needed_runs=needed_runs(main.spread, margin, paired=paired) if main.spread is not None else None,
        sentences=_say(metrics, main, margin),
    )


def _check(runs: Sequence[Summary]) -> None:
    for summary in runs:
        if summary["status"] != "complete":
            raise UnusableRunError(
                f"{summary['run']['directory']}: {summary['status']}, and only complete runs are compared; its report says why"
            )
        if summary["run"]["workload_hash"] != runs[0]["run"]["workload_hash"]:
            raise UnusableRunError(
                f"{summary['run']['directory']}: another load than {runs[0]['run']['directory']} "
                f"(profile {summary['profile']} and {runs[0]['profile']}); only runs of one profile are compared"
            )
        if summary["sweep"] is not None:
            raise UnusableRunError(
                f"{summary['run']['directory']}: a sweep over process counts; compare runs at one count"
            )


def _key(row: StepRow) -> tuple[str, int, float]:
    return row["entry"], row["concurrency"], row["rate_per_s"] or 0.0


def _common_loads(runs: Sequence[Summary]) -> list[tuple[str, int, float]]:
    """Return the loads that every run has a valid step of, at the outermost entry, the lightest first."""
    entry = runs[0]["steps"][0]["entry"] if runs[0]["steps"] else "front"
    sets = [{_key(row) for row in summary["steps"] if row["valid"] and row["entry"] == entry} for summary in runs]
    return sorted(set.intersection(*sets), key=lambda key: key[1:])


def _step(summary: Summary, key: tuple[str, int, float]) -> StepRow:
    return next(row for row in summary["steps"] if row["valid"] and _key(row) == key)


def _capacity(summary: Summary, most: StepRow) -> float | None:
    """Return the plateau's throughput; where none was reached, that with the most sessions that all runs have."""
    verdict = summary["verdict"]
    return verdict["delivered_per_s"] if verdict["saturated"] else most["delivered_per_s"]


def _compare_curves(
    base: Sequence[Summary],
    candidate: Sequence[Summary],
    loads: Sequence[tuple[str, int, float]],
    margin: float,
    *,
    paired: bool,
) -> list[Compared]:
    differences, values = [], []
    for key in loads:
        x, y = ([_step(summary, key)["delivered_per_s"] or 0.0 for summary in side] for side in (base, candidate))
        if min(*x, *y) > 0:
            differences.append(compare(x, y, margin=margin, higher_is_better=True, paired=paired))
            values.append((key, x, y))
    return [
        _describe(f"N = {key[1]}" if not key[2] else f"{key[2]:g} msg/s", "delivered, msg/s", True, margin, x, y, one)
        for (key, x, y), one in zip(values, adjust_for_several(differences), strict=True)
    ]


def _describe(
    name: str, words: str, higher: bool, margin: float, x: list[float], y: list[float], found: Difference
) -> Compared:
    return Compared(
        metric=name, words=words, higher_is_better=higher, margin=margin, base=x, candidate=y, ratio=found.ratio,
        interval=list(found.interval) if found.interval else None,
        free_interval=list(found.free_interval) if found.free_interval else None, agrees=found.agrees, verdict=found.verdict,
        detectable=found.detectable,
    )  # fmt: skip


def _find_notes(base: Sequence[Summary], candidate: Sequence[Summary]) -> list[str]:
    """Return in what the sides differ: the machines, which must be known, and the settings, which may be the question."""
    notes = []
    machines = [{(s["run"]["host"].get("hostname"), s["run"]["host"].get("cpu_model"), s["run"]["cpus"]) for s in side} for side in (base, candidate)]  # fmt: skip
    if machines[0] != machines[1] or len(machines[0]) > 1:
        notes.append("Not all runs were taken on one machine: differences are of the machines, too.")
    software = [{tuple(sorted(s["run"]["software"].items())) for s in side} for side in (base, candidate)]
    if software[0] != software[1]:
        before, after = (dict(next(iter(side))) for side in software)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        notes.append(
            "Software: "
            + ", ".join(f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}" for name in changed)
            + "."
        )
    for name in sorted({key for s in (*base, *candidate) for key in s["settings"]}):
        lines = [
            {line.strip() for s in side for line in s["settings"].get(name, "").splitlines()}
            for side in (base, candidate)
        ]
        # a lab has other ports and another place each time
        gone, new = (sorted(filter(_is_telling, one - other)) for one, other in (lines, reversed(lines)))
        if gone or new:
            words = [*(f"- {line}" for line in gone[:5]), *(f"+ {line}" for line in new[:5])]
            notes.append(f"{name}: {'; '.join(words)}")
    return notes


def _is_telling(line: str) -> bool:
    return bool(line) and "/labs/" not in line and "127.0.0." not in line and "syslog_name" not in line


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
    sentences = [f"Throughput: {change} ({low} to {high}): {words[first['verdict']]}."]
    if first["detectable"] is not None and first["detectable"] > margin:
        sentences.append(
            f"These runs show a change of {first['detectable']:.0%} in four of five cases, and not one of {margin:.0%}."
        )
    if not first["agrees"]:
        sentences.append("The interval that assumes no distribution does not say the same: look at the single runs.")
    worse = [one for one in metrics[1:] if one["verdict"] == "regression"]
    sentences += [f"Also worse: {one['words']}, {one['ratio'] - 1:+.1%}." for one in worse]
    return sentences
