"""A front for tests: an SMTP server that passes what it takes straight on to a sink, or does not, as told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.scripted_server import serve

Answer = Callable[[int, str], bytes | None]
"""From the number of messages taken so far and a verb, the reply to give instead of the usual one; None: the usual."""


@contextlib.asynccontextmanager
async def relaying_front(
    sink_port: int, answer: Answer, *, split: bool = False, relay: bool = True, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Serve on *host* and yield the port.

    Args:
        sink_port: Where messages go.
        answer: See `Answer`.
        split: Deliver a copy for each recipient, half a tenth of a second apart.
        relay: False: take messages and keep them.
        host: Where to listen; the sink is on 127.0.0.1 in any case.
    """
    taken = 0
    deliveries: set[asyncio.Task[None]] = set()

    async def deliver(recipients: list[bytes], content: bytes) -> None:
        for group in [[r] for r in recipients] if split else [recipients]:
            if split:
                await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_connection("127.0.0.1", sink_port)
            for line in (b"EHLO front", b"MAIL FROM:<>", *(b"RCPT TO:" + r for r in group), b"DATA"):
                writer.write(line + b"\r\n")
            writer.write(content + b".\r\nQUIT\r\n")
            await reader.read()
            writer.close()

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(b"220 front\r\n")
        recipients: list[bytes] = []
        while line := await reader.readline():
            verb = line[:4].decode().upper()
            if verb == "MAIL":
                recipients = []
            if (reply := answer(taken, verb)) is not None:
                writer.write(reply)
                continue
            if verb == "RCPT":
                recipients.append(line.partition(b":")[2].strip())
            if verb == "DATA":
                writer.write(b"354 go\r\n")
                content = b""
                while (part := await reader.readline()) != b".\r\n":
                    content += part
                taken += 1
                if relay:
                    task = asyncio.create_task(deliver(recipients, content))
                    deliveries.add(task)
                    task.add_done_callback(deliveries.discard)
            writer.write(b"250 ok\r\n")

    async with serve(front, host) as port:
        yield port
        await asyncio.gather(*deliveries, return_exceptions=True)
