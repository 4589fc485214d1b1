"""Locust users: one user, one SMTP session.

`SmtpUser` is for locustfiles: `send()` carries one message and reports it to
Locust, so that tasks, wait times, events and statistics work as with any
other user. `ProfileUser` is what `loadgen run` drives: its one task is a whole
session, paced by the profile on the engine's loop.
"""

import gevent
import gevent.event
from locust import User, task
from locust.stats import StatsEntry, bucket_response_time

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from typing import Any, ClassVar

from loadgen.errors import SafetyError
from loadgen.profile import Message, Session
from loadgen.safety import check_domain, resolve_target
from loadgen.traffic.connect import Endpoint, SessionError
from loadgen.traffic.engine import Engine
from loadgen.traffic.load import Load, Report
from loadgen.traffic.message import MessageFactory
from loadgen.traffic.session import SmtpSession, Transaction
from loadgen.traffic.slot import Slot

__all__ = ["ProfileUser", "ReportQueue", "SmtpUser", "add_reports", "fire_reports"]

REQUEST_TYPE = "SMTP"

_engines: dict[int, Engine] = {}


def get_engine() -> Engine:
    """Return this process's engine; Locust may fork, so it is made by the first user, not by an import."""
    return _engines.get(os.getpid()) or _engines.setdefault(os.getpid(), Engine())


class SmtpUser(User):  # type: ignore[misc]
    """One SMTP session, kept open from message to message.

    Set `host` to the front's address, "127.0.0.1:25", and call `self.send()` in
    tasks. Only loopback and private addresses, and domains reserved for tests,
    are accepted unless `allowed_targets` and `allowed_domains` name others.
    """

    abstract = True

    message: ClassVar[Message] = Message()
    """What is sent: size or mix, recipients, domains, as in a profile's [message]."""
    session: ClassVar[Session] = Session()
    """How the session is opened, as in a profile's [session]."""
    seed: ClassVar[int] = 1
    allowed_targets: ClassVar[tuple[str, ...]] = ()
    allowed_domains: ClassVar[tuple[str, ...]] = ()

    _factories: ClassVar[dict[tuple[int, type], MessageFactory]] = {}
    _numbers: ClassVar[dict[tuple[int, type], int]] = {}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._session: SmtpSession | None = None
        self._endpoint: Endpoint | None = None

    def send(self, name: str = "message") -> Transaction:
        """Send one message, opening the session if there is none, and report it to Locust as *name*.

        A session that does not open is reported as a failure of "connect", and the
        transaction returned has the outcome "not_sent".
        """
        engine = get_engine()
        endpoint = self._find_endpoint()
        if self._session is None or not self._session.usable:
            begun = time.monotonic()
            try:
                self._session = engine.run(SmtpSession.open(endpoint))
            except SessionError as error:
                now = time.monotonic()
                fire_reports(self.environment, [Report("connect", now - begun, 0, str(error))])
                return Transaction(begun, now, None, None, "not_sent", None, str(error), 0, False)
            fire_reports(self.environment, [Report("connect", time.monotonic() - begun, 0, "")])
        message = self._make_message()
        transaction = engine.run(self._session.send(message))
        error_text = "" if transaction.outcome == "accepted" else f"{transaction.outcome}: {transaction.reply}"
        elapsed_s = transaction.ended_at - transaction.started_at
        fire_reports(self.environment, [Report(name, elapsed_s, message.size_bytes, error_text)])
        if not transaction.usable:
            self._session.abort()
            self._session = None
        return transaction

    def on_stop(self) -> None:
        """Close the session when Locust stops this user."""
        if self._session is not None:
            get_engine().run(self._session.close())
            self._session = None

    def _find_endpoint(self) -> Endpoint:
        if self._endpoint is None:
            host, _, port = (self.host or "").removeprefix("smtp://").rpartition(":")
            if not host or not port.isdigit():
                raise SafetyError(f'{type(self).__name__}.host: got "{self.host}", want "host:port" of the front')
            for role, domain in self.message.domains:
                check_domain(domain, role, self.allowed_domains)
            address = resolve_target(host.strip("[]"), int(port), self.allowed_targets)
            self._endpoint = Endpoint(address, int(port), self.session)
        return self._endpoint

    def _make_message(self) -> Any:
        key = (os.getpid(), type(self))
        if key not in self._factories:
            self._factories[key] = MessageFactory(self.message, self.seed, os.urandom(4).hex())
        number = self._numbers[key] = self._numbers.get(key, -1) + 1
        return self._factories[key].make_message(number)


