"""Conduct one run: the only file that joins the chain, the traffic and the collectors.

Brings the chain up, starts sink, collector and generator, proves with one
message that mail comes out where it should, then takes the steps of the plan
through their phases, and puts everything away again whatever happens. Rows
go into the run directory as they come; nothing is analysed here.
"""

import asyncio
import os
import signal
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen import __version__
from loadgen.chain.choice import ChainChoice
from loadgen.chain.opening import OpenChain, open_chain
from loadgen.chain.spec import Chain
from loadgen.child import Child, python_module
from loadgen.errors import ExitCode, LoadgenError, UnreachableError, UsageError
from loadgen.host import describe_host, describe_software
from loadgen.plan import Plan, Step, make_plan, next_phase, remaining_s
from loadgen.profile import Profile
from loadgen.progress import Progress, Reading
from loadgen.records import BEFORE_FIRST_STEP, RunReader, RunWriter, make_run_directory
from loadgen.safety import check_domain, resolve_target
from loadgen.tally import Tally
from loadgen.units import format_size

__all__ = ["RunRequest", "conduct"]

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROBE_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 30.0
_TURN_S = 0.1
_NOTHING_LEFT_S = 2.0
"""Queues empty for this long, and messages still missing: they are not in the chain any more."""
_REST_S = 1.0
"""A child that is about to retire looks free for a moment; none does for this long."""
_INTERRUPTED_DRAIN_S = 10.0
_ABORT_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 10.0


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


async def conduct(request: RunRequest, progress: Progress) -> tuple[Path, ExitCode]:
    """Carry out *request* and return the run directory and how the run ended.

    The directory exists, and holds what was recorded, also when the run ended early.

    Raises:
        LoadgenError: before the first step: refused, unreachable, or not possible here.
    """
    message = request.profile.message
    check_domain(message.recipient_domain, "recipient", request.choice.allow.domains)
    check_domain(message.sender_domain, "sender", request.choice.allow.domains)
    if request.choice.chain is not None:
        front = request.choice.chain.front
        resolve_target(front.host, front.port, request.choice.allow.targets)
    directory = make_run_directory(request.output, request.profile_name, time.time())
    try:
        with RunWriter(directory) as writer:
            exit_code = await _Conductor(request, writer, progress).run()
    except LoadgenError:
        if not _has_steps(directory):
            _remove_unused(directory)
        raise
    return directory, exit_code


