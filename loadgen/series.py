"""Several runs of one load, one after the other: a gate's, or in turn on two chains.

A run is one value, so every one begins afresh: the daemons of a lab, which
stays up all the time, are reloaded before each. A run that noise has made
unusable is taken again, a few times; everything else is left for the reader to judge.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from loadgen.calibrate import measure_machine
from loadgen.chain.choice import choose_chain
from loadgen.chain.opening import OpenChain, keep_open
from loadgen.errors import ExitCode
from loadgen.profile import load_profile
from loadgen.progress import Progress
from loadgen.records import RunReader, make_run_directory
from loadgen.run import RunRequest, conduct, list_interrupts
from reports.analyse import Summary, analyse, write_reports
from reports.validity import is_noise

__all__ = ["Series", "Taken", "make_request", "make_series_directory", "open_series", "read_summary", "take_runs"]

_MORE = 0.4
"""Runs that noise has spoilt are taken again, at most this share of the planned ones, rounded up."""


@dataclass(frozen=True)
class Taken:
    """One run that has been made."""

    directory: Path
    summary: Summary
    exit_code: ExitCode

    @property
    def is_complete(self) -> bool:
        """Whether it counts: complete, with all of its steps."""
        return self.exit_code is ExitCode.OK and self.summary["status"] == "complete" and self._is_valid

    @property
    def is_spoilt(self) -> bool:
        """Whether only noise speaks against it: every message is accounted for, and a step was not steady or undisturbed."""
        accounting = self.summary["accounting"]
        known = not accounting["lost"] and not accounting["unknown"] and accounting["adds_up"]
        by_chance = all(is_noise(reason) for row in self.summary["steps"] for reason in row["reasons"])
        return self.exit_code is ExitCode.OK and not self._is_valid and known and by_chance

    @property
    def _is_valid(self) -> bool:
        return all(row["valid"] for row in self.summary["steps"])


class Series:
    """Takes runs of some sides, each of which has a chain; `open_series` makes one."""

    def __init__(
        self,
        requests: dict[str, RunRequest],
        opened: dict[str, OpenChain | None],
        progress: Progress,
        read: Callable[[Path], Summary],
        *,
        measure_speed: bool,
    ) -> None:
        self._requests = requests
        self._opened = opened
        self._progress = progress
        self._read = read
        self._measure_speed = measure_speed
        self._fresh = set(requests)
        """Sides whose chain has just come up and has carried nothing."""
        self._interrupted = False

    def watch(self) -> None:
        """Hear of interrupts, which a run only does while it lasts; what is being changed then is finished first."""
        for number in list_interrupts():
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt)

    def unwatch(self) -> None:
        """Leave interrupts to others."""
        for number in list_interrupts():
            asyncio.get_running_loop().remove_signal_handler(number)

    def _interrupt(self) -> None:
        self._interrupted = True

    def _check(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    async def take(self, side: str, words: str) -> Taken:
        """Make one run of *side*; *words* say on screen which it is.

        Raises:
            LoadgenError: it could not be begun.
            KeyboardInterrupt: interrupted between two runs.
        """
        self._check()
        request = replace(self._requests[side], opened=self._opened[side], refresh=side not in self._fresh)
        self._fresh.discard(side)
        if self._measure_speed:
            request = replace(request, generator_per_s=await measure_machine())
            self._check()
        try:
            directory, exit_code = await conduct(request, self._progress)
        finally:
            self.watch()
        taken = Taken(directory, await asyncio.to_thread(self._read, directory), exit_code)
        self._progress.say(f"{words}: {_say_result(taken)}")
        return taken


def make_request(profile: str, chain: str | None, output: Path) -> RunRequest:
    """Return what to run, from the words of a command line.

    Raises:
        ProfileError: there is no such profile, or it says something wrong.
        ChainError: the same of the chain.
    """
    name, text, loaded = load_profile(profile)
    return RunRequest(name, text, loaded, choose_chain(chain, domain=loaded.message.recipient_domain), output)


@asynccontextmanager
async def open_series(
    requests: dict[str, RunRequest], progress: Progress, read: Callable[[Path], Summary], *, measure_speed: bool = False
) -> AsyncIterator[Series]:
    """Bring up what the sides need, and put it away on leaving.

    Args:
        requests: What to run, by the name of the side.
        progress: Is told what happens.
        read: Makes the summary of a run that has ended.
        measure_speed: Measure before each run what this machine's generator carries.
    """
    opened: dict[str, OpenChain | None] = {}
    series = Series(requests, opened, progress, read, measure_speed=measure_speed)
    async with AsyncExitStack() as stack:
        series.watch()
        stack.callback(series.unwatch)
        for side, request in requests.items():
            opened[side] = await stack.enter_async_context(keep_open(request.choice))
        yield series


async def take_runs(request: RunRequest, runs: int, progress: Progress, *, measure_speed: bool = False) -> list[Taken]:
    """Make *runs* runs, and some more where noise has spoilt one; stop at the first that fails otherwise.

    Args:
        request: What to run.
        runs: How many are wanted.
        progress: Is told what happens.
        measure_speed: Measure before each what this machine's generator carries, for a baseline.

    Each has its report when this returns.
    """
    if runs == 1:
        if measure_speed:
            request = replace(request, generator_per_s=await measure_machine())
        directory, exit_code = await conduct(request, progress)
        return [Taken(directory, await asyncio.to_thread(_report, directory), exit_code)]
    parent = make_series_directory(request.output, request.profile_name)
    taken: list[Taken] = []
    sides = {"run": replace(request, output=parent)}
    async with open_series(sides, progress, _report, measure_speed=measure_speed) as series:
        spare = math.ceil(_MORE * runs)
        while len(taken) < runs + spare and sum(one.is_complete for one in taken) < runs:
            one = await series.take("run", f"run {sum(t.is_complete for t in taken) + 1} of {runs}")
            taken.append(one)
            if not one.is_complete and not one.is_spoilt:
                break
    return taken


def make_series_directory(parent: Path, name: str) -> Path:
    """Create and return the directory that holds the runs of a series."""
    return make_run_directory(parent, name, time.time())


def read_summary(directory: Path) -> Summary:
    """Return the summary of a run, without writing anything.

    Raises:
        RunFileError: *directory* is no run of a format known here.
    """
    with RunReader(directory) as reader:
        return analyse(reader)


def _report(directory: Path) -> Summary:
    return write_reports(directory, time.time())


def _say_result(taken: Taken) -> str:
    rows: Sequence[str] = [
        f"{row['delivered_per_s']:.1f} msg/s at N = {row['concurrency']}"
        for row in taken.summary["steps"]
        if row["valid"] and row["delivered_per_s"]
    ]
    reasons = [reason for row in taken.summary["steps"] for reason in row["reasons"]]
    if taken.is_complete:
        return f"{', '.join(rows)} delivered"
    why = "; ".join(reasons) or taken.summary["run"]["end_reason"]
    return f"{'not valid' if taken.is_spoilt else taken.summary['status']}: {why}"
