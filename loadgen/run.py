"""Conduct one run, from the chain coming up to everything being put away again, whatever happens.

With `crew`, `stepping` and `sweeping` this joins the chain, the traffic and
the collectors: the chain is opened, the crew is started, then either the steps of
the plan are taken in their order, or a sweep decides itself what to measure.
"""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadgen import __version__
from loadgen.chain.choice import ChainChoice
from loadgen.chain.opening import OpenChain, open_chain
from loadgen.chain.spec import Chain
from loadgen.channel import check_file_limit
from loadgen.continuing import Earlier, take_over
from loadgen.crew import Crew
from loadgen.entries import find_entries
from loadgen.errors import ExitCode, LoadgenError
from loadgen.host import describe_chain_host
from loadgen.plan import Step, make_plan, remaining_s
from loadgen.profile import Profile
from loadgen.progress import Progress, Reading
from loadgen.records import RunReader, RunWriter, make_run_directory
from loadgen.safety import check_domain, resolve_target
from loadgen.stepping import take_step
from loadgen.workers import Workers

__all__ = ["RunRequest", "conduct", "list_interrupts"]


@dataclass(frozen=True)
class RunRequest:
    """What to run, checked as far as that goes without touching anything."""

    profile_name: str
    profile_text: str
    profile: Profile
    choice: ChainChoice
    output: Path
    """Parent of the run directory."""
    allow_backlog: bool = False
    continues: Path | None = None
    """An earlier run of the same profile whose finished steps count."""
    workers: Workers | None = None
    """Several generators; None: one."""
    opened: OpenChain | None = None
    """The chain, where it is up already and stays so; None: `choice` is opened for this run alone."""
    refresh: bool = False
    """Its daemons have carried mail before: reload them, so that this run begins afresh like any other."""
    generator_per_s: float | None = None
    """What this machine's generator carried just before; None: not measured."""


async def conduct(request: RunRequest, progress: Progress) -> tuple[Path, ExitCode]:
    """Carry out *request* and return the run directory and how the run ended.

    The directory exists, and holds what was recorded, also when the run ended early.

    Raises:
        LoadgenError: before the first step: refused, unreachable, or not possible here.
    """
    message = request.profile.message
    for role, domain in message.domains:
        check_domain(domain, role, request.choice.allow.domains)
    if request.choice.chain is not None:
        front = request.choice.chain.front
        resolve_target(front.host, front.port, request.choice.allow.targets)
    check_file_limit(max((entry.concurrency for entry in request.profile.step), default=0))
    directory = make_run_directory(request.output, request.profile_name, time.time())
    try:
        earlier = take_over(request.continues, directory, request.profile) if request.continues else None
        with RunWriter(directory, new=earlier is None) as writer:
            exit_code = await _Conductor(request, writer, progress, earlier).run()
    except LoadgenError:
        if not _has_steps(directory):
            _remove_unused(directory)
        raise
    return directory, exit_code