class ProfileUser(User):  # type: ignore[misc]
    """The user of `loadgen run`: one slot of the load, for one step."""

    load: ClassVar[Load]
    """Set by the generator before Locust starts."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        step = self.load.step
        self._slot = Slot(self.load, step) if step is not None else None
        self._told_to_stop = gevent.event.Event()

    @task  # type: ignore[untyped-decorator]
    def run_session(self) -> None:
        """Carry messages until the step's load ends, then wait until Locust has counted this user out."""
        if self._slot is not None:
            with suppress(asyncio.CancelledError):  # the load was cut; the slot has recorded what that meant
                get_engine().run(self._slot.run())
        self._told_to_stop.wait()

    def stop(self, force: bool = False) -> bool:
        """Let the transaction in progress finish; with *force*, record its fate and stop at once."""
        stopped = bool(super().stop(force))
        self._told_to_stop.set()
        if not stopped and self._slot is not None:
            get_engine().loop.call_soon_threadsafe(self._slot.finish)
        return stopped


class ReportQueue:
    """Brings reports from the engine's loop to Locust's thread, a batch at a time."""

    def __init__(self, environment: Any, engine: Engine) -> None:
        self._environment = environment
        self._engine = engine
        self._reports: list[Report] = []
        self._have_some = gevent.event.Event()

    def start(self) -> None:
        """Begin to hand reports to Locust as they come; from Locust's thread."""
        gevent.spawn(self._follow)

    def put(self, reports: list[Report]) -> None:
        """Take *reports*, from the loop."""

        def add() -> None:
            self._reports += reports
            self._have_some.set()

        self._engine.call_in_hub(add)

    def drain(self) -> None:
        """Hand over what there is; from Locust's thread."""
        self._have_some.clear()
        reports, self._reports = self._reports, []
        add_reports(self._environment, reports)

    def _follow(self) -> None:
        while True:
            self._have_some.wait()
            self.drain()


def fire_reports(environment: Any, reports: list[Report]) -> None:
    """Hand transactions to Locust's events, one by one: listeners of `events.request` see each."""
    for report in reports:
        environment.events.request.fire(
            request_type=REQUEST_TYPE,
            name=report.name,
            response_time=report.response_s * 1000,
            response_length=report.size_bytes,
            exception=OSError(report.error) if report.error else None,
            context={},
        )


def add_reports(environment: Any, reports: list[Report]) -> None:
    """Hand a batch of transactions to Locust's statistics, with one addition for each name instead of one event for each.

    What Locust then shows is what it would show after `fire_reports`, which it
    still is where somebody besides Locust listens, and for failures.
    """
    if len(environment.events.request._handlers) > 1:
        fire_reports(environment, reports)
        return
    failures = [report for report in reports if report.error]
    if failures:
        fire_reports(environment, failures)
        reports = [report for report in reports if not report.error]
    now_s = time.time()
    for name in {report.name for report in reports}:
        mine = [report for report in reports if report.name == name]
        times_ms = [report.response_s * 1000 for report in mine]
        entry = StatsEntry(environment.stats, name, REQUEST_TYPE)
        entry.num_requests = len(mine)
        entry.total_response_time = sum(times_ms)
        entry.min_response_time, entry.max_response_time = min(times_ms), max(times_ms)
        entry.response_times = Counter(map(bucket_response_time, times_ms))
        entry.num_reqs_per_sec = {int(now_s): len(mine)}
        entry.total_content_length = sum(report.size_bytes for report in mine)
        entry.last_request_timestamp = now_s
        environment.stats.entries[(name, REQUEST_TYPE)].extend(entry)
        environment.stats.total.extend(entry)
