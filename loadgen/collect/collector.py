"""The collector: the process that samples gauges on a fixed grid and turns log lines into rows.

    python -m loadgen.collect.collector

Settings (one JSON line): `chain`, `clock_origin`, `rate_hz`, `watch`
{name: pid}, `places` {log: [device, inode, offset]} of an earlier one, and
`own_only` where the chain is on another host. A `clock_origin` of null is
waited for: it is told once the clocks of both hosts have been compared. Commands:

    {"command": "clock"}                         answers "clock" with the present instant
    {"command": "origin", "clock_origin": s}     the origin that was waited for
    {"command": "watch", "watch": {name: pid}}   processes of ours whose CPU time is wanted
    {"command": "flush"}                         read the logs to their ends now; answers "flushed"
    {"command": "snapshot", "step": n}           rows of `queued`; then answers "snapshot" with the step

Events: "ready" after the first sample, "tick" with the gauges of each sample and
the places up to which logs have been read, "described" with facts about the host,
"gone" with the ids of messages that were blocked or bounced and will not arrive,
"unavailable" once for each reading that cannot be had, "flushed", "snapshot".
It stops when its input ends. A tick that comes too late is left out rather
than made up for; a gap of more than two seconds is a remark.
"""

import math
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from loadgen.chain.spec import Chain
from loadgen.channel import Outlet, parse_line, read_settings
from loadgen.collect import host, processes, queues, reference, sockets
from loadgen.collect.amavislog import AmavislogParser
from loadgen.collect.follow import LogFollower
from loadgen.collect.logline import Row
from loadgen.collect.maillog import MaillogParser
from loadgen.collect.sampler import Sampler, Target
from loadgen.errors import CollectorError

__all__ = ["REGISTRY", "Collector", "main"]

REGISTRY: Sequence[Callable[[Target], list[Sampler]]] = (
    queues.make_samplers,
    processes.make_samplers,
    sockets.make_samplers,
    host.make_samplers,
    reference.make_samplers,
)
"""Everything that makes samplers, in the order in which they are asked."""

_GAP_S = 2.0
_STDIN = 0


class _Parser(Protocol):
    """Turns a line into rows."""

    def parse(self, line: str, at: float) -> list[Row]:
        """Return the rows of one line."""


class Collector:
    """Samples and follows one chain; knows no clock and no loop of its own."""

    def __init__(
        self,
        chain: Chain,
        outlet: Outlet,
        *,
        proc: str = "/proc",
        places: Mapping[str, Sequence[int]] | None = None,
        own_only: bool = False,
    ) -> None:
        """Begin to look at *chain*; *places*: how far its logs have been read; *own_only*: nothing of the host."""
        places = places or {}
        self._outlet = outlet
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._at = 0.0
        self._last_at: float | None = None
        self._told: set[str] = set()
        self._target = Target(chain, remark=self._add_remark, proc=proc, own_only=own_only)
        registry = (processes.make_samplers,) if own_only else REGISTRY
        self._samplers = [sampler for make in registry for sampler in make(self._target)]
        self._maillog: MaillogParser | None = None
        self._logs: list[tuple[LogFollower, list[_Parser]]] = []
        amavis_log = chain.amavis.log if chain.amavis is not None else None
        if chain.postfix is not None and (path := chain.postfix.maillog) is not None:
            self._maillog = MaillogParser(
                chain.filter.port if chain.filter is not None else None, chain.postfix.syslog_name
            )
            parsers: list[_Parser] = [self._maillog]
            if amavis_log is None:
                parsers.append(AmavislogParser(own_file=False))
            self._logs.append((LogFollower(path, places.get(str(path))), parsers))
        if amavis_log is not None:
            self._logs.append((LogFollower(amavis_log, places.get(str(amavis_log))), [AmavislogParser(own_file=True)]))

    def tick(self, at: float) -> None:
        """Take one sample of everything at the instant *at*, and read what the logs have got since the last."""
        at = self._at = round(at, 6)
        if self._last_at is not None and at - self._last_at > _GAP_S:
            text = f"no reading for {at - self._last_at:.1f} s; the host was too busy, or this process was stopped"
            self._add_remark("collector", "collector-gap", text)
        self._last_at = at
        values: dict[str, float] = {}
        for sampler in self._samplers:
            try:
                values.update(sampler.sample(at))
            except (CollectorError, OSError, ValueError, LookupError) as error:
                self._tell_unavailable(sampler.reading, error)
        self._read_logs(at)
        if self._maillog is not None and self._logs[0][0].found:
            values["queue.pass1"] = self._maillog.count_in_pass(1)
            values["queue.pass2"] = self._maillog.count_in_pass(2)
        values = {name: round(value, 6) for name, value in values.items() if math.isfinite(value)}
        self._rows.setdefault("sample", []).extend((at, name, value) for name, value in values.items())
        self._send()
        places = {str(follower.path): follower.place for follower, _ in self._logs if follower.place is not None}
        self._outlet.write_event("tick", at=at, values=values, places=places)

    def obey(self, command: dict[str, Any], at: float) -> None:
        """Carry out one command of the conductor; one that is not known is left alone."""
        at = self._at = round(at, 6)
        match command.get("command"):
            case "clock":
                self._outlet.write_event("clock", at=at)
            case "watch":
                self._target.watch.update({str(name): int(pid) for name, pid in command["watch"].items()})
            case "flush":
                self._read_logs(at)
                self._send()
                self._outlet.write_event("flushed")
            case "snapshot":
                self._take_snapshot(int(command["step"]))

    def close(self, at: float) -> None:
        """Read the logs once more and let go of them."""
        at = self._at = round(at, 6)
        self._read_logs(at)
        self._send()
        for follower, _ in self._logs:
            follower.close()

    def _take_snapshot(self, step: int) -> None:
        directory = self._target.queue_directory
        if directory is not None:
            try:
                left = queues.list_queue_ids(directory)
            except CollectorError as error:
                self._tell_unavailable("queued", error)
            else:
                self._rows["queued"] = [(self._at, step, queue, queue_id) for queue, queue_id in left]
        self._send()
        self._outlet.write_event("snapshot", step=step)

    def _read_logs(self, at: float) -> None:
        """Turn the new lines of every log into rows, and tell of messages that will not arrive."""
        gone: list[str | None] = []
        for follower, parsers in self._logs:
            try:
                lines = follower.poll(at)
            except OSError as error:
                self._tell_unavailable(str(follower.path), error)
                continue
            if not follower.found:
                self._tell_unavailable(str(follower.path), CollectorError("not there yet"))
            for line in lines:
                for parser in parsers:
                    for table, row in parser.parse(line, at):
                        self._rows.setdefault(table, []).append(row)
                        if table == "scan" and row[2] == "Blocked":
                            gone.append(self._message_of(row))
                        elif table == "delivery" and row[11] == "bounced" and self._maillog is not None:
                            gone.append(self._maillog.message_key(row[2]))
        if ids := [message_id for message_id in gone if message_id]:
            self._outlet.write_event("gone", message_ids=ids)

    def _message_of(self, scan: tuple[Any, ...]) -> str:
        """Return the id of a scanned message; templates may leave it out, then its queue id leads to it."""
        _, _, _, _, queue_id, _, message_id, *_ = scan
        if not message_id and self._maillog is not None:
            message_id = self._maillog.message_key(queue_id)
        return message_id or ""

    def _add_remark(self, source: str, kind: str, text: str) -> None:
        self._rows.setdefault("remark", []).append((self._at, source, kind, text))

    def _tell_unavailable(self, reading: str, error: Exception) -> None:
        if reading not in self._told:
            self._told.add(reading)
            reason = str(error)
            if isinstance(error, OSError) and error.strerror:
                reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            self._outlet.write_event("unavailable", reading=reading, reason=reason)

    def _send(self) -> None:
        for table, rows in self._rows.items():
            if rows:
                self._outlet.write_rows(table, rows)
        self._rows = {}


