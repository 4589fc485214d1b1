"""A place for one session at a time: what a Locust user holds for one step.

Opens a session, sends over it as the load's pacing says, reopens it when it
breaks or has carried its share, and backs off from a front that does not
answer. However it ends, the message in progress has its fate recorded.
"""

import asyncio
import time

from loadgen.plan import Step
from loadgen.traffic.connect import SessionError
from loadgen.traffic.load import Load, settle
from loadgen.traffic.message import OutgoingMessage
from loadgen.traffic.pickup import Pickup
from loadgen.traffic.session import SmtpSession, Transaction

__all__ = ["Slot"]

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 2.0


class Slot:
    """A place for one session at a time, held by one Locust user for one step."""

    def __init__(self, load: Load, step: Step) -> None:
        self._load = load
        self._step = step
        self._entry = load.entries[step.entry]
        self.finishing = asyncio.Event()
        self.closed = asyncio.Event()
        self.is_open = False
        self.waiting_for: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_opened = False
        self._opening = False
        self._aborted = False

    def abort(self) -> None:
        """End at once; `run` records the fate of the message in progress."""
        self._aborted = True
        if self._task is not None:
            self._task.cancel()

    def finish(self) -> None:
        """Let the transaction in progress end, then close the session; from the loop's thread."""
        if self._opening and not self.finishing.is_set() and self._task is not None:
            self._task.cancel()
        self.finishing.set()
        if self.waiting_for is not None:
            settle(self.waiting_for)

    async def run(self) -> None:
        """Carry messages until told to finish; cancelled, record the fate of the one in progress and close."""
        load = self._load
        self._task = asyncio.current_task()
        load.register(self)
        backoff_s = _FIRST_BACKOFF_S
        try:
            while not self.finishing.is_set():
                number = load.new_session_number()
                begun = time.monotonic()
                try:
                    session = await self._open(number)
                    if session is None:
                        break
                except SessionError as error:
                    now = load.instant(time.monotonic())
                    load.note_session(
                        (
                            number,
                            self._step.step,
                            load.instant(begun),
                            None,
                            None,
                            None,
                            None,
                            now,
                            0,
                            str(error),
                        ),
                        False,
                    )
                    load.note_failed_open(str(error))
                    await self._pause(backoff_s)
                    backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
                    continue
                backoff_s = _FIRST_BACKOFF_S
                self.is_open = True
                if not self._has_opened:
                    self._has_opened = True
                    load.note_first_open()
                if not await self._use(session, number, begun):
                    break
        finally:
            self.is_open = False
            load.unregister(self)
            self.closed.set()

    async def _open(self, number: int) -> SmtpSession | Pickup | None:
        """Return a new session, or None when told to finish meanwhile."""
        if self.finishing.is_set():
            return None
        self._opening = True
        try:
            if self._has_opened:
                # how long the front takes to answer is part of what is measured, however many ask at once
                return await self._entry.open(number)
            # a front whose listen queue overflows would be measured by the kernel's retries
            async with self._load.ramp_gate:
                return await self._entry.open(number)
        except asyncio.CancelledError:
            if self._aborted or not self.finishing.is_set() or self._task is None or self._task.uncancel():
                raise
            return None
        finally:
            self._opening = False

    async def _use(self, session: SmtpSession | Pickup, number: int, begun: float) -> bool:
        """Send over one session until it ends; return whether another one is wanted."""
        load, carried, error, more = self._load, 0, "", True
        backoff_s = _FIRST_BACKOFF_S
        most = self._entry.session.messages_per_session if self._entry.endpoint is not None else None
        ended = None
        try:
            while session.usable:
                due = await load.next_instant(self)
                if due is None:
                    more = False
                    break
                transaction, message = await self._send(session, number, due)
                carried += 1
                if transaction.outcome == "accepted":
                    backoff_s = _FIRST_BACKOFF_S
                elif transaction.usable:
                    # a server that says no should not be asked again at once
                    await self._pause(backoff_s)
                    backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
                if not transaction.usable:
                    error = f"{transaction.outcome}: {transaction.code or ''} {transaction.reply}".strip()
                    await self._pause(_FIRST_BACKOFF_S)
                    break
                full = carried == most
                if full:  # the server's process is another's while this message is on its way
                    await session.close()
                    ended = time.monotonic()
                if load.profile.pacing.kind == "delivered" and transaction.outcome == "accepted":
                    await load.wait_delivered(message, self)
                if full:
                    break
            else:
                error = "connection lost between messages"
            await session.close()
        except asyncio.CancelledError:
            session.abort()
            raise
        finally:
            self.is_open = False
            times = session.times
            now = load.instant(ended or time.monotonic())
            load.note_session(
                (
                    number, self._step.step, load.instant(begun), times.connect_s, times.ehlo_s, times.tls_s, times.auth_s,
                    now, carried, error,
                ),
                True,
            )  # fmt: skip
        return more

    async def _send(
        self, session: SmtpSession | Pickup, number: int, due: float
    ) -> tuple[Transaction, OutgoingMessage]:
        load = self._load
        message = load.make_message()
        try:
            transaction = await session.send(message)
        except asyncio.CancelledError as cancelled:
            load.note(self._step, number, message, due, cancelled.transaction)  # type: ignore[attr-defined]
            raise
        load.note(self._step, number, message, due, transaction)
        return transaction, message

    async def _pause(self, seconds: float) -> None:
        """Wait before trying again, but not longer than until told to finish."""
        try:
            await asyncio.wait_for(self.finishing.wait(), seconds)
        except TimeoutError:
            return
