"""One SMTP session: opened by aiosmtplib, then one transaction after another on the bare transport.

Owns the difference between "refused", "not sent" and "unknown": a connection
lost before the final dot has left this host means the server has no message; lost
after it, nobody can say (RFC 1047), and only the sink will tell. aiosmtplib
hides that moment, so once it has connected, greeted, secured and logged in,
its transport is handed to `Dialogue`. A refusal is data, never an exception.
"""

import asyncio
import contextlib
import os
import ssl
import time
from dataclasses import dataclass
from typing import cast

import aiosmtplib

from loadgen.profile import Session
from loadgen.traffic.dialogue import Broken, Dialogue
from loadgen.traffic.message import OutgoingMessage

__all__ = ["Endpoint", "OpenTimes", "SessionError", "SmtpSession", "Transaction"]

LOCAL_HOSTNAME = "generator.loadgen.test"
_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where sessions are opened, and how."""

    host: str
    """An IP literal: a name would be looked up by the loop for every session."""
    port: int
    session: Session


@dataclass(frozen=True, slots=True)
class OpenTimes:
    """How long the parts of opening a session took, in seconds; None for a part that did not happen."""

    connect_s: float
    """TCP connect to the 220 banner."""
    ehlo_s: float
    tls_s: float | None
    auth_s: float | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """What became of one message at the front."""

    started_at: float
    """Monotonic instant of the first byte of MAIL."""
    ended_at: float
    """Monotonic instant of the last reply or of the failure."""
    envelope_s: float | None
    """MAIL to the 354; None when it did not come."""
    data_s: float | None
    """First byte of the content to the reply after the final dot; None when that did not come."""
    outcome: str
    """"accepted", "refused", "unknown" or "not_sent"."""
    code: int | None
    reply: str
    """The server's words, or what went wrong."""
    usable: bool
    """The session can carry another transaction."""


class SessionError(Exception):
    """A session could not be opened; the text says at which step and why."""


