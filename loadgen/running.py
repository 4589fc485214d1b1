"""`loadgen run` and `loadgen report` once their words are understood: runs made, reports written, the gate judged.

What makes the exit code is decided in one place: the expectations of the
profile where it has some, else whether the runs are complete and valid.
"""

import asyncio
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import ExitCode, UsageError
from loadgen.expectations import Expect, WorseMax
from loadgen.gating import GateFiles, check_writable, publish, publish_failure
from loadgen.output import put, say
from loadgen.progress import PatientConsole, Progress
from loadgen.run import RunRequest
from loadgen.series import Taken, take_runs
from reports.analyse import write_reports
from reports.baseline import load_baseline, save_baseline
from reports.expecting import exit_code_of, judge_gate
from reports.gate import Gate
from reports.gatetext import print_gate, render_gate_markdown
from reports.runcomparison import Comparison, compare_runs
from reports.runvalues import RunValues, read_values
from reports.text import print_summary

__all__ = ["DEFAULT_MARGIN", "report_gate", "run_gate"]

DEFAULT_MARGIN = 0.05
"""Loss of throughput that does not matter, where nobody says otherwise."""


def run_gate(
    request: RunRequest, baseline: Path | None, save_to: Path | None, files: GateFiles, *, as_json: bool
) -> ExitCode:
    """Make the runs of *request*, report on them, and return what the command ends with.

    Args:
        request: What to run; its profile says how many runs make a result.
        baseline: Compare with this file.
        save_to: Keep the values of the runs there, if all of them are complete.
        files: What to write for a CI server.
        as_json: Print JSON.

    Raises:
        LoadgenError: something given cannot be used, or nothing could be measured.
    """
    if request.continues is not None and request.profile.runs > 1:
        raise UsageError(
            f"--continue: {request.profile_name} makes {request.profile.runs} runs, and only a single one is continued"
        )
    if request.profile.processes is not None and (baseline is not None or save_to is not None):
        raise UsageError(
            f"{request.profile_name}: a sweep over process counts; a baseline is of a profile with steps, at one count"
        )
    base = load_baseline(baseline, request.profile.workload_hash) if baseline is not None else None
    files.check()
    if save_to is not None:
        check_writable(save_to)
        if save_to.exists():
            load_baseline(save_to)
    started_s = time.time()
    with publish_failure(files, request.profile_name, started_s):
        return _run_gate(request, base, save_to, files, started_s, as_json=as_json)


def _run_gate(
    request: RunRequest, base: Sequence[RunValues] | None, save_to: Path | None, files: GateFiles, started_s: float, *,
    as_json: bool,
) -> ExitCode:  # fmt: skip
    profile = request.profile
    with Progress(PatientConsole(stderr=True), brief=profile.runs > 1) as progress:
        speed = base is not None or save_to is not None
        taken = asyncio.run(take_runs(request, profile.runs, progress, measure_speed=speed))
    found = _Found(taken)
    expect = profile.expect
    if base is not None and not expect.worse_max.model_dump(exclude_none=True):
        expect = expect.model_copy(update={"worse_max": WorseMax(delivered_per_s=DEFAULT_MARGIN)})
    comparison = _compare(base, found.good, expect) if base is not None else None
    gate = judge_gate(expect, found.values, comparison=comparison, spoilt=found.spoilt, wanted_runs=profile.runs)
    _print(found, gate, as_json=as_json)
    publish(
        gate, files, render_gate_markdown(gate), started_s=started_s, took_s=time.time() - started_s, hostname=platform.node(),
        pages={f"report of {one.directory.name}": one.directory / "report.html" for one in taken},
    )  # fmt: skip
    if save_to is not None and len(found.good) == profile.runs:
        save_baseline(save_to, found.good)
        say(f"written: {save_to}")
    elif save_to is not None:
        say(f"{save_to}: not written, because not all runs are complete")
    return _exit_code(taken, gate)


def report_gate(directory: Path, *, as_json: bool) -> ExitCode:
    """Analyse one run again, write its report, and return what the command ends with.

    Raises:
        RunFileError: *directory* is no run of a format known here.
    """
    summary = write_reports(directory, time.time())
    taken = Taken(directory, summary, ExitCode.OK if summary["status"] == "complete" else ExitCode.INVALID_RESULT)
    _print(_Found([taken]), summary["gate"], as_json=as_json)
    return _exit_code([taken], summary["gate"])


@dataclass(frozen=True)
class _Found:
    """The runs that were made."""

    taken: Sequence[Taken]

    @property
    def values(self) -> list[RunValues]:
        """Of all runs."""
        return [read_values(one.summary) for one in self.taken]

    @property
    def good(self) -> list[RunValues]:
        """Of those that count: a single run needs no more than to be complete, of several each has all of its steps."""
        if len(self.taken) == 1:
            return [run for run in self.values if run["status"] == "complete"]
        return [read_values(one.summary) for one in self.taken if one.is_complete]

    @property
    def spoilt(self) -> list[str]:
        """Directories of those that were taken again."""
        return [one.directory.name for one in self.taken if one.is_spoilt] if len(self.taken) > 1 else []


def _compare(base: Sequence[RunValues], good: Sequence[RunValues], expect: Expect) -> Comparison | None:
    margins = expect.worse_max.model_dump(exclude_none=True)
    return (
        compare_runs(base, good, margin=margins.get("delivered_per_s", DEFAULT_MARGIN), margins=margins)
        if good
        else None
    )


def _print(found: _Found, gate: Gate, *, as_json: bool) -> None:
    alone = found.taken[0].summary if len(found.taken) == 1 else None
    if as_json:
        put(
            json.dumps(
                {**alone, "gate": gate} if alone else {"format": 1, "runs": found.values, "gate": gate}, indent=2
            )
        )
        return
    console = PatientConsole()
    if alone:
        print_summary(alone, console)
    if gate["judged"] or not alone:
        print_gate(gate, console)
    for one in found.taken:
        put(f"report: {(one.directory / 'report.html').absolute()}")


def _exit_code(taken: Sequence[Taken], gate: Gate) -> ExitCode:
    """Return the gate's code, or that of a run that ended for a reason of its own."""
    ended = next((one.exit_code for one in taken if one.exit_code not in (ExitCode.OK, ExitCode.INVALID_RESULT)), None)
    if ended is not None:
        return ended
    if any(one.exit_code is ExitCode.INVALID_RESULT for one in taken):
        return ExitCode.INVALID_RESULT
    return exit_code_of(gate)
