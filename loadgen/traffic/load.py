"""The load of one process: when the next message is due, what is in the chain, and the rows for the record.

What the slots (`slot`) of a process have in common: the step they belong to,
the pacing, the limits, and the messages on their way. Runs on the engine's loop
and knows nothing of Locust or gevent.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from loadgen.channel import Outlet
from loadgen.plan import Step
from loadgen.profile import Profile
from loadgen.traffic.entry import Entry
from loadgen.traffic.message import MessageFactory, OutgoingMessage
from loadgen.traffic.session import Transaction

__all__ = ["Load", "Report", "settle"]

_FLUSH_EVERY_S = 0.1
_OPENING_AT_ONCE = 32
"""Sessions of a ramp that are being opened at the same time: fewer than any front's listen queue holds."""
_GIVE_UP_AFTER = 20
"""Sessions that do not open, or messages not accepted, in a row over all slots, before the load stops."""


class Report(NamedTuple):
    """One transaction, for Locust's own statistics."""

    name: str
    response_s: float
    size_bytes: int
    error: str
    """Empty for an accepted message."""


class Holder(Protocol):
    """What a load knows of a slot."""

    finishing: asyncio.Event
    """It has been told to finish."""
    closed: asyncio.Event
    """It has finished, and its session is closed."""
    is_open: bool
    waiting_for: "asyncio.Future[None] | None"
    """Resolved when the message that it waits for has left the chain."""

    def finish(self) -> None:
        """Let the transaction in progress end, then close the session."""

    def abort(self) -> None:
        """End at once."""


