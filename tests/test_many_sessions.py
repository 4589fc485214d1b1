"""Many sessions at once: how they are opened, where they come from, and what the system must allow."""

import asyncio
import resource
from typing import Any

import pytest

from loadgen.channel import Outlet, check_file_limit
from loadgen.errors import ProfileError, UsageError
from loadgen.plan import Step
from loadgen.profile import parse_profile
from loadgen.traffic.entry import Entry
from loadgen.traffic.load import Load
from loadgen.traffic.message import MessageFactory
from loadgen.traffic.slot import Slot
from tests.scripted_server import serve


class Quiet(Outlet):
    """An outlet that keeps rows and events instead of writing them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}
        self.events: list[dict[str, Any]] = []

    def _write(self, value: dict[str, Any]) -> None:
        if "table" in value:
            self.rows.setdefault(value["table"], []).extend(value["rows"])
        else:
            self.events.append(value)


def make_load(port: int, session: str = "", messages: int = 100) -> tuple[Load, Quiet]:
    text = f'about = "many"\n[pacing]\nkind = "accepted"\n[session]\n{session}\n[limits]\nmessages = {messages}\n'
    profile = parse_profile(text + '[[step]]\nconcurrency = 1\nhold = "1s"\n', "many")
    outlet = Quiet()
    front = Entry.parse("front", {"host": "127.0.0.1", "port": port, "session": {}}, profile.session)
    load = Load(profile, {"front": front}, MessageFactory(profile.message, 1, "abcd0123"), outlet, 0.0, followed=False)
    return load, outlet


def step(concurrency: int) -> Step:
    return Step(0, concurrency, None, 0.0, 60.0, 1.0, 60.0)


class Front:
    """A front that takes mail, waiting a little before it greets; counts who waits and where sessions come from."""

    def __init__(self, greets_after_s: float = 0.0) -> None:
        self._greets_after_s = greets_after_s
        self._waiting = 0
        self.most_waiting = 0
        self.sources: set[str] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sources.add(writer.get_extra_info("peername")[0])
        self._waiting += 1
        self.most_waiting = max(self.most_waiting, self._waiting)
        await asyncio.sleep(self._greets_after_s)
        self._waiting -= 1
        writer.write(b"220 front\r\n")
        while line := await reader.readline():
            if line.startswith(b"DATA"):
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 ok\r\n")


def run_slots(front: Front, count: int, session: str = "", messages: int = 100) -> Quiet:
    async def main() -> Quiet:
        async with serve(front) as port:
            load, outlet = make_load(port, session, messages)
            load.begin(step(count))
            slots = [Slot(load, step(count)) for _ in range(count)]
            await asyncio.wait_for(asyncio.gather(*(slot.run() for slot in slots)), 60)
            load.flush()
            return outlet

    return asyncio.run(main())


def test_ramp_does_not_fill_the_fronts_listen_queue_and_every_session_opens() -> None:
    front = Front(greets_after_s=0.02)

    outlet = run_slots(front, 200, messages=400)

    assert front.most_waiting <= 32
    assert len(outlet.rows["session"]) == 200
    assert all(row[-1] == "" for row in outlet.rows["session"])
    assert len(outlet.rows["message"]) == 400


def test_sessions_come_from_a_range_of_addresses_in_turn() -> None:
    front = Front()

    run_slots(front, 6, 'source = "127.9.0.0/29"')

    assert front.sources == {f"127.9.0.{number}" for number in range(1, 7)}


@pytest.mark.parametrize("source", ["10.0.0.0/24", "127.0.0.0/8", "here"])
def test_source_that_is_no_small_loopback_network_is_refused(source: str) -> None:
    with pytest.raises(ProfileError, match="want a network of up to 65536 loopback addresses"):
        make_load(1, f'source = "{source}"')


def test_told_to_finish_while_the_front_does_not_greet_a_slot_ends_at_once() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> Quiet:
        async with serve(silence) as port:
            load, outlet = make_load(port)
            load.begin(step(1))
            slot = Slot(load, step(1))
            running = asyncio.create_task(slot.run())
            await asyncio.sleep(0.1)
            load.end()
            await asyncio.wait_for(running, 2)
            return outlet

    assert asyncio.run(main()).rows == {}


def test_too_few_open_files_are_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))

    check_file_limit(3000)
    with pytest.raises(UsageError, match="10000 sessions need 10200 open files.*ulimit -n 10200"):
        check_file_limit(10_000)


BAD_ENDS = {
    b"hello\r\n": "is no reply",
    b"250-" + b"x" * 100_000: "reply too long",
    b"354 go\r\n250 ok\r\n250 ok\r\n": "in reply to MAIL",
    b"\x00\xff\xfe\r\n": "is no reply",
    b"250 ok\r\n421 going down\r\n": "going down",
}
"""What a server says to the envelope, and words that name what became of the message."""


def test_sessions_with_a_bad_server_are_named_and_the_others_unharmed() -> None:
    answers = list(BAD_ENDS)
    good = Front()
    bad: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(bad) == len(answers):
            await good(reader, writer)
            return
        bad.append(0)
        answer = answers[len(bad) - 1]
        writer.write(b"220 front\r\n")
        await reader.readline()
        writer.write(b"250-front\r\n250 PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(answer)
        if b"421" in answer:
            writer.close()
            return
        await reader.read()

    async def main() -> Quiet:
        async with serve(script) as port:
            load, outlet = make_load(port, messages=120)
            load.begin(step(20))
            await asyncio.wait_for(asyncio.gather(*(Slot(load, step(20)).run() for _ in range(20))), 60)
            load.flush()
            return outlet

    rows = asyncio.run(main()).rows["message"]
    failed = [row for row in rows if row[10] != "accepted"]

    assert len(rows) == len({row[0] for row in rows}) == 120
    assert len(failed) == len(BAD_ENDS)
    assert {row[10] for row in failed} == {"not_sent", "refused"}
    for words in BAD_ENDS.values():
        assert any(words in row[12] for row in failed), words