def _has_steps(directory: Path) -> bool:
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

    def __init__(self, request: RunRequest, writer: RunWriter, progress: Progress) -> None:
        self._request = request
        self._writer = writer
        self._progress = progress
        self._plan: Plan = make_plan(request.profile)
        self._origin = time.monotonic()
        self._run_id = os.urandom(4).hex()
        self._tally = Tally()
        self._children: dict[str, Child] = {}
        self._gauges: dict[str, float] = {}
        self._backlog = 0.0
        """Messages that were in the queue before ours."""
        self._empty_since: float | None = None
        self._resting_since: float | None = None
        """Since when all processes of the filter have been there and free."""
        self._sessions = 0
        self._opened = 0
        """Places of the present step whose first session has opened."""
        self._closed = asyncio.Event()
        self._stop_step = ""
        """Why the present step must end early; empty: it need not."""
        self._stop_run = ""
        """Why no further step may begin; empty: they may."""
        self._interrupts = 0
        self._interrupted = asyncio.Event()
        self._chain: Chain

    # -- the whole ----------------------------------------------------------------------------------------

    async def run(self) -> ExitCode:
        loop = asyncio.get_running_loop()
        # one that is ignored was ignored on purpose (nohup)
        interrupts = [number for number in _INTERRUPTS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in interrupts:
            loop.add_signal_handler(number, self._interrupt)
        request = self._request
        directory = self._writer.directory
        (directory / "profile.toml").write_text(request.profile_text)
        for key, value in (
            ("version", __version__), ("profile_name", request.profile_name), ("profile_text", request.profile_text),
            ("profile", request.profile.model_dump(mode="json")), ("workload_hash", request.profile.workload_hash),
            ("seed", request.profile.seed), ("chain_choice", request.choice.why), ("started_at", time.time()),
            ("run_id", self._run_id),
        ):  # fmt: skip
            self._writer.write_meta(key, value)
        try:
            async with AsyncExitStack() as stack:
                opened = await stack.enter_async_context(
                    open_chain(request.choice, self._origin, directory, self._take_line)
                )
                self._chain = opened.chain
                self._record_chain(opened)
                await self._start_children(stack, opened.host)
                await self._check_ready()
                for step in self._plan.steps:
                    if self._stop_run:
                        break
                    await self._take_step(step)
                await self._finish_generator()
        finally:
            self._writer.write_meta("ended_at", self._now())
            for number in interrupts:
                loop.remove_signal_handler(number)
        self._writer.write_meta("end_reason", self._stop_run)
        self._writer.write_meta("status", "incomplete" if self._stop_run else "complete")
        if self._interrupts:
            return ExitCode.INTERRUPTED
        if self._stop_run.startswith("front-unreachable") and not self._tally.accepted:
            return ExitCode.UNREACHABLE
        return ExitCode.INVALID_RESULT if self._stop_run else ExitCode.OK

    def _now(self) -> float:
        return time.monotonic() - self._origin

    def _remark(self, source: str, kind: str, text: str) -> None:
        self._writer.write_rows("remark", [(self._now(), source, kind, text)])

    def _interrupt(self) -> None:
        self._interrupts += 1
        self._interrupted.set()
        self._stop_run = self._stop_run or "interrupted by the user"
        self._stop_step = self._stop_step or "interrupted by the user"
        if self._interrupts == 1:
            self._remark("run", "interrupted", "interrupted by the user")
            self._progress.say("interrupted: stopping the load, draining, writing what there is (again: do not drain)")

    def _record_chain(self, opened: OpenChain) -> None:
        """Write down the chain, its settings, the software and the machine, before anything is sent."""
        chain = opened.chain
        queue = chain.postfix.queue_directory if chain.postfix is not None else None
        self._writer.write_meta("chain", chain.model_dump(mode="json"))
        self._writer.write_meta("settings", opened.settings)
        self._writer.write_meta("host", describe_host(queue))
        self._writer.write_meta("software", describe_software(real_chain=chain.kind != "reference"))
        (self._writer.directory / "chain.json").write_text(chain.model_dump_json(indent=2) + "\n")
        if opened.unread:
            self._remark("run", "settings-unknown", opened.unread)

    # -- the other processes ------------------------------------------------------------------------------

    async def _start_children(self, stack: AsyncExitStack, front: str) -> None:
        chain, directory = self._chain, self._writer.directory
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="loadgen-"))
        notify = f"{sockets}/arrivals"
        common = {"clock_origin": self._origin, "run_id": self._run_id, "notify": notify}
        sink_settings = {**common, "host": chain.sink.host, "port": chain.sink.port}
        await self._start(stack, "sink", "loadgen.traffic.sink", sink_settings)
        collector_settings = {
            "clock_origin": self._origin,
            "chain": chain.model_dump(mode="json"),
            "rate_hz": 4.0,
            "watch": {},
        }
        generator_settings = {
            **common, "host": front, "port": chain.front.port, "profile_text": self._request.profile_text,
        }  # fmt: skip
        await asyncio.gather(
            self._start(stack, "collector", "loadgen.collect.collector", collector_settings),
            self._start(stack, "generator", "loadgen.traffic.generator", generator_settings),
        )
        watch = {name: self._children[name].pid for name in ("sink", "collector", "generator")}
        self._children["collector"].tell({"command": "watch", "watch": {**watch, "conductor": os.getpid()}})
        self._progress.say(f"run directory: {directory}")

    async def _start(self, stack: AsyncExitStack, name: str, module: str, settings: dict[str, Any]) -> None:
        child = self._children[name] = Child(name, self._take_line)
        child.expect("ready")
        await child.start(python_module(module), settings, self._writer.directory / f"{name}.log")
        stack.push_async_callback(child.end)
        try:
            await child.receive("ready", _START_TIMEOUT_S)
        except TimeoutError as error:
            raise UsageError(str(error)) from error
        except UsageError as error:
            place = f"{self._chain.sink}: cannot listen there: " if name == "sink" else ""
            raise UsageError(f"{place}{error}") from None

    def _take_line(self, child: str, line: dict[str, Any]) -> None:
        """Record or act on one line of a child."""
        if "table" in line:
            self._take_rows(line["table"], line["rows"])
            return
        match line["event"]:
            case "tick":
                self._take_gauges(line["values"])
            case "load":
                self._sessions, self._opened = line["sessions"], line["opened"]
            case "gone":
                ids = line["message_ids"]
                self._tally.add_gone(ids)
                self._children["generator"].tell({"command": "gone", "ids": ids})
            case "limit":
                self._stop_step = f"{line['kind']}: {line['text']}"
                if line["kind"] != "backlog-limit":
                    self._stop_run = self._stop_step
            case "closed":
                self._closed.set()
            case "locust":
                self._writer.write_meta("locust", {"requests": line["requests"], "failures": line["failures"]})
            case "unavailable":
                text = f"{line['reading']}: {line['reason']}"
                self._remark(child, "unavailable", text)
            case "foreign":
                self._writer.write_meta("foreign_arrivals", line["count"])
            case "died" | "failed":
                self._take_death(child, line.get("text") or line.get("reason", ""))

    def _take_rows(self, table: str, rows: list[list[Any]]) -> None:
        if table == "arrival":
            probe = f"{self._run_id}.probe"
            if any(row[0] == probe for row in rows):
                rows = [row for row in rows if row[0] != probe]
                self._children["sink"].settle("probe", {})
            self._tally.add_arrivals(rows)
        elif table == "message":
            self._tally.add_messages(rows)
        self._writer.write_rows(table, rows)

    def _take_gauges(self, values: dict[str, float]) -> None:
        self._gauges = values
        self._writer.tick()
        depth = [
            values[f"queue.{name}"]
            for name in ("incoming", "active", "deferred", "maildrop")
            if f"queue.{name}" in values
        ]
        if not depth or sum(depth) > self._backlog:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = self._now()
        if values.get("amavis.free", 0.0) < (self._chain.filter_servers or 1):
            self._resting_since = None
        elif self._resting_since is None:
            self._resting_since = self._now()
        free, least = values.get("queue.free_bytes"), self._request.profile.limits.free_disk
        if free is not None and free < least and not self._stop_run:
            text = f"{format_size(free)} free where the queue is, limits.free_disk is {format_size(least)}"
            self._stop_run = self._stop_step = f"disk-limit: {text}"
            self._remark("run", "disk-limit", text)

    def _take_death(self, child: str, text: str) -> None:
        self._remark(child, "exit", text)
        self._stop_run = self._stop_run or f"{child} {text}"
        self._stop_step = self._stop_step or self._stop_run
        if child == "collector":  # nobody sees the queue or the disk any more
            self._gauges, self._empty_since, self._resting_since = {}, None, None
        elif child == "generator":
            self._closed.set()

    # -- before the first step ----------------------------------------------------------------------------

    async def _check_ready(self) -> None:
        """Make sure that the queue is empty, the disk has room, and mail comes out at the sink.

        Raises:
            UsageError: there is mail in the queue, or no room.
            UnreachableError: the probe did not come through.
        """
        held = {name: self._gauges.get(f"queue.{name}", 0.0) for name in ("incoming", "active", "deferred", "maildrop")}
        self._backlog = sum(held.values())
        if self._backlog and self._request.allow_backlog:
            # what is there now is not ours: it is told apart from what a step leaves
            collector = self._children["collector"]
            collector.expect("snapshot")
            collector.tell({"command": "snapshot", "step": BEFORE_FIRST_STEP})
            await collector.receive("snapshot", _ANSWER_TIMEOUT_S)
        elif self._backlog:
            name = max(held, key=lambda n: held[n])
            raise UsageError(
                f"front/{name} already holds {held[name]:.0f} messages; drain it, or pass --allow-backlog to measure anyway"
            )
        if self._stop_run.startswith("disk-limit"):
            raise UsageError(f"{self._stop_run}; make room, or lower the limit in the profile")
        if self._stop_run:
            return
        probing = asyncio.create_task(self._probe())
        interrupted = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait((probing, interrupted), return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                probing.result()
        finally:
            probing.cancel()
            interrupted.cancel()

    async def _probe(self) -> None:
        """Send one message and wait until it comes out at the sink.

        Raises:
            UnreachableError: it was not accepted, or did not come out.
        """
        generator, sink = self._children["generator"], self._children["sink"]
        generator.expect("probe")
        sink.expect("probe")
        generator.tell({"command": "probe"})
        try:
            said = await generator.receive("probe", _PROBE_TIMEOUT_S)
        except TimeoutError as error:
            raise UnreachableError(f"{self._chain.front}: {error}") from error
        if said["outcome"] != "accepted":
            text = f"the first message was {said['outcome']}: {said['code'] or ''} {said['reply']}"
            raise UnreachableError(f"{self._chain.front}: {text}")
        try:
            await sink.receive("probe", _PROBE_TIMEOUT_S)
        except TimeoutError:
            domain = self._request.profile.message.recipient_domain
            raise UnreachableError(
                f"{self._chain.sink}: the front accepted a message {_PROBE_TIMEOUT_S:g} s ago and it has not come out "
                f"here; does the chain deliver {domain} to this address?"
            ) from None

    # -- steps --------------------------------------------------------------------------------------------

    async def _take_step(self, step: Step) -> None:
        self._writer.write_rows(
            "step",
            [
                (
                    step.step,
                    self._chain.processes,
                    "stock",
                    step.concurrency,
                    step.rate_per_s,
                    step.warm_up_s,
                    step.hold_s,
                )
            ],
        )
        self._stop_step, self._sessions, self._opened = "", 0, 0
        self._closed.clear()
        phase, since = "settle", self._now()
        self._announce(step, phase, since)
        snapshot_taken = False
        ramp_limit_s = self._request.profile.session.connect_timeout_s + 5.0
        while phase != "end":
            await asyncio.sleep(_TURN_S)
            now = self._now()
            open_ = self._opened >= step.concurrency or now - since > ramp_limit_s
            drained = phase == "drain" and self._is_drained()
            interrupted = phase == "drain" and self._interrupts and now - since > _INTERRUPTED_DRAIN_S
            new = next_phase(
                step, phase, now - since, settled=self._is_settled(), sessions_open=open_,
                drained=drained or bool(interrupted) or self._interrupts > 1, stop=bool(self._stop_step),
            )  # fmt: skip
            if new == "end" and not snapshot_taken:
                await self._close_step(step, drained)
                snapshot_taken = True
            if new != phase:
                phase, since = new, self._now()
                self._announce(step, phase, since)
            self._show(step, phase, now - since)

    def _announce(self, step: Step, phase: str, at: float) -> None:
        self._writer.write_rows("phase", [(at, step.step, phase)])
        self._children["generator"].tell({"command": "phase", "step": step.step, "phase": phase})

    def _is_drained(self) -> bool:
        if not self._closed.is_set():
            return False
        if "queue.active" not in self._gauges:
            return not self._tally.on_the_way
        if self._empty_since is None:
            return False
        if not self._tally.on_the_way:
            return True
        return self._now() - self._empty_since > _NOTHING_LEFT_S

    def _is_settled(self) -> bool:
        """Return whether the filter is at rest; a chain whose processes cannot be seen always is."""
        if self._chain.kind == "reference" or "amavis.free" not in self._gauges:
            return True
        return self._resting_since is not None and self._now() - self._resting_since >= _REST_S

    async def _close_step(self, step: Step, drained: bool) -> None:
        """End what is still open, read the logs up to here, and list what is left in the queues."""
        if not self._closed.is_set():
            self._children["generator"].tell({"command": "abort"})
            with suppress(TimeoutError):  # a generator that does not answer is dealt with at the end of the run
                await asyncio.wait_for(self._closed.wait(), _ABORT_TIMEOUT_S)
        collector = self._children["collector"]
        for event, command in (
            ("flushed", {"command": "flush"}),
            ("snapshot", {"command": "snapshot", "step": step.step}),
        ):
            collector.expect(event)
            collector.tell(command)
            try:
                await collector.receive(event, _ANSWER_TIMEOUT_S)
            except (TimeoutError, UsageError) as error:
                self._remark("collector", "collector-gap", f"no {event}: {error}")
        if not drained:
            left = len(self._tally.on_the_way)
            text = f"step {step.step + 1}: not drained after {step.drain_limit_s:g} s, {left} messages not delivered"
            self._remark("run", "not-drained", text)
            # the next step would start with this one's mail
            self._stop_run = self._stop_run or f"not-drained: {text}"

    async def _finish_generator(self) -> None:
        generator = self._children["generator"]
        generator.expect("locust")
        generator.tell({"command": "quit"})
        try:
            await generator.receive("locust", _START_TIMEOUT_S)
        except (TimeoutError, UsageError) as error:
            self._stop_run = self._stop_run or f"generator gave no totals: {error}"

    def _show(self, step: Step, phase: str, elapsed_s: float) -> None:
        self._progress.show(
            Reading(
                step=step.step, steps=len(self._plan.steps), phase=phase, concurrency=step.concurrency,
                sessions=self._sessions, accepted=self._tally.accepted, delivered=self._tally.delivered,
                left_s=remaining_s(self._plan, step.step, phase, elapsed_s), gauges=self._gauges,
            )
        )  # fmt: skip
