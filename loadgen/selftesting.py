"""`loadgen compare --self-test` once its words are understood: one chain against itself, in runs taken now or recorded."""

import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loadgen.errors import ExitCode, UnusableRunError, UsageError
from loadgen.output import put, say
from loadgen.progress import PatientConsole, Progress
from loadgen.run import RunRequest
from loadgen.running import DEFAULT_MARGIN
from loadgen.series import make_request, make_series_directory, open_series, read_summary
from reports.runcomparison import METRICS, read_metric
from reports.runvalues import RunValues, read_values
from reports.selftest import SelfTest, examine_bed
from reports.selftesttext import print_self_test

__all__ = ["examine_machine"]

_FEWEST_RUNS = 12
"""Three blocks of four."""


def examine_machine(
    words: Sequence[str], chain: str | None, margin: float | None, time_limit_s: float, output: Path, *, as_json: bool
) -> ExitCode:
    """Compare one chain with itself, in runs that are taken now or were recorded, and return what the command ends with.

    Raises:
        LoadgenError: something given cannot be used, or there are too few runs.
    """
    recorded = [Path(word) for word in words if (Path(word) / "run.sqlite").is_file()]
    if recorded and len(recorded) < len(words):
        raise UsageError("--self-test: got run directories and something else, want a profile, or run directories only")
    if not recorded and len(words) != 1:
        raise UsageError(f"--self-test: got {len(words)} words, want a profile, or run directories")
    runs = _read_recorded(recorded) if recorded else _take_for_test(words[0], chain, time_limit_s, output)
    if len({run["workload_hash"] for run in runs}) > 1:
        raise UsageError("--self-test: the runs are of different loads, want runs of one profile on one chain")
    values = read_metric(METRICS[0], runs)
    if len(values) < _FEWEST_RUNS:
        raise UnusableRunError(
            f"--self-test: {len(values)} runs can be used, want at least {_FEWEST_RUNS}; give it more time (--time-limit)"
        )
    found = examine_bed(values, margin or DEFAULT_MARGIN)
    _print_test(found, as_json=as_json)
    return ExitCode.OK


def _print_test(found: SelfTest, *, as_json: bool) -> None:
    if as_json:
        put(json.dumps(found, indent=2))
    else:
        print_self_test(found, PatientConsole())


def _read_recorded(directories: Sequence[Path]) -> list[RunValues]:
    runs = [read_values(read_summary(directory)) for directory in directories]
    return sorted((run for run in runs if run["status"] == "complete"), key=lambda run: run["started_at"] or math.inf)


def _take_for_test(profile: str, chain: str | None, time_limit_s: float, output: Path) -> list[RunValues]:
    request = make_request(profile, chain, output)
    say(request.choice.why)
    with Progress(PatientConsole(stderr=True), brief=True) as progress:
        return asyncio.run(_take_until(request, time_limit_s, progress))


async def _take_until(request: RunRequest, time_limit_s: float, progress: Progress) -> list[RunValues]:
    directory = make_series_directory(request.output, f"self-test-{request.profile_name}")
    begun, longest_s = time.monotonic(), 0.0
    runs: list[RunValues] = []
    async with open_series({"run": replace(request, output=directory)}, progress, read_summary) as series:
        while time.monotonic() - begun + longest_s < time_limit_s:
            run_begun = time.monotonic()
            one = await series.take("run", f"run {len(runs) + 1}")
            longest_s = max(longest_s, time.monotonic() - run_begun)
            if one.exit_code is ExitCode.INTERRUPTED:
                raise KeyboardInterrupt
            if one.is_complete:
                runs.append(read_values(one.summary))
            elif not one.is_spoilt:
                raise UnusableRunError(f"{one.directory}: {one.summary['status']}: {one.summary['run']['end_reason']}")
    return runs
