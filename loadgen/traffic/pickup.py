"""Messages handed to the sendmail command, one process for each: what programs on the mail host do.

Stands where an SMTP session does. The exit status is the answer: 0 means that
the message is in the queue, anything else that it is not; of a process that
was killed nobody can say. A process is waited for by a descriptor of its own (pidfd),
because its signal belongs to Locust's thread; content and complaints go through
memory files, so that neither side ever waits for the other to read.
"""

import asyncio
import os
import posix
import signal
import time
from contextlib import suppress

from loadgen.traffic.connect import OpenTimes, SessionError
from loadgen.traffic.message import OutgoingMessage
from loadgen.traffic.session import Transaction

__all__ = ["Pickup"]

_MOST_WORDS = 4096


class Pickup:
    """One place for one sendmail process at a time."""

    times = OpenTimes(None, None, None, None)
    usable = True
    """There is no connection that could break."""

    def __init__(self, command: tuple[str, ...], timeout_s: float) -> None:
        """Prepare.

        Args:
            command: The program and what it is given before our own options.
            timeout_s: Longest that one process may take.

        Raises:
            SessionError: there is no such program.
        """
        if not os.access(command[0], os.X_OK):
            raise SessionError(f"pickup: {command[0]}: no such program")
        self._command = command
        self._timeout_s = timeout_s
        self._pid: int | None = None
        """Of the process in progress."""

    async def send(self, message: OutgoingMessage) -> Transaction:
        """Hand one message over and return its fate; cancelled, end the process and re-raise.

        The cancelled transaction is available as the exception's `transaction` attribute.
        """
        started, count = time.monotonic(), len(message.recipients)
        try:
            outcome, said = await self._run(message)
        except OSError as error:  # it could not be started
            outcome, said = "not_sent", f"sendmail: {error.strerror or error}"
        except asyncio.CancelledError as cancelled:
            cancelled.transaction = Transaction(  # type: ignore[attr-defined]
                started, time.monotonic(), None, None, "unknown", None, "stopped by the generator", count, False
            )
            raise
        return Transaction(started, time.monotonic(), None, None, outcome, None, said[:500], count, True)

    async def close(self) -> None:
        """Nothing is open between two messages."""

    def abort(self) -> None:
        """End the process in progress."""
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _spawn(self, message: OutgoingMessage, content: int, words: int) -> int:
        arguments = [*self._command, "-i", "-f", message.sender, "--", *message.recipients]
        actions = [(os.POSIX_SPAWN_DUP2, content, 0), (os.POSIX_SPAWN_DUP2, words, 1), (os.POSIX_SPAWN_DUP2, words, 2)]
        return posix.posix_spawn(  # where Locust runs, that of `os` is gevent's
            self._command[0], arguments, os.environ, file_actions=actions, setsigdef=[signal.SIGINT, signal.SIGPIPE]
        )

    async def _run(self, message: OutgoingMessage) -> tuple[str, str]:
        """Return outcome and words of one process, which is gone afterwards, whatever happens."""
        content, words = os.memfd_create("message"), os.memfd_create("words")
        try:
            with os.fdopen(os.dup(content), "wb") as file:
                file.write(_as_local(message))
            os.lseek(content, 0, os.SEEK_SET)
            self._pid = self._spawn(message, content, words)
            try:
                in_time = await _wait(self._pid, self._timeout_s)
            finally:
                self.abort()
                status = _reap(self._pid)
                self._pid = None
            if not in_time:
                return "unknown", f"sendmail had not ended after {self._timeout_s:g} s"
            return _judge(status, os.pread(words, _MOST_WORDS, 0).decode("utf-8", "replace"))
        finally:
            os.close(content)
            os.close(words)


def _reap(pid: int) -> int:
    """Return the exit status of a process that has ended or is about to; negative for a signal.

    Not waitpid: where Locust runs, that is gevent's and for its own thread only.
    """
    ended = os.waitid(os.P_PID, pid, os.WEXITED)
    assert ended is not None  # noqa: S101 (only with WNOHANG)
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


async def _wait(pid: int, timeout_s: float) -> bool:
    """Return whether the process ended in time; it is not reaped."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), timeout_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True


def _judge(status: int, words: str) -> tuple[str, str]:
    if status == 0:
        return "accepted", "sendmail ended with status 0"
    if status < 0:
        return "unknown", f"sendmail was ended by {signal.Signals(-status).name}"
    lines = words.strip().splitlines()
    return "refused", f"sendmail ended with status {status}{': ' + lines[-1] if lines else ''}"


def _as_local(message: OutgoingMessage) -> bytes:
    """Return the message as a local program writes it: lines end in LF, and no dot is doubled."""
    return (message.head + message.body).replace(b"\r\n..", b"\r\n.").replace(b"\r\n", b"\n")
