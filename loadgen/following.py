"""One message, put into the filter and followed to where it comes out: the third probe of the guide (2.4.3).

It has the null sender, so nothing ever bounces to anybody, and goes to an
address whose mail comes out at our own sink, or to one that the user names.
What became of it is told by the filter's reply, the log lines with its ids, and the sink.
"""

import asyncio
import re
import secrets
import smtplib
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from loadgen.chain.spec import Address
from loadgen.child import Child, python_module
from loadgen.collect.follow import LogFollower
from loadgen.errors import UsageError
from loadgen.traffic.message import ID_DOMAIN, ID_HEADER

__all__ = ["Passage", "Way", "follow_message"]

_REPLY_TIMEOUT_S = 60.0
_LOG_EVERY_S = 0.05
_LOG_LAG_S = 2.0
_QUEUED_AS = re.compile(r"queued as ([0-9A-Za-z]{6,})", re.ASCII)
_AMAVIS_ID = re.compile(r"\bid=(\d+-\d+(?:-\d+)?)", re.ASCII)
_SENT = re.compile(r"relay=(?P<relay>[^,]+),.* status=(?P<status>[a-z]+) \((?P<text>.*)\)$")
_HANDED_BACK = re.compile(r"\bMTA\(")


@dataclass(frozen=True)
class Way:
    """What is known of the way before a message is sent."""

    filter: Address
    recipient: str
    sink: Address | None
    """Where it comes out; None: not at us."""
    mail_log: Path | None
    """None: not known, or not to be read."""
    filter_log: Path | None
    """amavisd's own, where it has one and it may be read."""

    @property
    def shows_its_end(self) -> bool:
        """Whether anything here tells that a message has come out."""
        return self.sink is not None or self.mail_log is not None


@dataclass(frozen=True)
class Passage:
    """What became of it."""

    outcome: str
    """delivered, refused (by the filter), not handed back, blocked, looping, deferred, bounced, lost from sight, or
    handed back, where nothing here tells what became of it then."""
    text: str
    """The evidence in one line."""
    queue_id: str
    """That it had after reinjection; empty: it was not seen there."""
    lines: tuple[str, ...]
    """Log lines with one of its ids, in their order."""


def follow_message(way: Way, timeout_s: float = 10.0) -> Passage:
    """Send one message along *way*, wait until it has come out or *timeout_s* has passed, and say what became of it.

    Raises:
        UsageError: the sink cannot be opened.
        OSError: the filter does not answer.
        smtplib.SMTPException: it does not speak SMTP.
    """
    return asyncio.run(_follow(way, timeout_s))


async def _follow(way: Way, timeout_s: float) -> Passage:
    run_id = secrets.token_hex(8)
    arrived = asyncio.Event()
    trail = _Trail(way, f"{run_id}.probe")
    async with AsyncExitStack() as stack:
        if way.sink is not None:
            await _open_sink(stack, way.sink, run_id, arrived.set)
        begun = time.monotonic()
        reply = await asyncio.to_thread(_send, way, f"{run_id}.probe")
        trail.begin(reply)
        until = begun + timeout_s
        while time.monotonic() < until:
            trail.read()
            if trail.is_over(came_out=arrived.is_set()):
                break
            if arrived.is_set():  # the log is not long in coming, if it comes
                until = min(until, time.monotonic() + _LOG_LAG_S)
            await asyncio.sleep(_LOG_EVERY_S)
        return trail.judge(reply, came_out=arrived.is_set(), took_s=time.monotonic() - begun)


async def _open_sink(stack: AsyncExitStack, place: Address, run_id: str, on_arrival: Callable[[], None]) -> None:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadgen-check-")))

    def take(_: str, line: dict[str, Any]) -> None:
        if line.get("table") == "arrival":
            on_arrival()

    sink = Child("sink", take)
    sink.expect("ready")
    settings = {
        "host": place.host, "port": place.port, "run_id": run_id, "clock_origin": time.monotonic(),
        "notify": str(directory / "arrivals"),
    }  # fmt: skip
    await sink.start(python_module("loadgen.traffic.sink"), settings, directory / "sink.log")
    stack.push_async_callback(sink.end)
    try:
        await sink.receive("ready", 10.0)
    except UsageError as error:
        raise UsageError(f"{place}, where mail comes out: {error}; is a run going on?") from error


