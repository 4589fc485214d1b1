"""SMTP on a bare transport: replies one by one, and writes that are known to have left this host.

aiosmtplib opens a session and hands its transport over; from then on only
this protocol reads it. Memory is bounded whatever the server sends.
"""

import asyncio

__all__ = ["Broken", "Dialogue"]

_LONGEST_REPLY = 32 * 1024
"""A whole reply may not be longer: bounds memory against a server that never ends one."""


class Broken(Exception):
    """The dialogue cannot go on: lost, timed out, or not SMTP."""


class Dialogue(asyncio.Protocol):
    """Replies one by one, and writes that are known to have left this host."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._problem = ""
        # 0: pause_writing comes with the first unsent byte, so a resumed transport has sent everything
        transport.set_write_buffer_limits(high=0)
        transport.set_protocol(self)

    @property
    def alive(self) -> bool:
        """Nothing has gone wrong yet."""
        return not self._problem

    def data_received(self, data: bytes) -> None:
        """Take what the server sent; too much without a reply in it ends the session."""
        self._buffer += data
        if len(self._buffer) > _LONGEST_REPLY:
            self._fail("protocol error: reply too long")
            self._transport.abort()
        self._wake()

    def eof_received(self) -> bool:
        """Note that the server closed its side; the transport then closes ours."""
        self._fail("connection closed by the server")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nothing more will come."""
        self._fail(f"connection lost: {exc}" if exc else "connection lost")

    def pause_writing(self) -> None:
        """Note that something written has not left yet."""
        self._paused = True

    def resume_writing(self) -> None:
        """Note that everything written has left."""
        self._paused = False
        self._wake()

    def close(self) -> None:
        """Drop the connection without another word."""
        self._transport.abort()

    def write(self, data: bytes) -> None:
        """Queue *data* for sending."""
        self._transport.write(data)

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything written has left this process, or a reply or a failure came instead.

        Raises:
            Broken: it cannot leave any more.
        """
        deadline = self._loop.time() + timeout_s
        while self._paused and not self._has_reply():
            if self._problem:
                raise Broken(self._problem)
            await self._wait(deadline, "timed out while sending")
        if self._problem and self._paused:
            raise Broken(self._problem)

    @property
    def flushed(self) -> bool:
        """Everything written has left this process."""
        return not self._paused

    async def read_reply(self, timeout_s: float) -> tuple[int, str]:
        """Return code and text of the next reply; lines of a longer one are joined by spaces.

        Raises:
            Broken: lost, timed out, or not a reply.
        """
        deadline = self._loop.time() + timeout_s
        while (reply := self._take_reply()) is None:
            if self._problem:
                raise Broken(self._problem)
            await self._wait(deadline, "timed out waiting for a reply")
        return reply

    def _has_reply(self) -> bool:
        return b"\n" in self._buffer

    def _take_reply(self) -> tuple[int, str] | None:
        texts: list[str] = []
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = bytes(self._buffer[start:end]).rstrip(b"\r")
            start = end + 1
            if len(line) < 3 or not line[:3].isdigit() or line[3:4] not in (b"", b" ", b"-"):
                self._fail(f"protocol error: {line[:80]!r} is no reply")
                self._transport.abort()
                return None
            texts.append(line[4:].decode("utf-8", "replace"))
            if line[3:4] != b"-":
                del self._buffer[:start]
                return int(line[:3]), " ".join(texts)
        return None

    async def _wait(self, deadline: float, what: str) -> None:
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._time_out, what)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _time_out(self, what: str) -> None:
        self._fail(what)
        self._transport.abort()

    def _fail(self, problem: str) -> None:
        self._problem = self._problem or problem
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
