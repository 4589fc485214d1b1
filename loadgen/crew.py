"""The other processes of a run and what they say: started, heard, acted on.

The conductor's hands and ears. Starts sink, collector and generator, writes
their rows into the run directory as they come, keeps the state that steps are
steered by (gauges, what is on its way, reasons to stop), and proves with one
message that mail comes out where it should. When a step or a run goes on to
its next phase is decided elsewhere.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

from loadgen.chain.spec import Chain
from loadgen.child import Child, python_module
from loadgen.collecting import ClockOffset, describe_collector, describe_own_part, measure_clock, wait_until_ready
from loadgen.errors import UnreachableError, UsageError
from loadgen.profile import Profile
from loadgen.progress import Progress
from loadgen.records import BEFORE_FIRST_STEP, RunWriter
from loadgen.tally import Tally
from loadgen.units import format_size
from loadgen.workers import Workers, start_generator

__all__ = ["Crew"]

_PROBE_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 10.0
_RESTART_AFTER_S = (0.0, 1.0, 2.0, 4.0)
"""Waits before each attempt to start a collector again: a connection that broke may take a moment to come back."""
_MOST_RESTARTS = 10
"""Of one run; something is wrong with a collector that dies more often."""


class Crew:
    """Sink, collector and generator of one run, and the state they report."""

    def __init__(
        self, profile: Profile, profile_text: str, writer: RunWriter, progress: Progress, *, allow_backlog: bool,
        workers: Workers | None = None,
    ) -> None:  # fmt: skip
        self.profile = profile
        self.writer = writer
        self.progress = progress
        self._profile_text = profile_text
        self._allow_backlog = allow_backlog
        self._workers = workers
        self._lost_workers = 0
        self._workers_met: dict[str, float] = {}
        """Number of each worker to how far its clock may be off, seconds."""
        self._step = -1
        """Of the latest rows."""
        self.origin = time.monotonic()
        """Of the run's clock, on the monotonic one."""
        self.run_id = os.urandom(4).hex()
        self.tally = Tally()
        self.children: dict[str, Child] = {}
        self.gauges: dict[str, float] = {}
        self._backlog = 0.0
        """Messages that were in the queue before ours."""
        self.empty_since: float | None = None
        self.resting_since: float | None = None
        """Since when all processes of the filter have been there and free."""
        self.sessions = 0
        self.opened = 0
        """Places of the present step whose first session has opened."""
        self.closed = asyncio.Event()
        self.stop_step = ""
        """Why the present step must end early; empty: it need not."""
        self.stop_run = ""
        """Why no further step may begin; empty: they may."""
        self.nothing_comes_out = False
        """The sink, or a chain that is a process of ours, has died: no drain will show anything more."""
        self.interrupts = 0
        self.interrupted = asyncio.Event()
        self.chain: Chain
        self.first_session = 0
        """Number of the first session; a run that is continued has some already."""
        self.earlier_messages = 0
        """Messages of the run that is continued."""
        self._stack: AsyncExitStack
        self._clock: ClockOffset | None = None
        """Of the collector's host, where that is another one."""
        self._log_places: dict[str, list[int]] = {}
        """How far the logs have been read; a collector that is started again goes on there."""
        self._restarting: asyncio.Task[None] | None = None
        self._restarts = 0

    def now(self) -> float:
        """Return the present instant on the run's clock, seconds."""
        return time.monotonic() - self.origin

    def remark(self, source: str, kind: str, text: str) -> None:
        """Write down an incident."""
        self.writer.write_rows("remark", [(self.now(), source, kind, text)])

    def record_host(self, described: dict[str, Any]) -> None:
        """Write down the chain's host, as `host.describe_chain_host` has it."""
        for key in ("host", "software", "settings"):
            self.writer.write_meta(key, described[key])
        if described["unread"]:
            self.remark("run", "settings-unknown", described["unread"])

    def interrupt(self) -> None:
        """Stop the load, drain, and begin nothing more; the second time, do not drain."""
        self.interrupts += 1
        self.interrupted.set()
        self.stop_run = self.stop_run or "interrupted by the user"
        self.stop_step = self.stop_step or "interrupted by the user"
        if self.interrupts == 1:
            self.remark("run", "interrupted", "interrupted by the user")
            self.progress.say("interrupted: stopping the load, draining, writing what there is (again: do not drain)")

    async def start_children(self, stack: AsyncExitStack, entries: dict[str, dict[str, Any]]) -> None:
        """Start sink, collector and generator; *stack* ends them. *entries* are where to send, by name."""
        chain, directory, self._stack = self.chain, self.writer.directory, stack
        stack.push_async_callback(self._end_restart)
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="loadgen-"))
        notify = f"{sockets}/arrivals"
        common = {"clock_origin": self.origin, "run_id": self.run_id, "notify": notify}
        sink_settings = {**common, "host": chain.sink.host, "port": chain.sink.port}
        await self._start(stack, "sink", "loadgen.traffic.sink", sink_settings)
        generator_settings = {
            **common, "entries": entries, "profile_text": self._profile_text,
            "first_session": self.first_session,
        }  # fmt: skip
        await asyncio.gather(
            self._start_collector(),
            start_generator(
                stack, self.children, generator_settings, self._workers, directory, self.take_line, self.progress.say
            ),
        )  # fmt: skip
        self._watch_own_processes()
        self.progress.say(f"run directory: {directory}")

    async def _start(self, stack: AsyncExitStack, name: str, module: str, settings: dict[str, Any]) -> None:
        child = self.children[name] = Child(name, self.take_line)
        child.expect("ready")
        await child.start(python_module(module), settings, self.writer.directory / f"{name}.log")
        stack.push_async_callback(child.end)
        try:
            await child.receive("ready", _START_TIMEOUT_S)
        except TimeoutError as error:
            raise UsageError(str(error)) from error
        except UsageError as error:
            place = f"{self.chain.sink}: cannot listen there: " if name == "sink" else ""
            raise UsageError(f"{place}{error}") from None

    async def _start_collector(self) -> None:
        """Start the collector; where it is on another host, also one here for our own processes.

        Raises:
            UsageError: it does not start.
        """
        if self.chain.collector is not None and "own" not in self.children:
            settings = describe_own_part(self.chain, self.origin)
            await self._start(self._stack, "own", "loadgen.collect.collector", settings)
        child = self.children["collector"] = Child("collector", self.take_line)
        command, settings = describe_collector(self.chain, self.origin, self._log_places)
        try:
            await child.start(command, settings, self.writer.directory / "collector.log")
            self._stack.push_async_callback(child.end)
            self._clock = await wait_until_ready(child, self.chain, self.origin)
        except (TimeoutError, OSError) as error:
            raise UsageError(f"collector: {error}") from error
        if self._clock is not None:
            self.writer.write_meta("collector_clock", {"ahead_s": self._clock.ahead_s, "error_s": self._clock.error_s})

    async def _restart_collector(self, text: str) -> None:
        """Start it again after it has died; what the logs said meanwhile is read, gauges of the time between are missing."""
        since, problem = self.now(), text
        for wait_s in _RESTART_AFTER_S if self._restarts <= _MOST_RESTARTS else ():
            await asyncio.sleep(wait_s)
            try:
                await self._start_collector()
            except UsageError as error:
                problem = str(error)
                continue
            self._watch_own_processes()
            gap_s = self.now() - since
            self.remark("collector", "collector-gap", f"{text}; started again, no reading for {gap_s:.1f} s")
            self.progress.say(f"the collector {text}; it was started again after {gap_s:.1f} s")
            return
        self.remark("collector", "exit", problem)
        self.stop_run = self.stop_run or f"collector {problem}"
        self.stop_step = self.stop_step or self.stop_run

    async def _end_restart(self) -> None:
        """Give up an attempt that is still going on when the run is over."""
        if self._restarting is not None:
            self._restarting.cancel()
            with suppress(asyncio.CancelledError):
                await self._restarting

    def _watch_own_processes(self) -> None:
        watch = {name: child.pid for name, child in self.children.items() if name != "own"}
        watcher = self.children.get("own") or self.children["collector"]
        watcher.tell({"command": "watch", "watch": {**watch, "conductor": os.getpid()}})

    async def check_clock(self) -> None:
        """Write down how far the clock of the chain's host has drifted from ours since the run began."""
        if self._clock is None:
            return
        try:
            # its instants count from the run's origin as it was told
            now = await measure_clock(self.children["collector"], self.origin)
        except (TimeoutError, UsageError) as error:
            self.remark("collector", "collector-gap", f"its clock was not compared again: {error}")
            return
        known = {"ahead_s": self._clock.ahead_s, "error_s": self._clock.error_s, "drift_s": now.ahead_s}
        self.writer.write_meta("collector_clock", known)

    def _lose_worker(self, line: dict[str, Any]) -> None:
        """Account for the messages of a worker that is gone: those it had no time to report may have gone out, or not."""
        self._lost_workers += 1
        ids = [f"{self.run_id}.{number}" for number in range(line["first"], line["numbered"])]
        self._record_unknown(self.writer.find_unrecorded(ids))
        text = f"worker {line['worker'] + 1} was lost"
        self.remark("load", "worker-lost", text)
        self.progress.say(text)
        if self.profile.limits.worker_loss == "end":
            self.stop_step = self.stop_step or f"worker-lost: {text}"
            self.stop_run = self.stop_run or self.stop_step

    def _record_unknown(self, message_ids: Sequence[str]) -> None:
        now, recipients = self.now(), self.profile.message.recipients
        rows = [
            [
                one,
                self._step,
                None,
                None,
                recipients,
                None,
                None,
                now,
                None,
                None,
                "unknown",
                None,
                "its worker was lost",
            ]
            for one in message_ids
        ]
        self._take_rows("message", rows)

    def take_line(self, child: str, line: dict[str, Any]) -> None:
        """Record or act on one line of a child."""
        if "table" in line:
            self._take_rows(line["table"], line["rows"])
            return
        match line["event"]:
            case "tick" if child == "collector":
                self._log_places = line["places"]
                self._take_gauges(line["values"])
            case "described":
                self.record_host(line)
            case "load":
                self.sessions, self.opened = line["sessions"], line["opened"]
            case "gone":
                ids = line["message_ids"]
                self.tally.add_gone(ids)
                self.children["generator"].tell({"command": "gone", "ids": ids})
            case "limit":
                self.stop_step = f"{line['kind']}: {line['text']}"
                if line["kind"] != "backlog-limit":
                    self.stop_run = self.stop_step
            case "closed":
                self.closed.set()
            case "worker_lost":
                self._lose_worker(line)
            case "worker":
                self._workers_met[str(line["worker"] + 1)] = line["clock_error_s"]
                self.writer.write_meta("workers", self._workers_met)
            case "locust":
                self.children["generator"].let_end()  # that was its last word
                # what a lost worker had counted and not yet told its master is missing there
                known = not self._lost_workers
                requests = self.earlier_messages + line["requests"] if known else None
                self.writer.write_meta(
                    "locust", {"requests": requests, "failures": line["failures"] if known else None}
                )
            case "unavailable":
                text = f"{line['reading']}: {line['reason']}"
                self.remark(child, "unavailable", text)
            case "foreign":
                self.writer.write_meta("foreign_arrivals", line["count"])
            case "died" | "failed":
                self._take_death(child, line.get("text") or line.get("reason", ""))

    def _take_rows(self, table: str, rows: list[list[Any]]) -> None:
        if table == "arrival":
            probe = f"{self.run_id}.probe"
            if any(row[0] == probe for row in rows):
                rows = [row for row in rows if row[0] != probe]
                self.children["sink"].settle("probe", {})
            self.tally.add_arrivals(rows)
        elif table == "message":
            self._step = max(self._step, *(row[1] for row in rows), -1)
            self.tally.add_messages(rows)
        self.writer.write_rows(table, rows)

    def _take_gauges(self, values: dict[str, float]) -> None:
        self.gauges = values
        self.writer.tick()
        depth = [
            values[f"queue.{name}"]
            for name in ("incoming", "active", "deferred", "maildrop")
            if f"queue.{name}" in values
        ]
        if not depth or sum(depth) > self._backlog:
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = self.now()
        if values.get("amavis.free", 0.0) < (self.chain.filter_servers or 1):
            self.resting_since = None
        elif self.resting_since is None:
            self.resting_since = self.now()
        free, least = values.get("queue.free_bytes"), self.profile.limits.free_disk
        if free is not None and free < least and not self.stop_run:
            text = f"{format_size(free)} free where the queue is, limits.free_disk is {format_size(least)}"
            self.stop_run = self.stop_step = f"disk-limit: {text}"
            self.remark("run", "disk-limit", text)

    def _take_death(self, child: str, text: str) -> None:
        if child == "collector":
            # nobody sees the queue or the disk meanwhile
            self.gauges, self.empty_since, self.resting_since = {}, None, None
            if self._restarting is None or self._restarting.done():
                self._restarts += 1
                self._restarting = asyncio.create_task(self._restart_collector(text))
            return
        self.remark(child, "exit", text)
        if child.startswith("worker-"):
            return  # Locust's master says what that means
        if child in ("sink", "reference"):
            self.nothing_comes_out = True
        self.stop_run = self.stop_run or f"{child} {text}"
        self.stop_step = self.stop_step or self.stop_run
        if child == "generator":
            self.closed.set()

    async def check_ready(self) -> None:
        """Make sure that the queue is empty, the disk has room, and mail comes out at the sink.

        Raises:
            UsageError: there is mail in the queue, or no room.
            UnreachableError: the probe did not come through.
        """
        held = {name: self.gauges.get(f"queue.{name}", 0.0) for name in ("incoming", "active", "deferred", "maildrop")}
        self._backlog = sum(held.values())
        if self._backlog and self._allow_backlog:
            # what is there now is not ours: it is told apart from what a step leaves
            collector = self.children["collector"]
            collector.expect("snapshot")
            collector.tell({"command": "snapshot", "step": BEFORE_FIRST_STEP})
            await collector.receive("snapshot", _ANSWER_TIMEOUT_S)
        elif self._backlog:
            name = max(held, key=lambda n: held[n])
            raise UsageError(
                f"front/{name} already holds {held[name]:.0f} messages; drain it, or pass --allow-backlog to measure anyway"
            )
        if self.stop_run.startswith("disk-limit"):
            raise UsageError(f"{self.stop_run}; make room, or lower the limit in the profile")
        if self.stop_run:
            return
        probing = asyncio.create_task(self._probe_all())
        interrupted = asyncio.create_task(self.interrupted.wait())
        try:
            await asyncio.wait((probing, interrupted), return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                probing.result()
        finally:
            probing.cancel()
            interrupted.cancel()

    async def _probe_all(self) -> None:
        for entry in self.profile.entries:
            await self._probe(entry)

    async def _probe(self, entry: str) -> None:
        """Send one message and wait until it comes out at the sink.

        Raises:
            UnreachableError: it was not accepted, or did not come out.
        """
        place = str(self.chain.front) if entry == "front" else f"entry {entry}"
        generator, sink = self.children["generator"], self.children["sink"]
        generator.expect("probe")
        sink.expect("probe")
        generator.tell({"command": "probe", "entry": entry})
        try:
            said = await generator.receive("probe", _PROBE_TIMEOUT_S)
        except TimeoutError as error:
            raise UnreachableError(f"{place}: {error}") from error
        if said["outcome"] != "accepted":
            text = f"the first message was {said['outcome']}: {said['code'] or ''} {said['reply']}"
            raise UnreachableError(f"{place}: {text}")
        try:
            await sink.receive("probe", _PROBE_TIMEOUT_S)
        except TimeoutError:
            domain = self.profile.message.recipient_domain
            raise UnreachableError(
                f"{self.chain.sink}: {place} accepted a message {_PROBE_TIMEOUT_S:g} s ago and it has not come out "
                f"here; does the chain deliver {domain} to this address?"
            ) from None

    async def finish_generator(self) -> None:
        """Let the generator end, and take its totals."""
        generator = self.children["generator"]
        for name, child in self.children.items():
            if name.startswith("worker-"):
                child.let_end()
        generator.expect("locust")
        generator.tell({"command": "quit"})
        try:
            await generator.receive("locust", _START_TIMEOUT_S)
        except (TimeoutError, UsageError) as error:
            self.stop_run = self.stop_run or f"generator gave no totals: {error}"
        if self._lost_workers:
            # what a lost worker sent after it last said how far it was has come out, or is nowhere
            self._record_unknown(self.writer.find_orphans())

    async def ask_collector(self, event: str, command: dict[str, Any]) -> None:
        """Give the collector a command and wait until it has carried it out; a failure is remarked on."""
        collector = self.children["collector"]
        collector.expect(event)
        collector.tell(command)
        try:
            await collector.receive(event, _ANSWER_TIMEOUT_S)
        except (TimeoutError, UsageError) as error:
            self.remark("collector", "collector-gap", f"no {event}: {error}")