class SmtpSession:
    """One open session; make it with `open`."""

    def __init__(self, dialogue: Dialogue, times: OpenTimes, session: Session, size_announced: bool) -> None:
        self.times = times
        self._dialogue = dialogue
        self._timeout_s = session.reply_timeout_s
        self._size_announced = size_announced

    @classmethod
    async def open(cls, endpoint: Endpoint) -> "SmtpSession":
        """Connect, greet, and where asked for secure and log in.

        Certificates are not verified, as between mail servers.

        Raises:
            SessionError: at any of these steps.
        """
        settings = endpoint.session
        password = _read_password(settings)
        client = aiosmtplib.SMTP(
            hostname=endpoint.host, port=endpoint.port, local_hostname=LOCAL_HOSTNAME, start_tls=False,
            validate_certs=False, timeout=settings.connect_timeout_s,
        )  # fmt: skip
        stage, tls_s, auth_s = "connect", None, None
        begun = time.monotonic()
        try:
            await client.connect()
            connected = time.monotonic()
            stage = "ehlo"
            await client.ehlo()
            greeted = time.monotonic()
            if settings.starttls:
                stage = "starttls"
                await client.starttls(validate_certs=False)
                await client.ehlo()
                tls_s = time.monotonic() - greeted
            if settings.username is not None:
                stage = "auth"
                before = time.monotonic()
                await client.login(settings.username, password)
                auth_s = time.monotonic() - before
        # ssl.SSLError is an OSError and comes through bare
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as error:
            client.close()
            raise SessionError(f"{stage}: {_describe(error)}") from error
        except asyncio.CancelledError:
            client.close()
            raise
        transport = client.transport
        if transport is None:
            raise SessionError("connect: connection lost")
        size_announced = client.supports_extension("size")
        dialogue = Dialogue(cast(asyncio.Transport, transport), asyncio.get_running_loop())
        times = OpenTimes(connected - begun, greeted - connected, tls_s, auth_s)
        return cls(dialogue, times, settings, size_announced)

    @property
    def usable(self) -> bool:
        """The connection still stands."""
        return self._dialogue.alive

    async def send(self, message: OutgoingMessage) -> Transaction:
        """Carry out one transaction and return its fate; a cancelled one ends the session and is re-raised.

        The cancelled transaction is available as the exception's `transaction` attribute.
        """
        progress = _Progress(time.monotonic())
        try:
            return await self._transact(message, progress)
        except Broken as broken:
            return progress.end(
                "unknown" if progress.dot_sent(self._dialogue) else "not_sent", None, str(broken), False
            )
        except asyncio.CancelledError as cancelled:
            outcome = "unknown" if progress.dot_sent(self._dialogue) else "not_sent"
            self._dialogue.close()
            cancelled.transaction = progress.end(outcome, None, "stopped by the generator", False)  # type: ignore[attr-defined]
            raise

    async def close(self) -> None:
        """Say QUIT, wait for the answer a moment, and disconnect."""
        if self._dialogue.alive:
            self._dialogue.write(b"QUIT\r\n")
            # whatever the server does instead of answering, the session is over
            with contextlib.suppress(Broken):
                await self._dialogue.read_reply(min(5.0, self._timeout_s))
        self._dialogue.close()

    def abort(self) -> None:
        """Disconnect at once."""
        self._dialogue.close()

    async def _transact(self, message: OutgoingMessage, progress: "_Progress") -> Transaction:
        size = f" SIZE={message.size_bytes}" if self._size_announced else ""
        code, text = await self._command(f"MAIL FROM:<{message.sender}>{size}")
        if code != 250:
            return await self._refused(progress, code, text)
        taken, refusals = 0, []
        for recipient in message.recipients:
            code, text = await self._command(f"RCPT TO:<{recipient}>")
            if code in (250, 251, 252):
                taken += 1
            else:
                refusals.append((code, text))
        if refusals:
            # a message that would reach only some of its recipients could not be accounted for
            return await self._refused(progress, *refusals[0])
        code, text = await self._command("DATA")
        if code != 354:
            return await self._refused(progress, code, text)
        begun = progress.data_begun()
        await self._write_content(message, progress)
        code, text = await self._dialogue.read_reply(2 * self._timeout_s)
        progress.data_s = time.monotonic() - begun
        if not progress.dot_written:
            # the server answered before it had everything: whatever it said, it has no message
            self._dialogue.close()
            return progress.end("refused", code, text, False)
        usable = self._dialogue.alive and code != 421
        return progress.end("accepted" if code == 250 else "refused", code, text, usable)

    async def _write_content(self, message: OutgoingMessage, progress: "_Progress") -> None:
        dialogue = self._dialogue
        dialogue.write(message.head)
        body = message.body
        for start in range(0, len(body), _CHUNK):
            # small messages go out in one piece; a large one waits for the server between pieces
            if start:
                await dialogue.flush(self._timeout_s)
                if not dialogue.flushed:
                    return
            dialogue.write(body[start : start + _CHUNK])
        progress.dot_written = True
        dialogue.write(b".\r\n")
        await dialogue.flush(self._timeout_s)

    async def _command(self, line: str) -> tuple[int, str]:
        self._dialogue.write(line.encode("ascii") + b"\r\n")
        return await self._dialogue.read_reply(self._timeout_s)

    async def _refused(self, progress: "_Progress", code: int, text: str) -> Transaction:
        transaction = progress.end("refused", code, text, code != 421)
        if code == 421:
            self._dialogue.close()
            return transaction
        try:
            await self._command("RSET")
        except Broken:
            return progress.end("refused", code, text, False)
        return transaction


class _Progress:
    """How far a transaction has come, so that its end can be named at any moment."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._envelope_s: float | None = None
        self.data_s: float | None = None
        self.dot_written = False

    def data_begun(self) -> float:
        now = time.monotonic()
        self._envelope_s = now - self._started_at
        return now

    def dot_sent(self, dialogue: Dialogue) -> bool:
        """Whether the final dot may have reached the server."""
        return self.dot_written and dialogue.flushed

    def end(self, outcome: str, code: int | None, reply: str, usable: bool) -> Transaction:
        return Transaction(
            self._started_at,
            time.monotonic(),
            self._envelope_s,
            self.data_s,
            outcome,
            code,
            reply[:500],
            usable,
        )


def _read_password(settings: Session) -> str:
    if settings.password_env is None:
        return ""
    password = os.environ.get(settings.password_env)
    if password is None:
        raise SessionError(
            f"auth: environment variable {settings.password_env} is not set; session.password_env names it"
        )
    return password


def _describe(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]
