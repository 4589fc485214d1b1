"""The generator process of a run with several workers: Locust's master, between the conductor and those that send.

Started by the conductor as `python -m loadgen.traffic.master`, with the same
commands and rows as the single generator. Locust deals users out to the
workers; what they say goes on to the conductor, and a worker that is lost is
named within five seconds.
"""

import gevent
import gevent.event
from locust import runners
from locust.env import Environment
from locust.log import setup_logging

import asyncio
import os
import signal
import time
from functools import partial
from typing import Any

import orjson

from loadgen.channel import Outlet, parse_line, raise_file_limit, read_settings
from loadgen.plan import Step
from loadgen.profile import parse_profile
from loadgen.traffic.message import FIRST_OF_WORKER
from loadgen.traffic.shape import PlanShape
from loadgen.traffic.users import ProfileUser, get_engine
from loadgen.traffic.worker import MESSAGE, this_boot

__all__ = ["main"]

_ROWS = b'{"table":'
_GATHER_S = 0.001
"""Arrivals are gathered so long before the workers are told of them."""
_LIVENESS = 2
"""Heartbeats, one a second, that may be missing."""
_LOOK_EVERY_S = 0.25
_FAREWELL_S = 5.0
"""Longest wait for the last words of the workers."""


class _Peer:
    """What is known of one worker."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.ready = False
        self.closed = True
        self.sessions = 0
        self.opened = 0
        self.numbered = index * FIRST_OF_WORKER
        """Number of its next message, when it last said so."""
        self.lost = False
        self.gone = False
        """It has said its last word, as it was told to."""


class Master:
    """Joins the conductor's commands and Locust's workers."""

    def __init__(self, settings: dict[str, Any], outlet: Outlet) -> None:
        self._outlet = outlet
        self._settings = settings
        self._wanted = settings["workers"]
        self._engine = get_engine()
        self._peers: dict[str, _Peer] = {}
        self._shape = PlanShape()
        self._environment = Environment(user_classes=[ProfileUser], shape_class=self._shape, reset_stats=False)
        runners.HEARTBEAT_LIVENESS = _LIVENESS
        self._runner = self._environment.create_master_runner(settings["bind_host"], settings["bind_port"])
        profile = parse_profile(settings["profile_text"], "profile")
        self._environment.stop_timeout = 2 * profile.session.reply_timeout_s
        self._environment.events.spawning_complete.add_listener(self._note_users)
        self._runner.register_message(MESSAGE, self._take)
        self._all_ready = gevent.event.Event()
        self._ended = gevent.event.Event()
        self._gathered: list[bytes] = []
        """Lines about arrivals that no worker has been told yet."""
        self._idle = True
        self._step = 0
        self._announced = True
        """The end of the present step's load has been told to the conductor."""

    def run(self) -> None:
        """Wait for the workers, then drive Locust until the conductor says quit or goes away."""
        self._engine.run(self._follow_stdin())
        gevent.spawn(self._watch_workers)
        self._outlet.write_event("listening", port=self._settings["bind_port"])
        self._all_ready.wait()
        self._outlet.write_event("ready", pid=os.getpid())
        self._runner.start_shape()
        self._ended.wait()
        # the shape is not asked to end: Locust would then let every worker wait for its whole stop timeout
        self._farewell()
        self._runner.quit()
        total = self._environment.stats.total
        self._outlet.write_event("locust", requests=total.num_requests, failures=total.num_failures)

    # -- the conductor's commands, on the loop ------------------------------------------------------------

    async def _follow_stdin(self) -> None:
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), os.fdopen(0, "rb", 0))
        self._tasks = [asyncio.create_task(self._follow_commands(commands))]
        if self._settings["notify"]:
            # the writer is kept: dropped, it would close the connection
            arrivals, self._arrivals = await asyncio.open_unix_connection(self._settings["notify"])
            self._tasks.append(asyncio.create_task(self._follow_arrivals(arrivals)))

    async def _follow_commands(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self._engine.call_in_hub(partial(self._obey, line))
        self._engine.call_in_hub(self._stop_all)

    async def _follow_arrivals(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while data := await reader.read(65536):
            lines, _, rest = (rest + data).rpartition(b"\n")
            self._engine.call_in_hub(partial(self._gather, lines))

    # -- in Locust's thread -------------------------------------------------------------------------------

    def _obey(self, line: bytes) -> None:
        command = parse_line(line)
        if command["command"] == "probe":
            first = next((name for name, peer in self._peers.items() if not peer.lost), None)
            if first is not None:
                self._runner.send_message(MESSAGE, {"command": line}, first)
            return
        self._tell_all({"command": line})
        if command["command"] == "quit":
            self._quit()
        elif command["command"] == "phase":
            self._set_phase(Step(**command["step"]), command["phase"])

    def _set_phase(self, step: Step, phase: str) -> None:
        if phase == "ramp":
            self._step, self._announced, self._idle = step.step, False, False
            for peer in self._peers.values():
                peer.closed, peer.sessions, peer.opened = peer.lost, 0, 0
        self._shape.step = step
        self._shape.phase = phase
        if phase == "drain" and self._shape.asked == 0:
            # stopped before Locust was asked for users: it will not be asked for none, and has nothing to say
            self._note_users(0)

    def _tell_all(self, data: dict[str, Any]) -> None:
        for name, peer in self._peers.items():
            if not peer.lost:
                self._runner.send_message(MESSAGE, data, name)

    def _gather(self, lines: bytes) -> None:
        if not self._gathered:
            gevent.spawn_later(_GATHER_S, self._deal_out)
        self._gathered.append(lines)

    def _deal_out(self) -> None:
        """Send every line about an arrival to the worker whose message it is."""
        own: dict[int, list[bytes]] = {}
        lines, self._gathered = b"\n".join(self._gathered), []
        for line in lines.splitlines():
            number = line.partition(b" ")[0].rpartition(b".")[2]
            own.setdefault(int(number) // FIRST_OF_WORKER if number.isdigit() else 0, []).append(line)
        for name, peer in self._peers.items():
            if (mine := own.get(peer.index)) and not peer.lost:
                self._runner.send_message(MESSAGE, {"arrivals": b"\n".join(mine)}, name)

    def _take(self, msg: Any, **_: Any) -> None:
        """Act on one message of a worker."""
        name, data = msg.node_id, msg.data
        if "hello" in data:
            if len(self._peers) < self._wanted:
                self._peers[name] = _Peer(self._runner.get_worker_index(name))
                followed = bool(self._settings["notify"])
                settings = {**self._settings, "share": 1 / self._wanted, "followed": followed}
                self._runner.send_message(MESSAGE, {"settings": settings, "boot": this_boot()}, name)
        elif "clock" in data:
            self._runner.send_message(MESSAGE, {"clock": data["clock"], "at": time.monotonic()}, name)
        elif "farewell" in data and name in self._peers:
            self._peers[name].gone = True
        elif "line" in data and name in self._peers:
            self._pass_on(self._peers[name], data["line"])

    def _pass_on(self, peer: _Peer, line: bytes) -> None:
        if line.startswith(_ROWS):  # most of what there is: not worth reading twice
            self._outlet.pass_on(line)
            return
        value = orjson.loads(line)
        match value["event"]:
            case "ready":
                peer.ready = True
                error_s = value["clock_error_s"]
                self._outlet.write_event("worker", worker=peer.index, pid=value["pid"], clock_error_s=error_s)
                if sum(one.ready for one in self._peers.values()) == self._wanted:
                    self._all_ready.set()
            case "load":
                peer.sessions, peer.opened, peer.numbered = value["sessions"], value["opened"], value["numbered"]
                alive = [one for one in self._peers.values() if not one.lost]
                sessions, opened = sum(one.sessions for one in alive), sum(one.opened for one in self._peers.values())
                self._outlet.write_event("load", sessions=sessions, opened=opened)
            case "closed":
                peer.closed = value["step"] == self._step
                self._announce_closed()
            case _:
                self._outlet.write_event(**value)

    def _announce_closed(self) -> None:
        if self._idle and not self._announced and all(peer.closed or peer.lost for peer in self._peers.values()):
            self._announced = True
            self._outlet.write_event("closed", step=self._step)

    def _note_users(self, user_count: int) -> None:
        if user_count == 0:
            self._idle = True
            self._announce_closed()

    def _watch_workers(self) -> None:
        """Tell the conductor of workers that Locust has given up."""
        while not self._ended.wait(_LOOK_EVERY_S):
            known = self._runner.clients
            for name, peer in self._peers.items():
                if not peer.lost and (name not in known or known[name].state == runners.STATE_MISSING):
                    peer.lost = True
                    first = peer.index * FIRST_OF_WORKER
                    self._outlet.write_event("worker_lost", worker=peer.index, first=first, numbered=peer.numbered)
                    self._announce_closed()

    def _farewell(self) -> None:
        """Wait until every worker has sent its last rows and counts."""
        with gevent.Timeout(_FAREWELL_S, False):
            while not all(peer.gone or peer.lost for peer in self._peers.values()):
                gevent.sleep(0.02)

    def _stop_all(self) -> None:
        """End the run: the conductor has finished with us, or is gone."""
        if not self._ended.is_set():
            self._tell_all({"command": orjson.dumps({"command": "quit"})})
            self._quit()

    def _quit(self) -> None:
        self._all_ready.set()
        self._ended.set()


def main() -> None:
    """Run the master process: settings and commands from standard input, rows to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    settings = read_settings()
    setup_logging("WARNING")
    Master(settings, Outlet()).run()
    os._exit(0)  # the engine's thread has no other end, and everything is written


if __name__ == "__main__":
    main()
