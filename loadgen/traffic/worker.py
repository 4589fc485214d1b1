"""One of several generators, on this machine or another: a Locust worker that sends, as its master says.

Started by the conductor as `python -m loadgen.traffic.worker HOST:PORT`, or by
hand as `loadgen worker --master HOST:PORT`. Commands, arrivals, rows and
events travel in Locust's own messages between worker and master. A worker whose
master falls silent stops its load and ends within five seconds: nobody would
stop it otherwise.
"""

import gevent
from locust.env import Environment
from locust.exception import RPCError
from locust.log import setup_logging

import os
import socket
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson

from loadgen.channel import Outlet, parse_line, raise_file_limit
from loadgen.traffic.engine import Engine
from loadgen.traffic.message import FIRST_OF_WORKER
from loadgen.traffic.sending import Sending
from loadgen.traffic.users import ProfileUser, ReportQueue, get_engine

__all__ = ["MESSAGE", "main", "this_boot"]

MESSAGE = "loadgen"
"""Type of our messages among Locust's."""
_MASTER_SILENT_S = 4.0
_CLOCK_READINGS = 7
"""The reading with the shortest way there and back says how far the clocks are apart."""


def this_boot() -> str:
    """Return what tells one boot of one machine from any other: on the same, clocks agree."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class _MasterOutlet(Outlet):
    """Sends rows and events to the master, from whichever thread they come."""

    def __init__(self, engine: Engine, runner: Any) -> None:
        self._engine = engine
        self._runner = runner

    def _write(self, value: dict[str, Any]) -> None:
        data = orjson.dumps(value)
        self._engine.call_in_hub(lambda: self._runner.send_message(MESSAGE, {"line": data}))


class _Worker:
    """Joins one Locust worker and the load."""

    def __init__(self, host: str, port: int) -> None:
        self._engine = get_engine()
        self._environment = Environment(user_classes=[ProfileUser], reset_stats=False)
        self._heard_at = time.monotonic()
        self._sending: Sending | None = None
        self._settings: dict[str, Any] | None = None
        self._clock: list[tuple[float, float]] = []
        """Seconds there and back, and how far the master's clock is ahead, of each reading."""
        self._environment.events.heartbeat_received.add_listener(self._note_heartbeat)
        self._runner = self._environment.create_worker_runner(host, port)
        self._runner.register_message(MESSAGE, self._take)
        self._reports = ReportQueue(self._environment, self._engine)

    def run(self) -> None:
        """Send until the master says quit or falls silent."""
        self._reports.start()
        self._say({"hello": True})
        gevent.spawn(self._watch_master)
        self._runner.greenlet.join()

    def _say(self, data: dict[str, Any]) -> None:
        self._runner.send_message(MESSAGE, data)

    def _note_heartbeat(self, **_: Any) -> None:
        self._heard_at = time.monotonic()

    def _watch_master(self) -> None:
        while True:
            gevent.sleep(0.5)
            if time.monotonic() - self._heard_at > _MASTER_SILENT_S:
                print("the master has fallen silent; stopping", file=sys.stderr, flush=True)  # noqa: T201 (our log)
                if self._sending is not None:
                    self._engine.run(self._sending.end_alone())
                os._exit(1)

    def _take(self, msg: Any, **_: Any) -> None:
        """Act on one message of the master, in the order in which they come."""
        data = msg.data
        if "clock" in data:
            self._read_clock(data["clock"], data["at"])
        elif "settings" in data:
            self._settings = data["settings"]
            self._same_boot = data["boot"] == this_boot()
            self._prepare_when_clock_is_known()
        elif "command" in data and self._sending is not None:
            command = parse_line(data["command"])
            # Locust's next message may start users, which need the step
            self._engine.run(self._sending.obey(command))
            if command["command"] == "quit":
                self._finish(self._sending)
        elif "arrivals" in data and self._sending is not None:
            self._engine.loop.call_soon_threadsafe(self._sending.take_arrivals, data["arrivals"])

    def _finish(self, sending: Sending) -> None:
        """Send what there is to the master, and say that this was all."""
        self._engine.run(sending.finish())
        gevent.sleep(0)  # what the loop has handed over goes out first
        self._reports.drain()
        self._runner._send_stats()
        self._say({"farewell": True})

    def _read_clock(self, asked_at: float, master_at: float) -> None:
        now = time.monotonic()
        self._clock.append((now - asked_at, master_at - (asked_at + now) / 2))
        self._prepare_when_clock_is_known()

    def _prepare_when_clock_is_known(self) -> None:
        if self._settings is None or self._sending is not None:
            return
        if not self._same_boot and len(self._clock) < _CLOCK_READINGS:
            self._say({"clock": time.monotonic()})
            return
        if not self._same_boot and (text := _cannot_reach(self._settings["entries"])):
            self._say({"line": orjson.dumps({"event": "failed", "reason": f"{socket.gethostname()}: {text}"})})
            return
        ahead = 0.0 if self._same_boot else min(self._clock)[1]
        index = self._runner.worker_index
        settings = {
            **self._settings,
            # the origin on this machine's clock
            "clock_origin": self._settings["clock_origin"] - ahead,
            "first_message": index * FIRST_OF_WORKER,
            "first_session": self._settings["first_session"] + index * FIRST_OF_WORKER,
        }
        outlet = _MasterOutlet(self._engine, self._runner)
        sending = Sending(settings, outlet, counts_users=False)
        sending.idle.set()
        ProfileUser.load = sending.load
        sending.load.on_reports = self._reports.put
        self._environment.stop_timeout = 2 * sending.load.profile.session.reply_timeout_s
        self._sending = sending
        self._engine.run(self._begin(sending))

    async def _begin(self, sending: Sending) -> None:
        sending.start()
        error_s = 0.0 if self._same_boot else min(self._clock)[0] / 2
        sending.outlet.write_event("ready", pid=os.getpid(), clock_error_s=error_s)


def _cannot_reach(entries: dict[str, dict[str, Any]]) -> str:
    """Return why another machine cannot put messages in at one of these; empty when it can."""
    for name, entry in entries.items():
        if "command" in entry:
            return f"{name} is a command on the machine of the chain"
        if ip_address(entry["host"]).is_loopback:
            host = entry["host"]
            return f"the {name} is at {host}, which another machine cannot reach; give the chain an address of its own"
    return ""


def main() -> None:
    """Run a worker; the address of its master is the only argument."""
    address = sys.argv[1]
    host, _, port = address.rpartition(":")
    raise_file_limit()
    setup_logging("WARNING")
    try:
        worker = _Worker(host.strip("[]"), int(port))
    except (ConnectionError, RPCError) as error:
        sys.exit(f"loadgen: nobody answers at {address}: {error}")
    try:
        worker.run()
    except KeyboardInterrupt:
        os._exit(130)
    os._exit(0)  # the engine's thread has no other end, and everything is sent


if __name__ == "__main__":
    main()
