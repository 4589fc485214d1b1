"""The reference chain: a stand-in whose capacity is known exactly. It is not a mail server.

A process of its own (`python -m loadgen.chain.reference`) with the stations
of a real chain, on loopback: a front that accepts SMTP and queues, P feed
clients that speak LMTP to S filter servers, reinjection, final delivery to
the sink. Messages really travel; how long the filter keeps one is decided by
`station` from a law, so that answers about the chain can be checked.
"""

import asyncio
import contextlib
import itertools
import json
import math
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import uvloop
from pydantic import Field

from loadgen.chain.chainlog import ChainLog
from loadgen.chain.laws import Law, describe_law, known_delivered_per_s, throughput_per_s
from loadgen.chain.spec import Address, AmavisParts, Chain, PostfixParts, parse_address
from loadgen.chain.station import Station
from loadgen.chain.wire import STREAM_LIMIT, Client, Envelope, Refused, serve_session
from loadgen.channel import Outlet, parse_line, raise_file_limit, read_settings

__all__ = ["ReferenceSettings", "main"]

_DELIVERY_CLIENTS = 20
_RETRY_S = 0.5
_FLUSH_EVERY_S = 0.05
_MESSAGE_ID = re.compile(rb"^Message-ID:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
# Postfix's long queue ids: seconds, microseconds and "z" with an inode, in digits and consonants
_DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


class ReferenceSettings(Law):
    """A law and the process counts on both sides."""

    feed_processes: Annotated[int, Field(ge=1, le=200)] = 4
    filter_servers: Annotated[int, Field(ge=1, le=200)] = 4


@dataclass
class _Queued:
    """A message in the queue."""

    queue_id: str
    message_id: str
    envelope: Envelope
    entered_at: float
    attempts: int = 0


class ReferenceChain:
    """All stations, in one event loop."""

    def __init__(self, settings: ReferenceSettings, directory: Path, sink: Address) -> None:
        self._settings = settings
        self._directory = directory
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._factor = 1.0
        """Of the options in force, on the throughput."""
        self._station = self._make_station()
        self._feeds: list[asyncio.Task[Any]] = []
        self._served: dict[str, asyncio.Future[float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._to_filter: asyncio.Queue[_Queued] = asyncio.Queue()
        self._to_sink: asyncio.Queue[_Queued] = asyncio.Queue()
        self._in_pass = {1: 0, 2: 0}
        self._deferred = 0
        self._free_servers = asyncio.Semaphore(settings.filter_servers)
        self._connected = 0
        self._greeted = 0
        self._scanning = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._servers: list[asyncio.Server] = []
        self._inodes = itertools.count(51**3)
        self._log: ChainLog

    async def start(self) -> Chain:
        """Bind the stations to free ports, start their clients, and return where everything is."""
        ports = {}
        for name, accept in (
            ("front", self._accept_front),
            ("filter", self._accept_filter),
            ("reinjection", self._accept_reinjection),
        ):
            server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=STREAM_LIMIT, backlog=1024)
            ports[name] = Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
            self._servers.append(server)
        self._log = ChainLog(self._directory, ports["filter"].port, ports["reinjection"].port, str(self._sink))
        status = self._directory / "status"
        self._servers.append(await asyncio.start_unix_server(self._answer_status, str(status)))
        self._ports = ports
        self._start_feeds()
        for _ in range(_DELIVERY_CLIENTS):
            self._spawn(self._deliver())
        self._spawn(self._flush_log())
        both = self._settings.feed_processes
        return Chain(
            kind="reference",
            name="reference",
            about="a stand-in with a known capacity; not a mail server",
            sink=self._sink,
            front=ports["front"],
            filter=ports["filter"],
            reinjection=ports["reinjection"],
            processes=both if both == self._settings.filter_servers else None,
            feed_processes=self._settings.feed_processes,
            filter_servers=self._settings.filter_servers,
            destination_concurrency_limit=self._settings.feed_processes,
            postfix=PostfixParts(
                config_directory=None,
                queue_directory=None,
                maillog=self._directory / "maillog",
                syslog_name="reference",
            ),
            amavis=AmavisParts(log=self._directory / "amavis.log"),
            reference_status=status,
            law=describe_law(self._settings),
            known_delivered_per_s=known_delivered_per_s(self._settings),
        )

    async def tune(self, feed_processes: int, filter_servers: int, options: Iterable[str]) -> None:
        """Change the counts of both sides and the options in force; only while nothing is queued.

        Raises:
            RuntimeError: there is mail in the chain.
        """
        if self._in_pass[1] or self._in_pass[2]:
            raise RuntimeError(f"{self._in_pass[1] + self._in_pass[2]} messages are in the chain")
        feeds, self._feeds = self._feeds, []
        for task in feeds:
            task.cancel()
        await asyncio.gather(*feeds, return_exceptions=True)
        self._settings = self._settings.model_copy(
            update={"feed_processes": feed_processes, "filter_servers": filter_servers}
        )  # fmt: skip
        self._factor = math.prod(self._settings.effects.get(name, 1.0) for name in options)
        self._station = self._make_station()
        self._free_servers = asyncio.Semaphore(filter_servers)
        self._start_feeds()

    def _make_station(self) -> Station:
        settings, factor = self._settings, self._factor
        servers = min(settings.feed_processes, settings.filter_servers)
        return Station(servers, lambda busy: factor * throughput_per_s(settings, busy))

    def _start_feeds(self) -> None:
        self._feeds = [self._spawn(self._feed(self._ports["filter"])) for _ in range(self._settings.feed_processes)]

    async def stop(self) -> None:
        """Close everything; what is still queued is gone with the process, as with everything it stood in for."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._log.close()

    def _spawn(self, coroutine: Any) -> "asyncio.Task[Any]":
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    # -- front and queue ----------------------------------------------------------------------------------

    async def _accept_front(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._session(reader, writer, "front.loadgen.test", self._take_at_front)

    async def _take_at_front(self, envelope: Envelope) -> str:
        item = self._enqueue(envelope, pass_number=1)
        self._served[item.queue_id] = self._loop.create_future()
        self._settle(self._station.enter(item.queue_id, item.entered_at))
        self._to_filter.put_nowait(item)
        return f"250 2.0.0 Ok: queued as {item.queue_id}"

    def _enqueue(self, envelope: Envelope, pass_number: int) -> _Queued:
        now = time.monotonic()
        queue_id = self._new_queue_id()
        found = _MESSAGE_ID.search(envelope.content[:65536])
        message_id = found[1].decode("ascii", "replace").strip() if found else "<>"
        # the way it came, as every station of a real chain adds
        station = "reinjection" if pass_number == 2 else "front"
        received = f"Received: from client by {station}.loadgen.test (loadgen reference) id {queue_id}\r\n"
        envelope.content = received.encode() + envelope.content
        self._in_pass[pass_number] += 1
        size, recipients = len(envelope.content), len(envelope.recipients)
        self._log.received(queue_id, message_id, envelope.sender, size, recipients, envelope.origin)
        return _Queued(queue_id, message_id, envelope, now)

    def _new_queue_id(self) -> str:
        now = time.time()
        seconds, micros = int(now), int(now % 1 * 1e6)
        inode = _in_base(next(self._inodes), 51, 1)
        return f"{_in_base(seconds, 52, 6)}{_in_base(micros, 52, 4)}z{inode}"

    # -- station clock ------------------------------------------------------------------------------------

    def _settle(self, completed: list[tuple[str, float]]) -> None:
        """Release completed messages and set the timer for the next one."""
        for key, instant in completed:
            if (future := self._served.get(key)) is not None and not future.done():
                future.set_result(instant)
        if self._timer is not None:
            self._timer.cancel()
        due = self._station.next_completion()
        self._timer = (
            None if due is None else self._loop.call_later(max(0.0, due - time.monotonic()), self._look_at_clock)
        )

    def _look_at_clock(self) -> None:
        self._settle(self._station.advance(time.monotonic()))

    # -- feed and filter ----------------------------------------------------------------------------------

    async def _feed(self, filter_: Address) -> None:
        """One feed client: takes one message at a time to the filter."""
        client = Client(filter_.host, filter_.port, "LHLO feed.loadgen.test")
        try:
            await self._feed_through(client)
        finally:
            client.close()

    async def _feed_through(self, client: Client) -> None:
        # a kept session occupies a filter server even when idle; with more feeds than servers nobody may keep one
        keep = self._settings.feed_processes <= self._settings.filter_servers
        while True:
            item = await self._to_filter.get()
            taken = time.monotonic()
            item.envelope.origin = item.queue_id
            while True:  # as long as it takes: a feed that gave up would take its message and its share of P with it
                try:
                    await client.open()
                    connected = time.monotonic()
                    reply = await client.send(item.envelope)
                    break
                except (Refused, OSError, asyncio.IncompleteReadError):
                    client.close()
                    await asyncio.sleep(_RETRY_S)
            done = time.monotonic()
            if not keep:
                client.close()
            delays = (
                item.entered_at - item.envelope.begun_at, taken - item.entered_at, connected - taken, done - connected,
            )  # fmt: skip
            queued_as = reply.rsplit(" ", 1)[-1].rstrip(")")
            for recipient in item.envelope.recipients:
                self._log.fed(item.queue_id, recipient, delays, queued_as)
            self._log.removed(item.queue_id)
            self._in_pass[1] -= 1

    async def _accept_filter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connected += 1
        reinject = Client("127.0.0.1", self._ports["reinjection"].port, "EHLO filter.loadgen.test")
        try:
            async with self._free_servers:  # until one is free, the connection waits for its greeting
                self._greeted += 1
                tasks = itertools.count(1)
                name = f"{os.getpid():05d}-{self._greeted:02d}"

                async def scan(envelope: Envelope) -> str:
                    return await self._scan(envelope, reinject, f"{name}-{next(tasks)}")

                try:
                    await self._session(reader, writer, "filter.loadgen.test", scan)
                finally:
                    self._greeted -= 1
        finally:
            self._connected -= 1
            reinject.close()

    async def _scan(self, envelope: Envelope, reinject: Client, task: str) -> str:
        """Keep the message for as long as the law says, reinject it, and only then answer."""
        if envelope.origin not in self._served:
            return "550 5.7.1 This filter takes only what came in by the front"
        begun = time.monotonic()
        size = len(envelope.content)
        received = f"Received: from feed by filter.loadgen.test (loadgen reference) with LMTP id {task}\r\n"
        envelope.content = received.encode() + envelope.content
        self._scanning += 1
        try:
            await self._served[envelope.origin]
            reply = await reinject.send(envelope)
        except (Refused, OSError, asyncio.IncompleteReadError) as error:
            return f"451 4.3.0 Not reinjected: {str(error)[:200]}"  # served already, so the next attempt is quick
        finally:
            self._scanning -= 1
        del self._served[envelope.origin]
        queued_as = reply.rsplit(" ", 1)[-1]
        found = _MESSAGE_ID.search(envelope.content[:65536])
        message_id = found[1].decode("ascii", "replace").strip() if found else "<>"
        self._log.scanned(
            task, (envelope.sender, envelope.recipients[0]), envelope.origin, message_id, size, queued_as,
            time.monotonic() - begun,
        )  # fmt: skip
        return f"250 2.0.0 from MTA(smtp:[127.0.0.1]:{self._ports['reinjection'].port}): {reply}"

    # -- reinjection and delivery -------------------------------------------------------------------------

    async def _accept_reinjection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._session(reader, writer, "reinjection.loadgen.test", self._take_back)

    async def _take_back(self, envelope: Envelope) -> str:
        item = self._enqueue(envelope, pass_number=2)
        item.envelope.origin = ""
        self._to_sink.put_nowait(item)
        return f"250 2.0.0 Ok: queued as {item.queue_id}"

    async def _deliver(self) -> None:
        """One delivery client: takes messages to the sink, and keeps those it cannot get rid of."""
        client = Client(self._sink.host, self._sink.port, "EHLO delivery.loadgen.test")
        while True:
            item = await self._to_sink.get()
            taken = time.monotonic()
            recipients = item.envelope.recipients
            try:
                reply = await client.send(item.envelope)
            except (Refused, OSError, asyncio.IncompleteReadError) as error:
                client.close()
                if item.attempts == 0:
                    self._deferred += 1
                item.attempts += 1
                for recipient in recipients:
                    self._log.deferred(item.queue_id, recipient, time.monotonic() - item.entered_at, str(error)[:200])
                self._loop.call_later(_RETRY_S, self._to_sink.put_nowait, item)
                continue
            if item.attempts:
                self._deferred -= 1
            delays = (item.entered_at - item.envelope.begun_at, taken - item.entered_at, 0.0, time.monotonic() - taken)
            for recipient in recipients:
                self._log.delivered(item.queue_id, recipient, delays, reply)
            self._log.removed(item.queue_id)
            self._in_pass[2] -= 1

    # -- common -------------------------------------------------------------------------------------------

    async def _session(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, take: Callable[[Envelope], Any]
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a stream server runs its callback in one)
        self._tasks.add(task)
        try:
            await serve_session(reader, writer, name, take)
        except asyncio.CancelledError:
            writer.close()  # the chain is being stopped
        finally:
            self._tasks.discard(task)

    async def _flush_log(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            self._log.flush()

    async def _answer_status(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        busy = self._scanning
        held = max(0, self._greeted - busy)
        gauges = {
            "queue.incoming": 0,
            "queue.active": self._in_pass[1] + self._in_pass[2] - self._deferred,
            "queue.deferred": self._deferred,
            "queue.pass1": self._in_pass[1],
            "queue.pass2": self._in_pass[2],
            "amavis.busy": busy,
            "amavis.held": held,
            "amavis.free": max(0, self._settings.filter_servers - busy - held),
            "amavis.children": self._settings.filter_servers,
            "filter.accept_queue": self._connected - self._greeted,
            "feed.sessions": self._connected,
            "postfix.amavisfeed": self._settings.feed_processes,
            "chain.cpu_s": used.ru_utime + used.ru_stime,
        }
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(gauges).encode())
            await writer.drain()
        writer.close()


def _in_base(value: int, base: int, width: int) -> str:
    text = ""
    while value or len(text) < width:
        value, digit = divmod(value, base)
        text = _DIGITS[digit] + text
    return text


async def _run(line: dict[str, Any], outlet: Outlet) -> None:
    line = dict(line)
    directory, sink = Path(line.pop("directory")), parse_address(line.pop("sink"))
    line.pop("clock_origin")
    chain = ReferenceChain(ReferenceSettings.model_validate(line), directory, sink)
    described = await chain.start()
    outlet.write_event("ready", pid=os.getpid(), chain=described.model_dump(mode="json"))
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), os.fdopen(0, "rb", 0))
    while text := await commands.readline():
        command = parse_line(text)
        try:
            await chain.tune(command["feed_processes"], command["filter_servers"], command["options"])
        except RuntimeError as error:
            outlet.write_event("tuned", problem=str(error))
        else:
            outlet.write_event("tuned", problem="")
    await chain.stop()


def main() -> None:
    """Run the reference chain: settings from standard input, where it is to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    uvloop.run(_run(read_settings(), Outlet()))


if __name__ == "__main__":
    main()
