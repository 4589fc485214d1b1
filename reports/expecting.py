"""Was met what a profile expects: each expectation against what the runs show, and the gate that follows.

Pure: values of runs in, a `Gate` out. An expectation about a number that has
an interval is met or missed only where the whole interval is on one side of
the limit; otherwise it is inconclusive. A gate passes when everything is met, and never on
runs that are incomplete or invalid.
"""

import math
import statistics
from collections.abc import Callable, Sequence

from loadgen.errors import ExitCode
from loadgen.expectations import Expect
from loadgen.units import format_duration
from reports.gate import Gate, Judged
from reports.runcomparison import METRICS, Compared, Comparison, read_metric
from reports.runvalues import RunValues

__all__ = ["exit_code_of", "expects_something", "judge_gate", "no_gate"]


def expects_something(expect: Expect) -> bool:
    """Return whether *expect* has any expectation that a run by itself can meet or miss."""
    return bool(expect.model_dump(exclude_none=True, exclude={"worse_max"}))


def no_gate(profile: str, *directories: str) -> Gate:
    """Return the gate of runs of which nothing is expected."""
    return Gate(
        format=1, outcome="none", profile=profile, delivered_per_s=None, delivered_per_s_interval=None, judged=[],
        runs=list(directories), spoilt=[], reasons=[], notes=[],
    )  # fmt: skip


def judge_gate(
    expect: Expect, runs: Sequence[RunValues], *, comparison: Comparison | None = None, spoilt: Sequence[str] = (),
    wanted_runs: int = 1, problem: str = "",
) -> Gate:  # fmt: skip
    """Return whether *runs* have met what was expected.

    Args:
        expect: The profile's table.
        runs: All that were made, spoilt ones included.
        comparison: Against a baseline or a base; None: there is none, and `worse_max` is not judged.
        spoilt: Directories of runs that noise alone has made invalid, and that were taken again.
        wanted_runs: How many of them were to be good.
        problem: Why the runs as a whole ended before their time; empty: they did not.
    """
    good = [run for run in runs if run["status"] == "complete" and run["directory"] not in spoilt]
    bad = [run for run in runs if run["status"] != "complete" and run["directory"] not in spoilt]
    gate = no_gate(runs[0]["profile"], *(run["directory"] for run in runs))
    gate["spoilt"] = list(spoilt)
    if good:
        values = _read_throughput(good)
        interval = _interval(values) if len(good) > 1 else good[0]["delivered_per_s_interval"]
        gate["delivered_per_s"], gate["delivered_per_s_interval"] = _mean(values), list(interval) if interval else None
        gate["judged"] = _judge_runs(expect, good, gate)
        if comparison is not None:
            gate["judged"] += _judge_changes(expect, comparison)
            gate["notes"] = list(comparison["notes"])
        elif expect.worse_max.model_dump(exclude_none=True):
            gate["notes"].append(
                "Against nothing: [expect.worse_max] needs a baseline (--baseline FILE), or another side (compare)."
            )
    if spoilt:
        gate["notes"].append(f"{len(spoilt)} of {len(runs)} runs were not steady enough and were taken again.")
    for run in good if expects_something(expect) and not any(run["is_sweep"] for run in good) else ():
        for step in run["not_valid"]:
            gate["outcome"] = "invalid"
            gate["reasons"].append(f"{run['directory']}: not valid: {step}")
    if problem:
        gate["outcome"] = "incomplete"
        gate["reasons"].append(problem)
    for run in bad:
        gate["outcome"] = "invalid" if run["status"] == "invalid" else "incomplete"
        gate["reasons"].append(
            f"{run['directory']}: {run['status']}" + (f": {run['end_reason']}" if run["end_reason"] else "")
        )
    if not bad and len(good) < wanted_runs:
        gate["outcome"] = "invalid"
        gate["reasons"].append(f"{len(good)} of {wanted_runs} runs could be used; the others were not steady enough")
    if gate["reasons"]:
        return gate
    outcomes = [one["outcome"] for one in gate["judged"]]
    undecided = [one for one in gate["judged"] if one["outcome"] in ("inconclusive", "not measured")]
    if "missed" in outcomes:
        gate["outcome"] = "missed"
    elif undecided:
        gate["outcome"] = "inconclusive"
        gate["reasons"] = [f"{one['words']}: {one['outcome']}: {one['got']}, want {one['want']}" for one in undecided]
    elif outcomes:
        gate["outcome"] = "met"
    return gate


def exit_code_of(gate: Gate) -> ExitCode:
    """Return what the command ends with."""
    if gate["outcome"] in ("met", "none"):
        return ExitCode.OK
    return ExitCode.EXPECTATION_MISSED if gate["outcome"] == "missed" else ExitCode.INVALID_RESULT