def _send(way: Way, message_id: str) -> tuple[int, str]:
    """Return code and text of the filter's last reply."""
    message = (
        f"From: check@{ID_DOMAIN}\r\nTo: {way.recipient}\r\nSubject: test of the mail chain\r\nDate: {formatdate()}\r\n"
        f"Message-ID: <{message_id}@{ID_DOMAIN}>\r\n{ID_HEADER}: {message_id}\r\n\r\n"
        "One message of 'loadgen check', followed through the filter and back.\r\n"
    ).encode("ascii")
    with smtplib.SMTP(way.filter.host, way.filter.port, timeout=_REPLY_TIMEOUT_S) as session:
        session.ehlo("check.loadgen.test")
        for code, text in (session.mail(""), session.rcpt(way.recipient)):
            if code >= 400:
                return code, text.decode("ascii", "replace")
        try:
            code, text = session.data(message)
        except smtplib.SMTPDataError as error:  # refused before the content
            code, text = error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""
        return code, text.decode("ascii", "replace")


class _Trail:
    """The log lines of one message, as they are written."""

    def __init__(self, way: Way, message_id: str) -> None:
        self._way = way
        self._marks = [f"<{message_id}@{ID_DOMAIN}>"]
        self._followers = [LogFollower(path) for path in (way.mail_log, way.filter_log) if path is not None]
        self._lines: list[str] = []
        self._unclaimed: list[str] = []
        self.queue_id = ""
        self._read_new()  # from here on

    def begin(self, reply: tuple[int, str]) -> None:
        """Note the ids in the filter's reply."""
        code, text = reply
        if code == 250 and (queued := _QUEUED_AS.search(text)) is not None:
            self.queue_id = queued[1]
            self._marks.append(f"{queued[1]}:")
        if (task := _AMAVIS_ID.search(text)) is not None:
            self._marks.append(f"({task[1]})")

    def read(self) -> None:
        """Take the new lines that are about it; others may turn out to be, once an id of theirs is known."""
        self._unclaimed += self._read_new()
        before = -1
        while before != len(self._lines):
            before = len(self._lines)
            mine = [line for line in self._unclaimed if any(mark in line for mark in self._marks)]
            self._unclaimed = [line for line in self._unclaimed if line not in mine]
            self._lines += mine

    def is_over(self, *, came_out: bool) -> bool:
        """Return whether there is nothing more to wait for."""
        if not self.queue_id:
            return bool(self._lines) or not self._followers
        deliveries = self._deliveries()
        if came_out or not self._way.shows_its_end:
            return bool(deliveries) or self._way.mail_log is None
        return any(found["status"] in ("bounced", "deferred") or self._is_filter(found) for found in deliveries) or (
            self._way.sink is None and bool(deliveries)
        )

    def judge(self, reply: tuple[int, str], *, came_out: bool, took_s: float) -> Passage:
        """Return what became of the message."""
        code, text = reply
        said = f"{code} {' '.join(text.split())}"
        for follower in self._followers:
            follower.close()
        if code != 250:
            outcome = "not handed back" if _HANDED_BACK.search(text) else "refused"
            return self._passage(outcome, f"amavisd answered {said}")
        if not self.queue_id:
            return self._passage("blocked", f"amavisd took it and did not hand it back: {said}")
        deliveries = self._deliveries()
        if any(self._is_filter(found) for found in deliveries):
            return self._passage(
                "looping", f"reinjected as {self.queue_id}, and handed to the filter again: reinjected mail is filtered"
            )
        last = deliveries[-1] if deliveries else None
        if came_out or (last is not None and last["status"] == "sent"):
            where = f"at {self._way.sink}" if came_out else f"by {last['relay']}" if last is not None else ""
            return self._passage(
                "delivered", f"scanned, reinjected as {self.queue_id}, delivered {where} after {took_s:.1f} s"
            )
        if last is not None:
            return self._passage(
                last["status"], f"reinjected as {self.queue_id}, then {last['status']}: {last['text']}"
            )
        if not self._way.shows_its_end:
            return self._passage(
                "handed back",
                f"reinjected as {self.queue_id}; what became of it then is told by a mail log that is not here",
            )
        return self._passage(
            "lost from sight", f"reinjected as {self.queue_id}, and not seen to be delivered within {took_s:.0f} s"
        )

    def _passage(self, outcome: str, text: str) -> Passage:
        return Passage(outcome, text, self.queue_id, tuple(self._lines))

    def _deliveries(self) -> Sequence["re.Match[str]"]:
        mine = [line for line in self._lines if f"{self.queue_id}: to=<" in line]
        return [found for line in mine if (found := _SENT.search(line)) is not None]

    def _is_filter(self, delivery: "re.Match[str]") -> bool:
        return delivery["relay"].endswith(f"]:{self._way.filter.port}") or (
            delivery["relay"] == "none" and f"]:{self._way.filter.port}:" in delivery["text"]
        )

    def _read_new(self) -> list[str]:
        return [line for follower in self._followers for line in follower.poll(time.monotonic())]