def list_interrupts() -> list[signal.Signals]:
    """Return the signals that end a run early; one that is ignored was ignored on purpose (nohup)."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _has_steps(directory: Path) -> bool:
    if not (directory / "run.sqlite").is_file():  # refused before there was a record
        return False
    with RunReader(directory) as reader:
        return bool(reader.query("SELECT 1 FROM step LIMIT 1"))


def _remove_unused(directory: Path) -> None:
    """Remove the directory of a run that was refused before its first step; keep what a child said."""
    for name in ("run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "profile.toml"):
        (directory / name).unlink(missing_ok=True)
    for log in directory.glob("*.log"):
        if log.stat().st_size == 0:
            log.unlink()
    if not any(directory.iterdir()):
        directory.rmdir()


class _Conductor:
    """One run in progress."""

    def __init__(self, request: RunRequest, writer: RunWriter, progress: Progress, earlier: Earlier | None) -> None:
        self._request = request
        self._writer = writer
        self._progress = progress
        self._plan = make_plan(request.profile)
        self._crew = Crew(
            request.profile, request.profile_text, writer, progress, allow_backlog=request.allow_backlog,
            workers=request.workers,
        )  # fmt: skip
        self._earlier = earlier
        if earlier is not None:
            self._crew.origin -= earlier.ended_at
            self._crew.first_session = earlier.sessions
            self._crew.earlier_messages = earlier.messages

    async def run(self) -> ExitCode:
        crew, loop = self._crew, asyncio.get_running_loop()
        interrupts = list_interrupts()
        for number in interrupts:
            loop.add_signal_handler(number, crew.interrupt)
        self._record_request()
        try:
            async with AsyncExitStack() as stack:
                opened = self._request.opened
                if opened is None:
                    opened = await stack.enter_async_context(
                        open_chain(self._request.choice, crew.origin, self._writer.directory, crew.take_line)
                    )
                crew.chain = opened.chain
                self._record_chain(opened.chain)
                entries = find_entries(self._request.profile, opened, self._request.choice.allow.targets)
                if self._request.refresh and opened.tuner is not None:
                    reload = asyncio.create_task(opened.tuner.apply(opened.tuner.present))
                    try:  # at the same time: both wait most of it
                        await crew.start_children(stack, entries)
                    finally:
                        await reload
                    await crew.ask_collector("flushed", {"command": "flush"})
                    crew.resting_since = None
                else:
                    await crew.start_children(stack, entries)
                await crew.check_ready()
                if self._request.profile.processes is not None:
                    await self._sweep(opened)
                else:
                    await self._take_plan()
                await crew.finish_generator()
                await crew.check_clock()
        finally:
            self._writer.write_meta("ended_at", crew.now())
            for number in interrupts:
                loop.remove_signal_handler(number)
        self._writer.write_meta("end_reason", crew.stop_run)
        self._writer.write_meta("status", "incomplete" if crew.stop_run else "complete")
        if crew.interrupts:
            return ExitCode.INTERRUPTED
        if crew.stop_run.startswith("front-unreachable") and not crew.tally.accepted:
            return ExitCode.UNREACHABLE
        return ExitCode.INVALID_RESULT if crew.stop_run else ExitCode.OK

    async def _take_plan(self) -> None:
        for step in self._plan.steps:
            if self._crew.stop_run:
                return
            row = (
                step.step, self._crew.chain.processes, "stock", step.concurrency, step.rate_per_s, step.warm_up_s, step.hold_s,
            )  # fmt: skip
            self._writer.write_rows("step", [row])
            if step.entry != "front":
                self._writer.write_rows("entry", [(step.step, step.entry)])
            await take_step(self._crew, step, partial(self._show_planned, step))

    async def _sweep(self, opened: OpenChain) -> None:
        from loadgen.sweeping import conduct_sweep  # the analysis, which a plain run needs only when it is over

        await conduct_sweep(self._crew, opened, self._show_visit)

    # -- what is written down before anything is sent -----------------------------------------------------

    def _record_request(self) -> None:
        request = self._request
        (self._writer.directory / "profile.toml").write_text(request.profile_text)
        for key, value in (
            ("version", __version__), ("profile_name", request.profile_name), ("profile_text", request.profile_text),
            ("profile", request.profile.model_dump(mode="json")), ("workload_hash", request.profile.workload_hash),
            ("seed", request.profile.seed), ("generator_per_s", request.generator_per_s), ("chain_choice", request.choice.why), ("run_id", self._crew.run_id),
        ):  # fmt: skip
            self._writer.write_meta(key, value)
        if self._earlier is None:
            self._writer.write_meta("started_at", time.time())
        else:
            self._writer.write_meta("continued_at", time.time())
            self._writer.write_meta("continues", self._earlier.name)

    def _record_chain(self, chain: Chain) -> None:
        """Write down the chain, its settings, the software and the machine; another host's collector tells of its own."""
        self._writer.write_meta("chain", chain.model_dump(mode="json"))
        (self._writer.directory / "chain.json").write_text(chain.model_dump_json(indent=2) + "\n")
        if chain.collector is None:
            self._crew.record_host(describe_chain_host(chain))

    # -- progress -----------------------------------------------------------------------------------------

    def _show_planned(self, step: Step, phase: str, elapsed_s: float) -> None:
        place = f"step {step.step + 1}/{len(self._plan.steps)}"
        if self._request.profile.entries != ("front",):
            place += f" ({step.entry})"
        self._show(step, place, phase, remaining_s(self._plan, step.step, phase, elapsed_s))

    def _show_visit(self, step: Step, words: str, phase: str, elapsed_s: float) -> None:  # noqa: ARG002 (its end is not known)
        self._show(step, f"step {step.step + 1} ({words})", phase, None)

    def _show(self, step: Step, place: str, phase: str, left_s: float | None) -> None:
        crew = self._crew
        self._progress.show(
            Reading(
                place=place, phase=phase, concurrency=step.concurrency, sessions=crew.sessions,
                accepted=crew.tally.accepted, delivered=crew.tally.delivered, left_s=left_s, gauges=crew.gauges,
            )
        )  # fmt: skip
