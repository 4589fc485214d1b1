"""SMTP and LMTP for the reference chain's own stations: a small server and a small client on asyncio streams.

Content travels as it is on the wire (dots stuffed), since no station looks
into it. Robust enough for the generator and for the stations among
themselves; not a mail server.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ["Client", "Envelope", "Refused", "serve_session"]

STREAM_LIMIT = 64 * 1024 * 1024
_EXTENSIONS = ("PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES")


@dataclass
class Envelope:
    """One message as it is handed from station to station."""

    sender: str = "<>"
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""
    """Without the final dot, dots stuffed, CRLF line ends."""
    begun_at: float = 0.0
    """Monotonic instant at which MAIL was read."""
    origin: str = ""
    """Queue id of the first pass, handed on like XFORWARD does."""


class Refused(Exception):
    """The next station answered with something else than a success."""


async def serve_session(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    name: str,
    take: Callable[[Envelope], Awaitable[str]],
) -> None:
    """Serve one session in either protocol; *take* gets each message and returns the reply after the dot."""
    lmtp = False
    envelope = Envelope()
    writer.write(f"220 {name} ESMTP loadgen reference chain, not a mail server\r\n".encode())
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while line := await reader.readline():
            verb = line[:4].upper().decode("ascii", "replace")
            argument = line.decode("utf-8", "replace").partition(":")[2].strip().split(" ")[0]
            match verb:
                case "EHLO" | "LHLO":
                    lmtp = verb == "LHLO"
                    lines = [name, *_EXTENSIONS]
                    text = "".join(f"250{'-' if e != lines[-1] else ' '}{e}\r\n" for e in lines)
                    writer.write(text.encode())
                case "MAIL":
                    origin = line.decode("utf-8", "replace").partition(" X-ORIGIN=")[2].strip()
                    envelope = Envelope(sender=argument, begun_at=time.monotonic(), origin=origin)
                    writer.write(b"250 2.1.0 Ok\r\n")
                case "RCPT":
                    envelope.recipients.append(argument)
                    writer.write(b"250 2.1.5 Ok\r\n")
                case "DATA" if envelope.recipients:
                    writer.write(b"354 End data with <CR><LF>.<CR><LF>\r\n")
                    envelope.content = await _read_content(reader)
                    reply = await take(envelope)
                    # LMTP answers once for each recipient
                    writer.write(f"{reply}\r\n".encode() * (len(envelope.recipients) if lmtp else 1))
                    envelope = Envelope()
                case "DATA":
                    writer.write(b"554 5.5.1 No valid recipients\r\n")
                case "QUIT":
                    writer.write(b"221 2.0.0 Bye\r\n")
                    break
                case "RSET" | "HELO":
                    envelope = Envelope()
                    writer.write(b"250 2.0.0 Ok\r\n")
                case "NOOP":  # in the middle of a transaction too (RFC 5321 4.1.1.9)
                    writer.write(b"250 2.0.0 Ok\r\n")
                case _:
                    writer.write(b"502 5.5.2 Command not known\r\n")
        await writer.drain()
    writer.close()


async def _read_content(reader: asyncio.StreamReader) -> bytes:
    lines = []
    while (line := await reader.readuntil(b"\n")) not in (b".\r\n", b".\n"):
        lines.append(line)
    return b"".join(lines)


class Client:
    """One outgoing session, opened when first needed and kept for the next message."""

    def __init__(self, host: str, port: int, greeting: str) -> None:
        """Speak to *host*:*port*, greeting with *greeting*, such as "LHLO feed.test"."""
        self._host, self._port, self._greeting = host, port, greeting
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """Connect and greet, unless a session is open already.

        Raises:
            Refused: the greeting was answered with something else than a success.
            OSError: no connection.
        """
        if self._streams is not None:
            return
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=STREAM_LIMIT)
        try:
            await _expect(reader, "220")
            writer.write(f"{self._greeting}\r\n".encode())
            await _expect(reader, "250")
        except BaseException:
            writer.close()
            raise
        self._streams = reader, writer

    async def send(self, envelope: Envelope) -> str:
        """Send one message and return the last reply's text; a failure closes the session.

        Raises:
            Refused: with the reply.
            OSError: the connection was lost.
        """
        await self.open()
        assert self._streams is not None  # noqa: S101 (opened above)
        reader, writer = self._streams
        try:
            origin = f" X-ORIGIN={envelope.origin}" if envelope.origin else ""
            recipients = "".join(f"RCPT TO:{r}\r\n" for r in envelope.recipients)
            writer.write(f"MAIL FROM:{envelope.sender}{origin}\r\n{recipients}DATA\r\n".encode())
            for _ in range(len(envelope.recipients) + 1):
                await _expect(reader, "250")
            await _expect(reader, "354")
            writer.write(envelope.content + b".\r\n")
            replies = len(envelope.recipients) if self._greeting.startswith("LHLO") else 1
            for _ in range(replies):
                reply = await _expect(reader, "250")
        except (Refused, OSError, asyncio.IncompleteReadError):
            self.close()
            raise
        return reply

    def close(self) -> None:
        """End the session, if one is open."""
        if self._streams is not None:
            self._streams[1].write(b"QUIT\r\n")
            self._streams[1].close()
            self._streams = None


async def _expect(reader: asyncio.StreamReader, code: str) -> str:
    while (line := (await reader.readuntil(b"\n")).decode("utf-8", "replace").strip())[3:4] == "-":
        pass
    if not line.startswith(code):
        raise Refused(line)
    return line
