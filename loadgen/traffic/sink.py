"""The sink: where mail leaves the chain, and the arrival of every message id is recorded.

A process of its own (`python -m loadgen.traffic.sink`) with a small SMTP
server: it must be far from its own limits when the chain is at its, so a
message is only searched for its id, never parsed or kept. Arrivals go two
ways: in batches to the conductor, for the record, and at once to the generators,
whose sessions wait for them. Duplicates are recorded like any other arrival.
"""

import asyncio
import contextlib
import os
import signal
import time
from typing import Any

import uvloop

from loadgen.channel import Outlet, raise_file_limit, read_settings
from loadgen.traffic.message import ID_HEADER

__all__ = ["Sink", "main"]

_FLUSH_EVERY_S = 0.1
_HEADER_SEARCH = 64 * 1024
_LONGEST_LINE = 8192
_NEEDLE = f"\n{ID_HEADER}:".lower().encode()


class Sink:
    """Takes mail on one address; tells an outlet and any number of listeners what arrived."""

    def __init__(self, outlet: Outlet, run_id: str, clock_origin: float) -> None:
        self._outlet = outlet
        self._prefix = f"{run_id}."
        self._origin = clock_origin
        self._rows: list[tuple[str, float, int, int]] = []
        self._listeners: set[asyncio.StreamWriter] = set()
        self.foreign = 0
        """Messages without an id of this run: bounces, or another run's leftovers."""

    def record(self, message_id: str | None, recipients: int, size_bytes: int) -> None:
        """Note that a copy for *recipients* recipients has arrived now."""
        if message_id is None or not message_id.startswith(self._prefix):
            self.foreign += 1
            return
        self._rows.append((message_id, time.monotonic() - self._origin, recipients, size_bytes))
        line = f"{message_id} {recipients}\n".encode()
        for listener in self._listeners:
            listener.write(line)

    def flush(self) -> None:
        """Send the arrivals since the last call to the conductor."""
        if self._rows:
            self._outlet.write_rows("arrival", self._rows)
            self._rows = []

    async def serve_listener(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell one generator of every arrival, a line with id and recipients each, until it goes."""
        self._listeners.add(writer)
        # cancelled when the sink ends, or gone with its generator: nothing to do in either case
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await reader.read()
        self._listeners.discard(writer)
        writer.close()


class _SmtpServer(asyncio.Protocol):
    """One incoming session."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._in_data = False
        self._recipients = 0
        self._size = 0
        self._head = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.write(b"220 sink.loadgen.test ESMTP loadgen sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        while self._buffer:
            if self._in_data:
                if not self._take_content(replies):
                    break
                continue
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > _LONGEST_LINE:
                    self._transport.write(b"500 line too long\r\n")
                    self._transport.close()
                break
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            self._answer(line, replies)
        if replies:
            self._transport.write(b"".join(replies))

    def _answer(self, line: bytes, replies: list[bytes]) -> None:
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._recipients += 1
            replies.append(b"250 2.1.5 Ok\r\n")
        elif verb == b"DATA":
            self._in_data = True
            # an empty message is a lone dot: let the search see the line end before it
            self._buffer[:0] = b"\r\n"
            self._size = -2
            self._head.clear()
            replies.append(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        elif verb in (b"EHLO", b"LHLO"):
            replies.append(
                b"250-sink.loadgen.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
                b"250 ENHANCEDSTATUSCODES\r\n"
            )
        elif verb == b"QUIT":
            self._transport.write(b"".join([*replies, b"221 2.0.0 Bye\r\n"]))
            replies.clear()
            self._transport.close()
            self._buffer.clear()
        elif verb in (b"MAIL", b"RSET", b"HELO", b"NOOP"):
            self._recipients = 0
            replies.append(b"250 2.0.0 Ok\r\n")
        else:
            replies.append(b"502 5.5.2 Command not known\r\n")

    def _take_content(self, replies: list[bytes]) -> bool:
        """Consume content up to the final dot; return whether it was there."""
        end = self._buffer.find(b"\r\n.\r\n")
        taken = end + 2 if end >= 0 else max(0, len(self._buffer) - 4)
        if len(self._head) < _HEADER_SEARCH:
            self._head += self._buffer[:taken]
        self._size += taken
        if end < 0:
            del self._buffer[:taken]
            return False
        del self._buffer[: end + 5]
        self._in_data = False
        self._sink.record(_find_id(self._head), self._recipients, self._size)
        self._recipients = 0
        replies.append(b"250 2.0.0 Ok: taken\r\n")
        return True


def _find_id(content: bytearray) -> str | None:
    """Return the id in the header of *content*, or None."""
    end = content.find(b"\r\n\r\n", 2)
    header = bytes(content[: end if end >= 0 else _HEADER_SEARCH]).lower()
    start = header.find(_NEEDLE)
    if start < 0:
        return None
    return header[start + len(_NEEDLE) :].split(b"\n", 1)[0].strip().decode("ascii", "replace")


async def _serve(settings: dict[str, Any], outlet: Outlet) -> None:
    loop = asyncio.get_running_loop()
    sink = Sink(outlet, settings["run_id"], settings["clock_origin"])
    try:
        server = await loop.create_server(
            lambda: _SmtpServer(sink), settings["host"], settings["port"], backlog=1024, reuse_address=True
        )
    except OSError as error:
        outlet.write_event("failed", reason=error.strerror or str(error))
        return
    notifier = await asyncio.start_unix_server(sink.serve_listener, settings["notify"])
    outlet.write_event("ready", pid=os.getpid())
    end = asyncio.Event()

    def read_input() -> None:
        # nothing is said to a sink after its settings: only the end of the pipe means something
        if not os.read(0, 65536):
            end.set()

    loop.add_reader(0, read_input)
    foreign = 0
    while not end.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.wait(), _FLUSH_EVERY_S)
        sink.flush()
        if sink.foreign != foreign:
            foreign = sink.foreign
            outlet.write_event("foreign", count=foreign)
    server.close()
    notifier.close()
    sink.flush()


def main() -> None:
    """Run the sink process: settings from standard input, rows to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    with contextlib.suppress(BrokenPipeError):  # the conductor was killed; nobody wants the arrivals
        uvloop.run(_serve(read_settings(), Outlet()))


if __name__ == "__main__":
    main()