def main(describe: Callable[[Chain], dict[str, Any]] | None = None) -> None:
    """Run the collector process: settings and commands from standard input, rows to standard output.

    *describe* returns facts about the chain's host, for a conductor that is on another.
    """
    # Ctrl-C reaches the whole process group; the conductor ends us by closing our input
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = read_settings()
    outlet = Outlet()
    chain = Chain.model_validate(settings["chain"])
    try:
        found = settings["clock_origin"] if settings["clock_origin"] is not None else _learn_origin(outlet)
        if found is None:
            return
        origin = float(found)
        if describe is not None:
            outlet.write_event("described", **describe(chain))
        collector = Collector(
            chain, outlet, places=settings.get("places"), own_only=bool(settings.get("own_only"))
        )  # fmt: skip
        collector.obey({"command": "watch", "watch": settings.get("watch", {})}, time.monotonic() - origin)
        collector.tick(time.monotonic() - origin)
        outlet.write_event("ready", pid=os.getpid())
        _run(collector, origin, 1 / float(settings.get("rate_hz", 4.0)))
        collector.close(time.monotonic() - origin)
    except BrokenPipeError:
        pass  # the conductor is gone, and nobody wants the rest


def _learn_origin(outlet: Outlet) -> float | None:
    """Answer with our clock until the run's origin on it is told; None: the input ended before that."""
    unread = b""
    while data := os.read(_STDIN, 65536):
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            command = parse_line(line)
            if command.get("command") == "clock":
                outlet.write_event("clock", at=time.monotonic())
            elif command.get("command") == "origin":
                return float(command["clock_origin"])
    return None


def _run(collector: Collector, origin: float, interval_s: float) -> None:
    """Take a sample at every point of the grid, and commands in between, until the input ends."""
    start, number, unread = time.monotonic(), 1, b""
    while True:
        wait_s = start + number * interval_s - time.monotonic()
        if wait_s <= 0:
            collector.tick(time.monotonic() - origin)
            # points of the grid that have passed meanwhile are left out
            number = int((time.monotonic() - start) / interval_s) + 1
        elif select.select([_STDIN], [], [], wait_s)[0]:
            data = os.read(_STDIN, 65536)
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                collector.obey(parse_line(line), time.monotonic() - origin)


if __name__ == "__main__":
    main()