def _judge_runs(expect: Expect, runs: Sequence[RunValues], gate: Gate) -> list[Judged]:
    found = []
    if expect.delivered_per_s_min is not None:
        found.append(
            _judge(
                "delivered_per_s_min", "delivered", gate["delivered_per_s"], gate["delivered_per_s_interval"],
                expect.delivered_per_s_min, at_least=True, say=_per_s,
            )
        )  # fmt: skip
    if expect.response_p95_max_s is not None:
        longest = _read_longest_p95(runs)
        found.append(
            _judge(
                "response_p95_max", "response time, p95", _mean(longest), _interval(longest), expect.response_p95_max_s,
                at_least=False, say=format_duration,
            )
        )  # fmt: skip
    if expect.error_ratio_max is not None:
        messages = sum(run["messages"] for run in runs)
        ratio = sum(run["undelivered"] for run in runs) / messages if messages else None
        found.append(
            _judge(
                "error_ratio_max", "not delivered", ratio, None, expect.error_ratio_max, at_least=False, say=_percent
            )
        )
    if expect.lost_max is not None:
        lost = float(sum(run["lost"] for run in runs))
        found.append(
            _judge("lost_max", "lost", lost, None, float(expect.lost_max), at_least=False, say=lambda n: f"{n:.0f}")
        )
    if expect.recommended_processes is not None:
        found.append(_judge_processes(expect.recommended_processes, runs[0]))
    return found


def _read_throughput(runs: Sequence[RunValues]) -> list[float]:
    if runs[0]["is_sweep"]:
        values = [run["saturated_per_s"] for run in runs]
        return [value for value in values if value is not None]
    return read_metric(METRICS[0], runs)


def _read_longest_p95(runs: Sequence[RunValues]) -> list[float]:
    """Return the longest p95 of each run, seconds; nothing where a step has too few messages for one."""
    found = [[step["response_p95_s"] for step in run["steps"]] for run in runs]
    known = [[value for value in values if value is not None] for values in found]
    whole = all(values and len(values) == len(all_of) for values, all_of in zip(known, found, strict=True))
    return [max(values) for values in known] if whole else []


def _judge_processes(wanted: tuple[int, int], run: RunValues) -> Judged:
    least, most = wanted
    value, interval = run["recommended_processes"], run["recommended_interval"]
    want = f"{least} to {most}" if least != most else str(least)
    got = "no recommendation" if value is None else str(value)
    outcome = "not measured"
    if value is not None:
        low, high = interval or [value, value]
        got += f" ({low} to {high})" if low != high else ""
        outcome = "met" if least <= low and high <= most else "missed" if high < least or low > most else "inconclusive"
    return Judged(
        key="recommended_processes", words="recommended processes", want=want, got=got, value=value,
        interval=[float(bound) for bound in interval] if interval else None, limit=float(most), outcome=outcome,
    )  # fmt: skip


def _judge_changes(expect: Expect, comparison: Comparison) -> list[Judged]:
    found = []
    for name, limit in expect.worse_max.model_dump(exclude_none=True).items():
        row = next((row for row in comparison["metrics"] if row["metric"] == name), None)
        metric = next(metric for metric in METRICS if metric.name == name)
        doubtful = comparison["machine_changed"] and metric.scales != 0
        found.append(_judge_change(name, metric.words.removesuffix(", msg/s"), row, limit, doubtful=doubtful))
    return found


def _judge_change(name: str, words: str, row: Compared | None, limit: float, *, doubtful: bool) -> Judged:
    """Judge whether a metric is worse by no more than *limit*: only a loss matters, however much better it may be."""
    judged = Judged(
        key=f"worse_max.{name}", words=f"{words} against the baseline", want=f"no more than {limit:.0%} worse",
        got="not measured on both sides", value=None, interval=None, limit=limit, outcome="not measured",
    )  # fmt: skip
    if row is None:
        return judged
    judged["value"] = row["ratio"] - 1
    judged["got"] = f"{row['ratio'] - 1:+.1%}"
    judged["outcome"] = "inconclusive"
    if row["interval"] is None:
        judged["got"] += ", from too few runs for an interval"
        return judged
    low, high = row["interval"]
    judged["interval"] = [low - 1, high - 1]
    judged["got"] += f" ({low - 1:+.1%} to {high - 1:+.1%})"
    # in logarithms, the same way for what should be high and what should be low
    best, worst = (math.log(high), math.log(low)) if row["higher_is_better"] else (-math.log(low), -math.log(high))
    allowed = math.log1p(-limit) if row["higher_is_better"] else -math.log1p(limit)
    if doubtful:
        judged["got"] += ", and the machine itself has changed"
    elif worst > allowed:
        judged["outcome"] = "met"
    elif best < allowed:
        judged["outcome"] = "missed"
    return judged


def _judge(
    key: str, words: str, value: float | None, interval: Sequence[float] | None, limit: float, *, at_least: bool,
    say: Callable[[float], str],
) -> Judged:  # fmt: skip
    outcome = "not measured"
    got = "not measured"
    if value is not None:
        low, high = interval or (value, value)
        got = say(value) + (f" ({say(low)} to {say(high)})" if interval else "")
        good, poor = (low, high) if at_least else (-high, -low)
        bound = limit if at_least else -limit
        outcome = "met" if good >= bound else "missed" if poor < bound else "inconclusive"
    return Judged(
        key=key, words=words, want=f"at {'least' if at_least else 'most'} {say(limit)}", got=got, value=value,
        interval=list(interval) if interval else None, limit=limit, outcome=outcome,
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return statistics.geometric_mean(values) if values else None


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the geometric mean, from the spread between runs; None: fewer than two."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # lazily: only a gate pays for scipy

    logs = [math.log(value) for value in values]
    half = float(stdtrit(len(logs) - 1, 0.975)) * statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    return math.exp(mean - half), math.exp(mean + half)


def _per_s(value: float) -> str:
    return f"{value:.1f} msg/s"


def _percent(value: float) -> str:
    return f"{value:.3g}" if value == 0 else f"{value:.2%}"
