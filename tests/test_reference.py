"""The reference chain from outside: a subprocess, SMTP clients, a sink, its logs and its status socket."""

import asyncio
import collections
import contextlib
import itertools
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loadgen.chain.laws import throughput_per_s
from loadgen.chain.reference import ReferenceSettings
from loadgen.chain.spec import Chain
from loadgen.collect.amavislog import AmavislogParser
from loadgen.collect.maillog import MaillogParser

QUICK = ReferenceSettings(law="constant", service_s=0.02)
_ID = re.compile(rb"^X-Loadgen-ID: (\S+)\r\n", re.MULTILINE)
_AWAITED_S = 10.0


@dataclass
class Copy:
    """One message as the sink got it."""

    id: str
    recipients: list[str]
    content: bytes
    at: float


@dataclass
class Sink:
    """Where the chain delivers: keeps every copy and wakes whoever waits for it."""

    copies: list[Copy] = field(default_factory=list)
    refusing: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def open(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no longer."""
        self._server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take mail, or answer 451 to MAIL while refusing."""
        recipients: list[str] = []
        writer.write(b"220 sink\r\n")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                reply = b"250 2.0.0 Ok\r\n"
                if line.startswith(b"MAIL"):
                    recipients = []
                    reply = b"451 4.3.0 Not now\r\n" if self.refusing else reply
                elif line.startswith(b"RCPT"):
                    recipients.append(line.decode().partition(":")[2].strip())
                elif line.startswith(b"DATA"):
                    if self.refusing:
                        writer.write(b"503 5.5.1 Not now\r\n")
                        continue
                    writer.write(b"354 Go on\r\n")
                    content = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                    found = _ID.search(content)
                    self.copies.append(Copy(found[1].decode() if found else "", recipients, content, time.monotonic()))
                    self.changed.set()
                writer.write(reply)
        writer.close()

    async def wait_for(self, count: int) -> None:
        """Return when *count* copies have come."""
        async with asyncio.timeout(_AWAITED_S):
            while len(self.copies) < count:
                self.changed.clear()
                await self.changed.wait()

    def ids(self) -> list[str]:
        return sorted(copy.id for copy in self.copies)


@dataclass
class Running:
    """A reference chain that answers."""

    chain: Chain
    sink: Sink
    process: asyncio.subprocess.Process
    directory: Path

    async def end(self) -> int:
        """Close its input and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(_AWAITED_S):
            return await self.process.wait()

    async def status(self) -> dict[str, float]:
        reader, writer = await asyncio.open_unix_connection(str(self.chain.reference_status))
        gauges: dict[str, float] = json.loads(await reader.read())
        writer.close()
        return gauges

    async def wait_until(self, name: str, want: float) -> dict[str, float]:
        """Return the gauges once *name* reads *want*; asks again and again, since a status socket tells only on asking."""
        async with asyncio.timeout(_AWAITED_S):
            while (gauges := await self.status())[name] != want:
                pass
        return gauges

    def parse_logs(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows that the collectors make of both logs, by table; the chain must have ended."""
        assert self.chain.filter is not None
        mail = MaillogParser(self.chain.filter.port, "reference")
        amavis = AmavislogParser(own_file=True)
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for parser, name in ((mail, "maillog"), (amavis, "amavis.log")):
            for line in (self.directory / name).read_text().splitlines():
                for table, row in parser.parse(line, 0.0):
                    rows.setdefault(table, []).append(row)
        return rows


@contextlib.asynccontextmanager
async def running(directory: Path, settings: ReferenceSettings) -> AsyncIterator[Running]:
    """Start a sink and a chain that delivers to it; kill what is left of them on leaving."""
    sink = Sink()
    await sink.open()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "loadgen.chain.reference",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    where = {"directory": str(directory), "sink": f"127.0.0.1:{sink.port}", "clock_origin": 0.0}
    process.stdin.write(json.dumps({**where, **settings.model_dump(mode="json")}).encode() + b"\n")
    try:
        async with asyncio.timeout(_AWAITED_S):
            ready = json.loads(await process.stdout.readline())
        assert ready["event"] == "ready"
        yield Running(Chain.model_validate(ready["chain"]), sink, process, directory)
    finally:
        if process.returncode is None:
            process.stdin.close()
            async with asyncio.timeout(_AWAITED_S):
                await process.wait()
        sink.close()


class Session:
    """One SMTP session with the front."""

    def __init__(self, chain: Chain, name: str) -> None:
        self._front = chain.front
        self._name = name
        self._numbers = itertools.count()

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._front.host, self._front.port)
        await self.reply()
        await self.say("EHLO client.test")

    async def reply(self) -> str:
        while (line := (await self._reader.readuntil(b"\n")).decode())[3] == "-":
            pass
        return line.rstrip()

    async def say(self, command: str) -> str:
        self._writer.write(f"{command}\r\n".encode())
        return await self.reply()

    async def send(self, recipients: int = 1, body: bytes = b"Hello.\r\n") -> str:
        """Send one message and return its id."""
        number = await self.begin(recipients, body)
        await self.finish()
        return number

    async def begin(self, recipients: int = 1, body: bytes = b"Hello.\r\n") -> str:
        """Send one message but for the final dot, and return its id."""
        number = f"{self._name}-{next(self._numbers)}"
        assert (await self.say("MAIL FROM:<a@sender.test>")).startswith("250")
        for i in range(recipients):
            assert (await self.say(f"RCPT TO:<b{i}@rcpt.test>")).startswith("250")
        assert (await self.say("DATA")).startswith("354")
        head = f"Message-ID: <{number}@loadgen.invalid>\r\nX-Loadgen-ID: {number}\r\nSubject: a test\r\n\r\n"
        self._writer.write(head.encode() + body)
        return number

    async def finish(self) -> None:
        """Send the final dot."""
        accepted = await self.say(".")
        assert accepted.startswith("250 2.0.0 Ok: queued as ")

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def sessions(chain: Chain, count: int) -> AsyncIterator[list[Session]]:
    """Open *count* sessions and close them on leaving."""
    opened = [Session(chain, f"s{i}") for i in range(count)]
    try:
        for session in opened:
            await session.open()
        yield opened
    finally:
        for session in opened:
            await session.close()