class Load:
    """What the slots of this process share."""

    def __init__(
        self,
        profile: Profile,
        entries: Mapping[str, Entry],
        factory: MessageFactory,
        outlet: Outlet,
        clock_origin: float,
        *,
        first_session: int = 0,
        first_message: int = 0,
        followed: bool = True,
        starts_full: bool = False,
        share: float = 1.0,
    ) -> None:
        """Prepare for any number of steps.

        Args:
            profile: What is sent, and how it is paced.
            entries: Where sessions are opened, by the name that steps have for it.
            factory: Makes the messages.
            outlet: Takes rows and events.
            clock_origin: Of the run's clock, on the monotonic one.
            first_session: Number of the first session.
            first_message: Number of the first message.
            followed: Arrivals are reported; if not, a message counts as gone once it is accepted.
            starts_full: No message is sent before all sessions of a step are open.
            share: Part of a step's sessions that this process has.
        """
        self.profile = profile
        self.entries = entries
        self.outlet = outlet
        self.step: Step | None = None
        self.on_reports: Callable[[list[Report]], None] = lambda _: None
        self._factory = factory
        self._origin = clock_origin
        self._first_message = first_message
        self._numbered = 0
        """Messages that have a number."""
        self._followed = followed
        self._starts_full = starts_full
        self._share = share
        self._full = asyncio.Event()
        self._session_numbers = itertools.count(first_session)
        self._in_chain: dict[str, int] = {}
        """Message id to the recipients whose copy has not arrived yet."""
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._slots: set[Holder] = set()
        self.ramp_gate = asyncio.Semaphore(_OPENING_AT_ONCE)
        """Held by a slot that opens its first session."""
        self._failed_opens = 0
        self._refused_in_a_row = 0
        self._opened = 0
        self._limit_reached = False
        self._active = False
        self._due: asyncio.Queue[float] = asyncio.Queue()
        self._schedule: asyncio.Task[None] | None = None
        self._messages: list[tuple[Any, ...]] = []
        self._sessions: list[tuple[Any, ...]] = []
        self._reports: list[Report] = []
        self._sent = 0

    # -- steps --------------------------------------------------------------------------------------------

    def begin(self, step: Step) -> None:
        """Let slots that start from now on belong to *step*."""
        self.step = step
        self._active = True
        self._limit_reached = False
        self._failed_opens = 0
        self._refused_in_a_row = 0
        self._opened = 0
        self._full.clear()
        self._in_chain.clear()  # what an earlier step left is followed by its id, not waited for

    def end(self) -> None:
        """Stop the load: every slot finishes the transaction it is in and closes its session."""
        self._active = False
        if self._schedule is not None:
            self._schedule.cancel()
            self._schedule = None
        step = self.step
        while step is not None and not self._due.empty():
            due = self._due.get_nowait()
            number = self._next_number()
            message_id = f"{self._factory.run_id}.{number}"
            self._messages.append(
                (
                    message_id,
                    step.step,
                    None,
                    None,
                    None,
                    due - self._origin,
                    None,
                    None,
                    None,
                    None,
                    "dropped",
                    None,
                    "",
                )
            )
        for slot in list(self._slots):
            slot.finish()
        self._full.set()

    def abort(self) -> None:
        """Cut every session that is still open, recording the fate of its message."""
        for slot in list(self._slots):
            slot.abort()

    async def wait_until_closed(self) -> None:
        """Return when no session is open any more."""
        while self._slots:
            await next(iter(self._slots)).closed.wait()

    @property
    def open_sessions(self) -> int:
        """Sessions that are open now."""
        return sum(slot.is_open for slot in self._slots)

    def register(self, slot: Holder) -> None:
        """Count *slot* in; the first of a step starts the arrival process of pacing "rate"."""
        self._slots.add(slot)
        if not self._active:  # Locust started its user while the load was being stopped
            slot.finish()
            return
        if self._schedule is None and self.step is not None and self.step.rate_per_s is not None:
            self._schedule = asyncio.create_task(self._issue_instants(self.step))

    def unregister(self, slot: Holder) -> None:
        """Count *slot* out."""
        self._slots.discard(slot)

    async def _issue_instants(self, step: Step) -> None:
        """Put the instants at which messages are due, without regard to whether anybody is free."""
        assert step.rate_per_s is not None  # noqa: S101 (only started for such steps)
        rng = random.Random(f"{self.profile.seed}:arrivals:{step.step}")
        poisson = self.profile.pacing.arrivals == "poisson"
        due = time.monotonic()
        while True:
            due += rng.expovariate(step.rate_per_s) if poisson else 1 / step.rate_per_s
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self._due.put_nowait(due)

    # -- messages -----------------------------------------------------------------------------------------

    async def next_instant(self, slot: Holder) -> float | None:
        """Return when the slot's next message is due (a monotonic instant), or None when it is to finish."""
        if self._starts_full and not self._full.is_set():
            await self._full.wait()
        if slot.finishing.is_set() or not self._within_limits():
            return None
        if self.step is None or self.step.rate_per_s is None:
            return time.monotonic()
        due = asyncio.ensure_future(self._due.get())
        stop = asyncio.ensure_future(slot.finishing.wait())
        try:
            await asyncio.wait((due, stop), return_when=asyncio.FIRST_COMPLETED)
            if due.done():
                return due.result()
            return None
        finally:
            stop.cancel()
            if not due.done():
                due.cancel()

    def make_message(self) -> OutgoingMessage:
        """Return the next message of the profile, counted as in the chain until it is known not to be."""
        message = self._factory.make_message(self._next_number())
        if self._followed:
            self._in_chain[message.id] = len(message.recipients)
        self._sent += 1
        return message

    def _next_number(self) -> int:
        number = self._first_message + self._numbered
        self._numbered += 1
        return number

    def make_probe(self) -> OutgoingMessage:
        """Return a message like the first one, with an id that is not part of the record."""
        first = self._factory.make_message(0)
        own = f"{self._factory.run_id}.probe"
        return first._replace(id=own, head=first.head.replace(first.id.encode(), own.encode()))

    def note(self, step: Step, session: int, message: OutgoingMessage, due: float, transaction: Transaction) -> None:
        """Record what became of *message* at the front."""
        t, recipients = transaction, len(message.recipients)
        if t.outcome in ("refused", "not_sent"):
            self.note_gone((message.id,))
        elif t.recipients < recipients:  # the others were refused: no copy will come for them
            self.note_arrival(message.id, recipients - t.recipients)
            recipients = t.recipients
        self._refused_in_a_row = 0 if t.outcome == "accepted" else self._refused_in_a_row + 1
        if self._refused_in_a_row >= _GIVE_UP_AFTER and not self._limit_reached:
            self._stop_for(
                "front-refuses",
                f"{self._refused_in_a_row} messages in a row not accepted; last: {t.code or ''} {t.reply}",
            )
        self._messages.append(
            (
                message.id, step.step, session, message.size_bytes, recipients, due - self._origin,
                t.started_at - self._origin, t.ended_at - self._origin, t.envelope_s, t.data_s, t.outcome, t.code, t.reply,
            )
        )  # fmt: skip
        error = "" if t.outcome == "accepted" else f"{t.outcome}: {t.code or ''} {t.reply}"
        name = f"N={step.concurrency}" if step.entry == "front" else f"{step.entry} N={step.concurrency}"
        self._reports.append(Report(name, t.ended_at - t.started_at, message.size_bytes, error))

    def note_arrival(self, message_id: str, recipients: int) -> None:
        """Note that a copy for *recipients* recipients has arrived; the last one lets the session go on."""
        left = self._in_chain.get(message_id, 0) - recipients
        if left > 0:
            self._in_chain[message_id] = left
        else:
            self.note_gone((message_id,))

    def note_gone(self, message_ids: Iterable[str]) -> None:
        """Note that these messages have left the chain (or never entered it), and let their sessions go on."""
        for message_id in message_ids:
            self._in_chain.pop(message_id, None)
            if (waiter := self._waiters.pop(message_id, None)) is not None:
                settle(waiter)

    async def wait_delivered(self, message: OutgoingMessage, slot: Holder) -> None:
        """Return when *message* has left the chain, its time is up, or the slot is to finish."""
        if message.id not in self._in_chain:
            return
        gone = asyncio.get_running_loop().create_future()
        self._waiters[message.id] = gone
        slot.waiting_for = gone
        timer = asyncio.get_running_loop().call_later(self.profile.pacing.delivery_timeout_s, settle, gone)
        try:
            if not slot.finishing.is_set():
                await gone
        finally:
            timer.cancel()
            self._waiters.pop(message.id, None)
            slot.waiting_for = None

    def _within_limits(self) -> bool:
        limits = self.profile.limits
        if self._limit_reached:
            return False
        if len(self._in_chain) >= limits.backlog:
            kind, text = (
                "backlog-limit",
                f"{len(self._in_chain)} messages in the chain, limits.backlog is {limits.backlog}",
            )
        elif self._sent >= limits.messages:
            kind, text = "message-limit", f"{self._sent} messages sent, limits.messages is {limits.messages}"
        else:
            return True
        self._stop_for(kind, text)
        return False

    def _stop_for(self, kind: str, text: str) -> None:
        self._limit_reached = True
        self.outlet.write_rows("remark", [(time.monotonic() - self._origin, "load", kind, text)])
        self.outlet.write_event("limit", kind=kind, text=text)

    # -- sessions -----------------------------------------------------------------------------------------

    def new_session_number(self) -> int:
        """Return a number that no other session of this process has."""
        return next(self._session_numbers)

    def note_first_open(self) -> None:
        """Count a slot whose first session has opened."""
        self._opened += 1
        if self.step is not None and self._opened >= int(self._share * self.step.concurrency):
            self._full.set()

    def note_session(self, row: tuple[Any, ...], opened: bool) -> None:
        """Record a session that has ended, or failed to open."""
        self._sessions.append(row)
        if opened:
            self._failed_opens = 0

    def note_failed_open(self, error: str) -> None:
        """Count a session that did not open; too many in a row end the step."""
        self._failed_opens += 1
        if self._failed_opens >= _GIVE_UP_AFTER and not self._limit_reached:
            self._stop_for("front-unreachable", f"{self._failed_opens} sessions in a row did not open; last: {error}")

    def instant(self, monotonic: float) -> float:
        """Return a monotonic instant on the run's clock."""
        return monotonic - self._origin

    # -- record -------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send rows to the conductor and reports to Locust."""
        if self._messages:
            rows, self._messages = self._messages, []
            self.outlet.write_rows("message", rows)
        if self._sessions:
            rows, self._sessions = self._sessions, []
            self.outlet.write_rows("session", rows)
        if self._reports:
            reports, self._reports = self._reports, []
            self.on_reports(reports)

    async def flush_regularly(self) -> None:
        """Flush ten times a second, and report how late this loop runs (a saturated generator measures itself)."""
        worst, said_at = 0.0, time.monotonic()
        while True:
            before = time.monotonic()
            await asyncio.sleep(_FLUSH_EVERY_S)
            now = time.monotonic()
            worst = max(worst, now - before - _FLUSH_EVERY_S)
            self.flush()
            self.outlet.write_event(
                "load", sessions=self.open_sessions, opened=self._opened, numbered=self._first_message + self._numbered
            )
            if now - said_at >= 1.0:
                self.outlet.write_rows("sample", [(now - self._origin, "own.generator_lag_s", worst)])
                worst, said_at = 0.0, now


def settle(future: "asyncio.Future[None]") -> None:
    """Let whoever waits for *future* go on."""
    if not future.done():
        future.set_result(None)
