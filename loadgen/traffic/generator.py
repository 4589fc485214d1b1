"""The generator process: Locust, its users, and the load that they carry.

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
from functools import partial
from typing import Any

from loadgen.channel import Outlet, parse_line, raise_file_limit, read_settings
from loadgen.plan import Step
from loadgen.traffic.sending import Sending
from loadgen.traffic.shape import PlanShape
from loadgen.traffic.users import ProfileUser, ReportQueue, get_engine

__all__ = ["main"]


class Generator:
    """Joins the conductor's commands, Locust and the load."""

    def __init__(self, settings: dict[str, Any], outlet: Outlet) -> None:
        self._outlet = outlet
        self._notify = settings["notify"]
        self._engine = get_engine()
        self._sending = Sending({**settings, "followed": bool(self._notify)}, outlet)
        ProfileUser.load = self._sending.load
        self._shape = PlanShape()
        self._environment = Environment(user_classes=[ProfileUser], shape_class=self._shape, reset_stats=False)
        self._environment.create_local_runner()
        self._environment.stop_timeout = 2 * self._sending.load.profile.session.reply_timeout_s
        self._environment.events.spawning_complete.add_listener(self._note_users)
        self._reports = ReportQueue(self._environment, self._engine)
        self._sending.load.on_reports = self._reports.put

    def run(self) -> None:
        """Drive Locust until the conductor says quit or goes away."""
        self._reports.start()
        self._engine.run(self._start())
        runner = self._environment.runner
        runner.start_shape()
        runner.shape_greenlet.join()
        self._engine.run(self._sending.finish())
        gevent.sleep(0)
        self._reports.drain()
        total = self._environment.stats.total
        self._engine.run(self._say_totals(total.num_requests, total.num_failures))

    # -- on the loop --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._sending.start()
        if self._notify:
            # the writer is kept: dropped, it would close the connection
            reader, self._arrivals = await asyncio.open_unix_connection(self._notify)
            self._sending.spawn(self._follow_arrivals(reader))
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), os.fdopen(0, "rb", 0))
        self._sending.spawn(self._follow_commands(commands))
        self._outlet.write_event("ready", pid=os.getpid())

    async def _follow_arrivals(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while data := await reader.read(65536):
            lines, newline, rest = (rest + data).rpartition(b"\n")
            self._sending.take_arrivals(lines + newline)

    async def _follow_commands(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            command = parse_line(line)
            await self._sending.obey(command)
            if command["command"] == "phase":
                step, phase = Step(**command["step"]), command["phase"]
                self._engine.call_in_hub(partial(self._set_phase, step, phase))
            elif command["command"] == "quit":
                self._engine.call_in_hub(self._quit)
        # the conductor has finished with us, or is gone: no load may go on without it
        await self._sending.end_alone()
        self._engine.call_in_hub(self._quit)

    async def _say_totals(self, requests: int, failures: int) -> None:
        self._outlet.write_event("locust", requests=requests, failures=failures)

    # -- in Locust's thread -------------------------------------------------------------------------------

    def _note_users(self, user_count: int) -> None:
        if user_count == 0:
            self._engine.loop.call_soon_threadsafe(self._sending.idle.set)

    def _set_phase(self, step: Step, phase: str) -> None:
        self._shape.step = step
        self._shape.phase = phase
        if phase == "drain" and self._shape.asked == 0:
            # stopped before Locust was asked for users: it will not be asked for none, and has nothing to say
            self._note_users(0)

    def _quit(self) -> None:
        self._shape.finished = True


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
