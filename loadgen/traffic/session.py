"""One SMTP or LMTP session: opened, then one transaction after another on the bare transport.

Owns the difference between "refused", "not sent" and "unknown": a connection
lost before the final dot has left this host means the server has no message; lost
after it, nobody can say (RFC 1047), and only the sink will tell. Where the
server offers PIPELINING, the envelope goes out in one write and its replies are
matched one by one (RFC 2920). aiosmtplib secures a session and logs in; then its
transport is handed to `Dialogue`. A refusal is data, never an exception.
"""

import asyncio
import contextlib
import time
from typing import NamedTuple

from loadgen.profile import Session
from loadgen.traffic.connect import Endpoint, Opened, open_plain, open_secured
from loadgen.traffic.dialogue import Broken, Reply
from loadgen.traffic.message import OutgoingMessage

__all__ = ["SmtpSession", "Transaction"]

_CHUNK = 256 * 1024


class Transaction(NamedTuple):
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
    recipients: int
    """Those that the server took, or may have taken."""
    usable: bool
    """The session can carry another transaction."""


class SmtpSession:
    """One open session; make it with `open`."""

    def __init__(self, opened: Opened, session: Session) -> None:
        self.times = opened.times
        self._dialogue = opened.dialogue
        self._timeout_s = session.reply_timeout_s
        self._size_announced = "SIZE" in opened.offers
        self.pipelining = session.pipelining and "PIPELINING" in opened.offers
        """The envelope goes out in one write."""
        self._lmtp = session.protocol == "lmtp"

    @classmethod
    async def open(cls, endpoint: Endpoint, number: int = 0) -> "SmtpSession":
        """Connect, greet, and where asked for secure and log in; *number*, the session's, decides where it comes from.

        Certificates are not verified, as between mail servers.

        Raises:
            SessionError: at any of these steps.
        """
        settings = endpoint.session
        if settings.starttls or settings.username is not None:
            return cls(await open_secured(endpoint, number), settings)
        return cls(await open_plain(endpoint, number), settings)

    @property
    def usable(self) -> bool:
        """The connection still stands."""
        return self._dialogue.alive

    async def send(self, message: OutgoingMessage) -> Transaction:
        """Carry out one transaction and return its fate; a cancelled one ends the session and is re-raised.

        The cancelled transaction is available as the exception's `transaction` attribute.
        """
        progress = _Progress(time.monotonic(), len(message.recipients))
        try:
            return await self._transact(message, progress)
        except Broken as broken:
            last = next((reply for reply in broken.replies if reply.code == 421), None)
            if last is not None and not progress.dot_written:
                self._dialogue.close()
                return progress.end("refused", last.code, last.text, False)
            return progress.end(self._fate(progress), None, str(broken), False)
        except asyncio.CancelledError as cancelled:
            outcome = self._fate(progress)
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

    def _fate(self, progress: "_Progress") -> str:
        """Return what a transaction that broke off is: the final dot may have reached the server, or not."""
        return "unknown" if progress.dot_written and self._dialogue.flushed else "not_sent"

    async def _transact(self, message: OutgoingMessage, progress: "_Progress") -> Transaction:
        dialogue = self._dialogue
        mail, recipients, data = await self._say_envelope(message)
        refusals = [reply for reply in (mail, *recipients) if reply.code >= 400]
        taken = len(recipients) - len(refusals) if mail.code == 250 else 0
        if data is None or data.code != 354:
            return await self._refused(progress, refusals[0] if refusals else data or mail)
        begun = progress.data_begun()
        if not taken:  # a server that takes content for nobody is given none (RFC 2920, 3.1)
            dialogue.write(b".\r\n")
            await dialogue.read_reply(2 * self._timeout_s)
            return progress.end("refused", *_say(refusals[0]), dialogue.alive)
        progress.recipients = taken
        await self._write_content(message, progress)
        # LMTP answers for every recipient that it took
        replies = await dialogue.read_replies(taken if self._lmtp else 1, 2 * self._timeout_s)
        progress.data_s = time.monotonic() - begun
        if not progress.dot_written:
            # the server answered before it had everything: whatever it said, it has no message
            dialogue.close()
            return progress.end("refused", *_say(replies[0]), False)
        for reply in replies:
            _check(reply, "the final dot", 250)
        usable = dialogue.alive and replies[-1].code != 421
        delivered = [reply for reply in replies if reply.code == 250]
        if not delivered:
            # what is still to leave of a message that was refused early would be taken for commands
            return progress.end("refused", *_say(replies[0]), usable and dialogue.flushed)
        progress.recipients = len(delivered) if self._lmtp else taken
        return progress.end("accepted", *_say(delivered[0]), usable)

    async def _say_envelope(self, message: OutgoingMessage) -> tuple[Reply, list[Reply], Reply | None]:
        """Return the replies to MAIL, to every RCPT and to DATA; None for a DATA that was not worth saying."""
        dialogue, timeout_s = self._dialogue, self._timeout_s
        size = f" SIZE={message.size_bytes}" if self._size_announced else ""
        mail = f"MAIL FROM:<{message.sender}>{size}\r\n"
        recipients = [f"RCPT TO:<{recipient}>\r\n" for recipient in message.recipients]
        if self.pipelining:
            dialogue.write(f"{mail}{''.join(recipients)}DATA\r\n".encode("ascii"))
            replies = await dialogue.read_replies(len(recipients) + 2, timeout_s)
            _check(replies[0], "MAIL", 250)
            for reply in replies[1:-1]:
                _check(reply, "RCPT", 250)
            return replies[0], replies[1:-1], _check(replies[-1], "DATA", 354)
        dialogue.write(mail.encode("ascii"))
        first = _check(await dialogue.read_reply(timeout_s), "MAIL", 250)
        answers: list[Reply] = []
        if first.code != 250:
            return first, answers, None
        for recipient in recipients:
            dialogue.write(recipient.encode("ascii"))
            answers.append(_check(await dialogue.read_reply(timeout_s), "RCPT", 250))
            if answers[-1].code == 421:
                return first, answers, None
        if all(answer.code >= 400 for answer in answers):
            return first, answers, None
        dialogue.write(b"DATA\r\n")
        return first, answers, _check(await dialogue.read_reply(timeout_s), "DATA", 354)

    async def _write_content(self, message: OutgoingMessage, progress: "_Progress") -> None:
        dialogue = self._dialogue
        head, body = message.head, message.body
        if len(body) <= _CHUNK:
            progress.dot_written = True
            dialogue.write(b"".join((head, body, b".\r\n")))
        else:
            dialogue.write(head)
            for start in range(0, len(body), _CHUNK):
                # a large message waits for the server between pieces
                if start:
                    await dialogue.flush(self._timeout_s)
                    if not dialogue.flushed:
                        return
                dialogue.write(body[start : start + _CHUNK])
            progress.dot_written = True
            dialogue.write(b".\r\n")
        if not dialogue.flushed:
            await dialogue.flush(self._timeout_s)

    async def _refused(self, progress: "_Progress", reply: Reply) -> Transaction:
        if reply.code == 421:
            self._dialogue.close()
            return progress.end("refused", *_say(reply), False)
        self._dialogue.write(b"RSET\r\n")
        try:
            await self._dialogue.read_reply(self._timeout_s)
        except Broken:
            return progress.end("refused", *_say(reply), False)
        return progress.end("refused", *_say(reply), True)


class _Progress:
    """How far a transaction has come, so that its end can be named at any moment."""

    def __init__(self, started_at: float, recipients: int) -> None:
        self._started_at = started_at
        self.recipients = recipients
        self._envelope_s: float | None = None
        self.data_s: float | None = None
        self.dot_written = False

    def data_begun(self) -> float:
        now = time.monotonic()
        self._envelope_s = now - self._started_at
        return now

    def end(self, outcome: str, code: int | None, reply: str, usable: bool) -> Transaction:
        return Transaction(
            self._started_at, time.monotonic(), self._envelope_s, self.data_s, outcome, code, reply[:500], self.recipients,
            usable,
        )  # fmt: skip


def _check(reply: Reply, command: str, success: int) -> Reply:
    """Return *reply* if it can be one to *command*; one that cannot belongs to another, and so may all that follow.

    Raises:
        Broken: it cannot.
    """
    if reply.code == success or 400 <= reply.code < 600 or (command == "RCPT" and reply.code in (251, 252)):
        return reply
    raise Broken(f"protocol error: {reply.code} {reply.text[:80]} in reply to {command}", [])


def _say(reply: Reply) -> tuple[int, str]:
    return reply.code, reply.text
