"""The generator process: Locust, its users, and the engine that sends for them.

Started by the conductor as `python -m loadgen.traffic.generator`. The
conductor announces the phases of a step; Locust's shape turns them into users,
users into sessions. Rows go to the conductor in batches; the sink tells of
every arrival over a socket, so that sessions can wait for delivery.
"""

import gevent
from locust.env import Environment
from locust.log import setup_logging

import asyncio
import os
import signal
import traceback
from collections.abc import Coroutine
from typing import Any

from loadgen.channel import Outlet, parse_line, raise_file_limit, read_settings
from loadgen.plan import Step
from loadgen.profile import Pacing, Profile, parse_profile
from loadgen.traffic.connect import Endpoint, SessionError
from loadgen.traffic.load import Load, Report
from loadgen.traffic.message import MessageFactory
from loadgen.traffic.session import SmtpSession
from loadgen.traffic.shape import PlanShape
from loadgen.traffic.users import ProfileUser, add_reports, get_engine

__all__ = ["main"]


_GRACE_S = 1.0
"""What a transaction in progress is given when the conductor goes away."""


class Generator:
    """Joins the conductor's commands, Locust and the load."""

    def __init__(self, settings: dict[str, Any], outlet: Outlet) -> None:
        profile = parse_profile(settings["profile_text"], "profile")
        if "as_fast_as_possible" in settings:
            profile = _unpace(profile, settings["as_fast_as_possible"])
        self._outlet = outlet
        self._notify = settings["notify"]
        self._engine = get_engine()
        endpoint = Endpoint(settings["host"], settings["port"], profile.session, profile.session.source_addresses)
        factory = MessageFactory(profile.message, profile.seed, settings["run_id"])
        factory.prepare()
        self._load = Load(
            profile, endpoint, factory, outlet, settings["clock_origin"], first_session=settings["first_session"],
            first_message=settings.get("first_message", 0), followed=bool(self._notify),
            starts_full="as_fast_as_possible" in settings,
        )  # fmt: skip
        self._load.on_reports = self._pass_reports
        ProfileUser.load = self._load
        self._shape = PlanShape()
        self._environment = Environment(user_classes=[ProfileUser], shape_class=self._shape, reset_stats=False)
        self._environment.create_local_runner()
        self._environment.stop_timeout = 2 * profile.session.reply_timeout_s
        self._idle = asyncio.Event()
        """Locust has no users: a step may begin, or has been put away."""
        self._environment.events.spawning_complete.add_listener(self._note_users)
        self._reports: list[Report] = []
        self._have_reports = gevent.event.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Drive Locust until the conductor says quit or goes away."""
        gevent.spawn(self._fire_reports)
        self._engine.run(self._start())
        runner = self._environment.runner
        runner.start_shape()
        runner.shape_greenlet.join()
        self._engine.run(self._finish())
        gevent.sleep(0)
        self._drain_reports()
        total = self._environment.stats.total
        self._engine.run(self._say_totals(total.num_requests, total.num_failures))

    # -- on the loop --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._spawn(self._load.flush_regularly())
        if self._notify:
            # the writer is kept: dropped, it would close the connection
            reader, self._arrivals = await asyncio.open_unix_connection(self._notify)
            self._spawn(self._follow_arrivals(reader))
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), os.fdopen(0, "rb", 0))
        self._spawn(self._follow_commands(commands))
        self._outlet.write_event("ready", pid=os.getpid())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run *coroutine* beside the others; if it fails, so does this process, visibly."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, BrokenPipeError):  # that is how a killed conductor looks from here
                traceback.print_exception(error)
            os._exit(1)

    async def _follow_arrivals(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while data := await reader.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message_id, _, recipients = line.decode("ascii").partition(" ")
                self._load.note_arrival(message_id, int(recipients))

    async def _follow_commands(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            await self._obey(parse_line(line))
        # the conductor has finished with us, or is gone: no load may go on without it, and nobody waits for a reply
        self._load.end()
        try:
            await asyncio.wait_for(self._load.wait_until_closed(), _GRACE_S)
        except TimeoutError:
            self._load.abort()
        self._engine.call_in_hub(self._quit)

    async def _obey(self, command: dict[str, Any]) -> None:
        match command["command"]:
            case "phase":
                step, phase = Step(**command["step"]), command["phase"]
                if phase == "ramp":
                    self._idle.clear()
                    self._load.begin(step)
                elif phase == "drain":
                    self._load.end()
                    self._spawn(self._announce_closed(step.step))
                self._engine.call_in_hub(lambda: self._set_phase(step, phase))
            case "probe":
                self._spawn(self._probe())
            case "abort":
                self._load.abort()
            case "gone":
                self._load.note_gone(command["ids"])
            case "quit":
                self._load.end()
                self._engine.call_in_hub(self._quit)

    async def _announce_closed(self, step: int) -> None:
        await self._load.wait_until_closed()
        # users that Locust still counts would be missing from the next step
        await self._idle.wait()
        self._load.flush()
        self._outlet.write_event("closed", step=step)

    async def _finish(self) -> None:
        await self._load.wait_until_closed()
        self._load.flush()

    async def _say_totals(self, requests: int, failures: int) -> None:
        self._outlet.write_event("locust", requests=requests, failures=failures)

    async def _probe(self) -> None:
        """Send one message outside the record, to show that the chain leads to the sink."""
        message = self._load.make_probe()
        try:
            session = await SmtpSession.open(self._load.endpoint)
        except SessionError as error:
            self._outlet.write_event("probe", outcome="not_sent", code=None, reply=str(error))
            return
        transaction = await session.send(message)
        await session.close()
        self._outlet.write_event("probe", outcome=transaction.outcome, code=transaction.code, reply=transaction.reply)

    # -- in Locust's thread -------------------------------------------------------------------------------

    def _note_users(self, user_count: int) -> None:
        if user_count == 0:
            self._engine.loop.call_soon_threadsafe(self._idle.set)

    def _set_phase(self, step: Step, phase: str) -> None:
        self._shape.step = step
        self._shape.phase = phase
        if phase == "drain" and self._shape.asked == 0:
            # stopped before Locust was asked for users: it will not be asked for none, and has nothing to say
            self._note_users(0)

    def _quit(self) -> None:
        self._shape.finished = True

    def _pass_reports(self, reports: list[Report]) -> None:
        def add() -> None:
            self._reports += reports
            self._have_reports.set()

        self._engine.call_in_hub(add)

    def _fire_reports(self) -> None:
        while True:
            self._have_reports.wait()
            self._drain_reports()

    def _drain_reports(self) -> None:
        self._have_reports.clear()
        reports, self._reports = self._reports, []
        add_reports(self._environment, reports)


def _unpace(profile: Profile, messages: int) -> Profile:
    """Return *profile* for *messages* messages that wait for nothing but the server's answers."""
    limits = profile.limits.model_copy(update={"messages": messages, "backlog": messages})
    return profile.model_copy(update={"pacing": Pacing(kind="accepted"), "limits": limits})


def main() -> None:
    """Run the generator process: settings and commands from standard input, rows to standard output."""
    # Ctrl-C reaches the whole foreground group; the conductor decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    settings = read_settings()
    setup_logging("WARNING")
    Generator(settings, Outlet()).run()
    os._exit(0)  # the engine's thread has no other end, and everything is written


if __name__ == "__main__":
    main()