async def closed_loop_per_s(run: Running, concurrency: int, rounds: int) -> float:
    """Return msg/s at the sink while every session sends its next message when its last one has arrived.

    The first of *rounds* messages of each session is warm-up; counted are whole rounds.
    """
    arrived: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)

    async def watch() -> None:
        for number in itertools.count(1):
            await run.sink.wait_for(number)
            arrived[run.sink.copies[number - 1].id].set()

    async def keep_sending(session: Session) -> None:
        for _ in range(rounds):
            await arrived[await session.send()].wait()

    watching = asyncio.create_task(watch())
    async with sessions(run.chain, concurrency) as opened:
        await asyncio.gather(*map(keep_sending, opened))
    watching.cancel()
    instants = [copy.at for copy in run.sink.copies]
    return (len(instants) - concurrency) / (instants[-1] - instants[concurrency - 1])


def allow_no_more_descriptors(pid: int) -> tuple[int, int]:
    """Keep a process from opening anything, and return the limits to set again."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    return limits


def test_every_message_arrives_once_as_it_was_sent(tmp_path: Path) -> None:
    body = b"..a line that begins with a dot\r\n" + bytes(range(128, 256)) + b"\r\n" + b"x" * 100_000 + b"\r\n"

    async def check() -> None:
        async with running(tmp_path, QUICK) as run, sessions(run.chain, 3) as opened:
            sent = await asyncio.gather(*(s.send(body=body) for s in opened))
            sent += await asyncio.gather(*(s.send(recipients=3, body=body) for s in opened))
            await run.sink.wait_for(6)

        assert run.sink.ids() == sorted(sent)
        for copy in run.sink.copies:
            assert len(copy.recipients) == (1 if copy.id.endswith("-0") else 3)
            head, _, tail = copy.content.partition(b"Message-ID: ")
            assert tail.endswith(b"\r\n\r\n" + body)
            # newest first, one from each station that had it
            assert re.findall(rb"by (\w+)\.loadgen\.test", head) == [b"reinjection", b"filter", b"front"]

    asyncio.run(check())


def test_noop_within_a_transaction_changes_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, QUICK) as run, sessions(run.chain, 1) as (session,):
            await session.say("MAIL FROM:<a@sender.test>")
            await session.say("RCPT TO:<b@rcpt.test>")
            assert (await session.say("NOOP")).startswith("250")
            assert (await session.say("DATA")).startswith("354")
            await session.finish()
            await run.sink.wait_for(1)

        assert run.sink.copies[0].recipients == ["<b@rcpt.test>"]

    asyncio.run(check())


def test_logs_join_every_message_across_both_passes(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, QUICK) as run:
            async with sessions(run.chain, 4) as opened:
                sent = [await session.send() for session in opened for _ in range(5)]
                await run.sink.wait_for(20)
            await run.wait_until("queue.active", 0)
            await run.end()
        rows = run.parse_logs()

        first = {row[0]: row[1] for row in rows["queue_entry"] if row[2] == 1}
        second = {row[0]: row[3] for row in rows["queue_entry"] if row[2] == 2}
        assert sorted(first.values()) == sorted(sent)
        assert len(set(first) | set(second)) == 40
        # every line can be read in full: no delay and no section of the filter's time is missing
        assert not [row for row in rows["delivery"] if None in row[5:10]]
        assert {row[1] for row in rows["timing"]} == {row[1] for row in rows["scan"]}
        # three independent witnesses of first to second: the reinjecting smtpd, the feed, the filter
        joined = {origin: queue_id for queue_id, origin in second.items()}
        assert {row[2]: row[13] for row in rows["delivery"] if row[1] == "feed"} == joined
        assert {row[4]: row[5] for row in rows["scan"]} == joined
        assert {row[4]: row[6] for row in rows["scan"]} == first
        delivered = [row[2] for row in rows["delivery"] if row[1] == "delivery" and row[11] == "sent"]
        assert sorted(delivered) == sorted(second)
        removed = re.findall(r"qmgr\[\d+\]: (\w+): removed", (tmp_path / "maillog").read_text())
        assert sorted(removed) == sorted([*first, *second])

    asyncio.run(check())


def test_chain_is_described_with_its_law_and_what_is_known(tmp_path: Path) -> None:
    settings = ReferenceSettings(law="hard-cap", service_s=0.1, cap_per_s=15.0, feed_processes=3, filter_servers=2)

    async def check() -> None:
        async with running(tmp_path, settings) as run:
            chain = run.chain
            gauges = await run.status()

        assert (chain.kind, chain.processes, chain.feed_processes, chain.filter_servers) == ("reference", None, 3, 2)
        assert chain.destination_concurrency_limit == 3
        assert chain.law == "hard cap: X(n) = min(n / 0.1 s, 15 msg/s)"
        assert [chain.known_delivered_per_s[n] for n in (1, 2, 64)] == [10.0, 15.0, 15.0]
        assert gauges["postfix.amavisfeed"] == 3
        assert gauges["amavis.children"] == gauges["amavis.free"] == 2
        assert gauges["chain.cpu_s"] > 0

    asyncio.run(check())


@pytest.mark.parametrize(
    ("concurrency", "rounds"),
    [
        pytest.param(1, 15, id="1-session"),
        pytest.param(2, 15, id="2-sessions"),
        pytest.param(4, 15, id="4-sessions"),
        pytest.param(8, 9, id="8-sessions"),
    ],
)
def test_closed_loop_has_the_throughput_of_the_law(concurrency: int, rounds: int, tmp_path: Path) -> None:
    settings = ReferenceSettings()

    async def check() -> float:
        async with running(tmp_path, settings) as run:
            return await closed_loop_per_s(run, concurrency, rounds)

    want = throughput_per_s(settings, min(concurrency, settings.filter_servers))
    assert asyncio.run(check()) == pytest.approx(want, rel=0.03)


def test_slow_senders_do_not_get_past_the_law(tmp_path: Path) -> None:
    settings = ReferenceSettings(law="constant", service_s=0.1, feed_processes=2, filter_servers=2)

    async def check() -> float:
        async with running(tmp_path, settings) as run, sessions(run.chain, 9) as (other, *slow):
            await asyncio.gather(*(session.begin() for session in slow))
            await other.send()
            await run.sink.wait_for(1)  # a whole service has gone by
            begun = time.monotonic()
            await asyncio.gather(*(session.finish() for session in slow))
            await run.sink.wait_for(9)
            return run.sink.copies[-1].at - begun

    # eight messages, two at a time
    assert asyncio.run(check()) >= 4 * 0.1


def test_feeds_beyond_the_filter_servers_wait_for_its_greeting(tmp_path: Path) -> None:
    settings = ReferenceSettings(law="constant", service_s=0.2, feed_processes=6, filter_servers=2)

    async def check() -> None:
        async with running(tmp_path, settings) as run:
            async with sessions(run.chain, 1) as (session,):
                for _ in range(12):
                    await session.send()
                gauges = await run.wait_until("filter.accept_queue", 4)
                await run.sink.wait_for(12)
            await run.wait_until("queue.active", 0)
            await run.end()
        waited = sorted(row[8] or 0.0 for row in run.parse_logs()["delivery"] if row[1] == "feed")

        assert gauges["amavis.busy"] == 2
        assert gauges["feed.sessions"] == 6
        # two went straight in, two waited for one service, the others, as soon as a feed was free, for two
        assert waited == pytest.approx([0, 0, 0.2, 0.2] + [0.4] * 8, abs=0.1)

    asyncio.run(check())


@pytest.mark.parametrize("how", ["refuses", "is-down"])
def test_mail_is_kept_while_the_sink_takes_none_and_delivered_when_it_does(how: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, QUICK) as run:
            if how == "refuses":
                run.sink.refusing = True
            else:
                run.sink.close()
            async with sessions(run.chain, 1) as (session,):
                sent = [await session.send(recipients=2) for _ in range(3)]
            gauges = await run.wait_until("queue.deferred", 3)
            if how == "refuses":
                run.sink.refusing = False
            else:
                await run.sink.open()
            await run.sink.wait_for(3)
            await run.wait_until("queue.deferred", 0)
            await run.end()

        assert gauges["queue.pass2"] == 3
        assert run.sink.ids() == sorted(sent)
        rows = run.parse_logs()
        states = collections.Counter(row[11] for row in rows["delivery"] if row[1] == "delivery")
        assert states["sent"] == 6
        assert states["deferred"] >= 6
        assert {row[2] for row in rows["remark"]} == {"deferred"}

    asyncio.run(check())


def test_feed_that_cannot_connect_keeps_its_message(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, QUICK) as run, sessions(run.chain, 1) as (session,):
            limits = allow_no_more_descriptors(run.process.pid)
            sent = [await session.send() for _ in range(8)]
            resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, limits)
            await run.sink.wait_for(8)

        assert run.sink.ids() == sorted(sent)

    asyncio.run(check())


def test_interrupt_is_left_to_the_conductor(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, QUICK) as run, sessions(run.chain, 1) as (session,):
            run.process.send_signal(signal.SIGINT)
            sent = await session.send()
            await run.sink.wait_for(1)

            assert run.sink.ids() == [sent]
            assert run.process.returncode is None

    asyncio.run(check())


def test_end_of_input_ends_the_chain_with_its_logs_complete(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, QUICK) as run, sessions(run.chain, 1) as (session,):
            await session.send()
            await run.sink.wait_for(1)
            await run.wait_until("queue.active", 0)

            assert await run.end() == 0

            lines = (tmp_path / "maillog").read_text().splitlines()
            assert [line.endswith(": removed") for line in lines].count(True) == 2
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(run.chain.front.host, run.chain.front.port)

    asyncio.run(check())


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="servce_s"):
        ReferenceSettings.model_validate({"law": "constant", "servce_s": 0.1})
