"""SMTP on a bare transport: replies matched one by one, and writes that are known to have left this host.

Whoever opened the connection hands its transport over; from then on only this
protocol reads it. Replies are told apart as they come in, so that a group of
pipelined commands costs one wake-up. Memory is bounded whatever the server sends.
"""

import asyncio
from typing import NamedTuple, cast

__all__ = ["Broken", "Dialogue", "Reply"]

_CODES = {str(code).encode(): code for code in range(200, 600)}
_LONGEST_REPLY = 32 * 1024
"""A whole reply may not be longer: bounds memory against a server that never ends one."""
_MOST_UNASKED = 100
"""Replies that nobody waits for before the server is taken to be broken."""


class Reply(NamedTuple):
    """One reply of the server."""

    code: int
    raw: bytes
    """Its text, line by line."""

    @property
    def text(self) -> str:
        """The server's words, on one line."""
        return self.raw.decode("utf-8", "replace").replace("\n", " ")


_GROUPS: dict[bytes, list[Reply]] = {}
"""Groups of replies that came in one piece, by their bytes."""
_MOST_GROUPS, _LONGEST_GROUP = 64, 1024


class Broken(Exception):
    """The dialogue cannot go on: lost, timed out, or not SMTP."""

    def __init__(self, problem: str, replies: list[Reply]) -> None:
        super().__init__(problem)
        self.replies = replies
        """Those of the group that did come."""


class Dialogue(asyncio.Protocol):
    """Replies one by one, and writes that are known to have left this host."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the protocol of a connection to be opened; `adopt` gives it one that is open."""
        self._loop = loop
        self._transport: asyncio.Transport
        self._rest = b""
        """What has come in of a reply that is not whole yet."""
        self._lines: list[bytes] = []
        """Texts of the lines that a longer reply has had so far."""
        self._length = 0
        self._replies: list[Reply] = []
        self._wanted = 0
        """Replies that a waiter waits for; 0: for the writes to leave."""
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._what = ""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paused = False
        self._problem = ""

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take a connection over from the protocol that opened it."""
        transport.set_protocol(self)
        self.connection_made(transport)

    @property
    def alive(self) -> bool:
        """Nothing has gone wrong yet."""
        return not self._problem

    # -- the transport calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        stream = cast(asyncio.Transport, transport)
        # 0: pause_writing comes with the first unsent byte, so a resumed transport has sent everything
        stream.set_write_buffer_limits(high=0)
        self._transport = stream

    def data_received(self, data: bytes) -> None:
        """Take what the server sent; what is no reply ends the session."""
        if not self._rest and not self._lines:
            if (group := _GROUPS.get(data)) is not None:
                self._replies += group
                self._wake_if_complete()
                return
            before = len(self._replies)
            self._read(data)
            self._remember(data, self._replies[before:])
        else:
            self._read(self._rest + data)
        self._wake_if_complete()

    def _remember(self, data: bytes, group: list[Reply]) -> None:
        """Know *data* from now on: servers answer every envelope in the same words."""
        whole = not self._rest and not self._lines and not self._problem
        if whole and len(group) > 1 and len(data) <= _LONGEST_GROUP and len(_GROUPS) < _MOST_GROUPS:
            _GROUPS[data] = group

    def _read(self, data: bytes) -> None:
        """Add the replies in *data* to those that are there, and keep what is not whole yet."""
        lines = data.split(b"\n")
        self._rest = lines.pop()
        replies = self._replies
        for line in lines:
            code, mark = _CODES.get(line[:3]), line[3:4]
            if code is None or mark not in b" -\r":
                self._abort(f"protocol error: {line[:80].rstrip()!r} is no reply")
                return
            text = line[4:].rstrip(b"\r")
            if mark == b"-":
                self._lines.append(text)
                self._length += len(line)
                if self._length > _LONGEST_REPLY:
                    break
            elif self._lines:
                replies.append(Reply(code, b"\n".join([*self._lines, text])))
                self._lines, self._length = [], 0
            else:
                replies.append(Reply(code, text))
        if self._length + len(self._rest) > _LONGEST_REPLY:
            self._rest, self._lines = b"", []
            self._abort("protocol error: reply too long")

    def _wake_if_complete(self) -> None:
        count = len(self._replies)
        if count > max(_MOST_UNASKED, self._wanted):
            self._abort("protocol error: replies that nobody asked for")
        elif count and count >= self._wanted:
            self._wake()

    def eof_received(self) -> bool:
        """Note that the server closed its side; the transport then closes ours."""
        self._fail("connection closed by the server")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nothing more will come."""
        self._fail(f"connection lost: {exc}" if exc else "connection lost")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        """Note that something written has not left yet."""
        self._paused = True

    def resume_writing(self) -> None:
        """Note that everything written has left."""
        self._paused = False
        if not self._wanted:
            self._wake()

    # -- the session calls --------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop the connection without another word."""
        self._transport.abort()

    def write(self, data: bytes) -> None:
        """Queue *data* for sending."""
        self._transport.write(data)

    @property
    def flushed(self) -> bool:
        """Everything written has left this process."""
        return not self._paused

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything written has left this process, or a reply or a failure came instead.

        Raises:
            Broken: it cannot leave any more.
        """
        deadline = self._loop.time() + timeout_s
        while self._paused and not self._replies:
            if self._problem:
                raise Broken(self._problem, [])
            await self._wait(0, deadline, "timed out while sending")
        if self._problem and self._paused:
            raise Broken(self._problem, [])

    async def read_replies(self, count: int, timeout_s: float) -> list[Reply]:
        """Return the next *count* replies; *timeout_s* is for all of them.

        Raises:
            Broken: lost, timed out, or not a reply; it has those that did come.
        """
        if len(self._replies) < count and not self._problem:
            deadline = self._loop.time() + timeout_s
            while len(self._replies) < count and not self._problem:
                await self._wait(count, deadline, "timed out waiting for a reply")
        replies, self._replies = self._replies[:count], self._replies[count:]
        if len(replies) < count:
            raise Broken(self._problem, replies)
        return replies

    async def read_reply(self, timeout_s: float) -> Reply:
        """Return the next reply.

        Raises:
            Broken: as `read_replies`.
        """
        return (await self.read_replies(1, timeout_s))[0]

    async def _wait(self, wanted: int, deadline: float, what: str) -> None:
        self._wanted, self._deadline, self._what = wanted, deadline, what
        # one timer serves a whole session: when it goes off, it looks how far the deadline has moved on
        if self._timer is None or self._timer_at > deadline:
            self._set_timer()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter, self._wanted = None, 0

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(self._deadline, self._look_at_clock), self._deadline

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() >= self._deadline:
            self._abort(self._what)
        else:
            self._set_timer()

    def _abort(self, problem: str) -> None:
        self._fail(problem)
        self._transport.abort()

    def _fail(self, problem: str) -> None:
        self._problem = self._problem or problem
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
