"""How much this machine's generator can send: against our own sink, against smtp-sink, and beside smtp-source.

A generator that saturates first measures itself. Its limit is therefore
measured before anything is measured with it, in the way in which it will be
used: in the process that `loadgen run` starts, with Locust's statistics on, every
message unique and recorded. smtp-source takes turns with it on the same sink, so
that whatever else the machine does falls on both.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from loadgen.calibration import Calibration, Contender, Load, Round
from loadgen.chain.ports import find_free_ports, wait_for_banner
from loadgen.chain.spec import Address
from loadgen.child import Child, python_module
from loadgen.errors import UsageError
from loadgen.plan import Step
from loadgen.profile import Profile, load_profile, parse_profile
from loadgen.records import RunWriter
from loadgen.workers import Workers, start_generator

__all__ = ["calibrate", "make_profile", "measure_machine"]

_TIMEOUT_S = 300.0
_MACHINE_LOAD = Load(sessions=50, messages=30_000, rounds=1)


async def measure_machine() -> float:
    """Return what this machine's generator carries now, msg/s: one short round of a fixed load into our own sink.

    A figure for the speed of the machine, to which results of other machines can be related.
    """
    text, profile = make_profile(None, None)
    found = await calibrate(profile, text, _MACHINE_LOAD, lambda _, __: None, alone=True)
    return found.capacity_per_s


def make_profile(name_or_path: str | None, size: str | None) -> tuple[str, Profile]:
    """Return text and value of what is to be sent: a profile, or 4 KiB messages, or messages of *size*.

    Raises:
        ProfileError: there is no such profile, or it says something wrong.
        UsageError: both were given.
    """
    if name_or_path is not None:
        if size is not None:
            raise UsageError(f"--size {size}: {name_or_path} has sizes of its own; give one of them")
        _, text, profile = load_profile(name_or_path)
        return text, profile
    text = f'about = "calibration"\n[message]\nsize = "{size or "4KiB"}"\n[[step]]\nconcurrency = 50\nhold = "1s"\n'
    return text, parse_profile(text, "--size")


async def calibrate(
    profile: Profile, profile_text: str, load: Load, on_round: Callable[[str, float], None], *, alone: bool = False
) -> Calibration:
    """Measure the generator with the messages and sessions of *profile*.

    Args:
        profile: What is sent and how sessions are kept.
        profile_text: The same as text; the generator reads it.
        load: How much of it.
        on_round: Called with the contender's name and its latest msg/s.
        alone: Only into our own sink, not beside Postfix's programs.

    Raises:
        UsageError: a process did not start or did not finish.
    """
    beside = () if alone else ("smtp-source", "smtp-sink")
    missing = [name for name in beside if shutil.which(name) is None]
    session = profile.session
    contenders = {"own-sink": Contender("loadgen", "loadgen")}
    if not alone and "smtp-sink" not in missing:
        contenders["smtp-sink"] = Contender("loadgen", "smtp-sink")
        if "smtp-source" not in missing:
            contenders["smtp-source"] = Contender("smtp-source", "smtp-sink")
    with tempfile.TemporaryDirectory(prefix="loadgen-calibrate-") as directory:
        bench = _Bench(Path(directory), profile, profile_text, load)
        async with AsyncExitStack() as stack:
            own = await stack.enter_async_context(bench.own_sink())
            foreign = await stack.enter_async_context(_smtp_sink(load.sessions)) if "smtp-sink" in contenders else None
            for number in range(load.rounds):
                # the order turns round, so that nobody is always first
                names = list(contenders)
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    if name == "smtp-source":
                        assert foreign is not None  # noqa: S101 (it is among the contenders)
                        one = await asyncio.to_thread(
                            _run_smtp_source, foreign, load, bench.size_bytes,
                            keep=session.messages_per_session is None,
                        )  # fmt: skip
                    else:
                        one = await bench.run_generator(own if name == "own-sink" else foreign, name)
                    contenders[name].rounds.append(one)
                    on_round(name, one.per_s)
    rates = [entry.rate_per_s for entry in profile.step if entry.rate_per_s is not None]
    return Calibration(
        load=load, size_bytes=bench.size_bytes, pipelining=session.pipelining,
        messages_per_session=session.messages_per_session, contenders=contenders,
        planned_per_s=max(rates, default=None), missing=missing,
    )  # fmt: skip


class _Bench:
    """Runs the generator's process against a sink and measures it."""

    def __init__(self, directory: Path, profile: Profile, profile_text: str, load: Load) -> None:
        self._directory = directory
        self._text = profile_text
        self._load = load
        self._run_id = os.urandom(4).hex()
        self._notify = ""
        self._rounds = 0
        self.size_bytes = int(_mean_size(profile))

    @asynccontextmanager
    async def own_sink(self) -> AsyncIterator[Address]:
        """Run our own sink and yield its address."""
        (port,) = find_free_ports(1, set())
        self._notify = str(self._directory / "arrivals")
        sink = Child("sink", lambda _, __: None)
        sink.expect("ready")
        settings = {
            "host": "127.0.0.1", "port": port, "run_id": self._run_id, "clock_origin": 0.0, "notify": self._notify,
        }  # fmt: skip
        await sink.start(python_module("loadgen.traffic.sink"), settings, self._directory / "sink.log")
        try:
            await sink.receive("ready", _TIMEOUT_S)
            yield Address(host="127.0.0.1", port=port)
        finally:
            await sink.end()

    async def run_generator(self, target: Address | None, name: str) -> Round:
        """Send the messages of one round and return what was found."""
        assert target is not None  # noqa: S101 (it is among the contenders)
        self._rounds += 1
        directory = self._directory / f"round-{self._rounds}"
        directory.mkdir()
        with RunWriter(directory) as writer:
            recorder = _Recorder(writer, self._load.sessions)
            children: dict[str, Child] = {}
            settings = {
                "clock_origin": 0.0, "run_id": self._run_id,
                "entries": {"front": {"host": target.host, "port": target.port, "session": {}}},
                "notify": self._notify if name == "own-sink" else "", "profile_text": self._text,
                "first_session": 0, "as_fast_as_possible": self._load.messages,
                "first_message": self._rounds * self._load.messages,
            }  # fmt: skip
            workers = Workers(self._load.workers) if self._load.workers else None
            async with AsyncExitStack() as stack:
                await start_generator(
                    stack, children, settings, workers, self._directory, recorder.take, lambda _: None
                )  # fmt: skip
                recorder.watch([one.pid for one in children.values()])
                child = children["generator"]
                for event in ("limit", "closed", "locust"):
                    child.expect(event)
                step = asdict(Step(0, self._load.sessions, None, 0.0, _TIMEOUT_S, 0.0, _TIMEOUT_S))
                try:
                    child.tell({"command": "phase", "step": step, "phase": "ramp"})
                    limit = await child.receive("limit", _TIMEOUT_S)
                    if limit["kind"] != "message-limit":
                        raise UsageError(f"{name}: {limit['kind']}: {limit['text']}")
                    await recorder.wait_for(self._load.messages)
                    recorder.watch([])
                    child.tell({"command": "phase", "step": step, "phase": "drain"})
                    await child.receive("closed", _TIMEOUT_S)
                    for one in children.values():
                        if one is not child:
                            one.let_end()
                    child.tell({"command": "quit"})
                    await child.receive("locust", _TIMEOUT_S)
                except TimeoutError as error:
                    raise UsageError(str(error)) from error
                finally:
                    recorder.watch([])
        return recorder.work_out()


class _Recorder:
    """Writes the rows of one round down, and notes when the load was full and what it cost."""

    def __init__(self, writer: RunWriter, sessions: int) -> None:
        self._writer = writer
        self._sessions = sessions
        self._processes: list[psutil.Process] = []
        self._all_sent = asyncio.Event()
        self._wanted = 0
        self._ended: list[float] = []
        self._readings: list[tuple[float, float, int]] = []
        """Instant, CPU seconds and resident bytes, from the moment at which all sessions were open."""
        self._count = 0
        self._failed = 0
        self._idle = 0

    def watch(self, pids: list[int]) -> None:
        """Count the CPU and the memory of these processes together."""
        self._processes = [psutil.Process(pid) for pid in pids]

    async def wait_for(self, messages: int) -> None:
        """Return when that many messages have come to an end: one worker may have sent its share before the others."""
        self._wanted = messages
        if self._count < messages:
            await asyncio.wait_for(self._all_sent.wait(), _TIMEOUT_S)

    def take(self, _: str, line: dict[str, Any]) -> None:
        if "table" in line:
            self._writer.write_rows(line["table"], line["rows"])
            if line["table"] == "message":
                self._ended += [row[7] for row in line["rows"] if row[10] == "accepted"]
                self._count += len(line["rows"])
                if self._wanted and self._count >= self._wanted:
                    self._all_sent.set()
            elif line["table"] == "session":
                self._failed += sum(bool(row[9]) for row in line["rows"])
                self._idle += sum(row[8] == 0 for row in line["rows"])
        elif line["event"] == "load" and line["opened"] >= self._sessions and self._processes:
            times = [process.cpu_times() for process in self._processes]
            resident = sum(process.memory_info().rss for process in self._processes)
            self._readings.append((time.monotonic(), sum(one.user + one.system for one in times), resident))

    def work_out(self) -> Round:
        """Return what was found between the first and the last reading with the load on."""
        ended = np.sort(np.array(self._ended))
        inside = [reading for reading in self._readings if ended.size and reading[0] <= ended[-1]]
        if len(inside) < 2:
            raise UsageError(
                "too few messages for a measurement: they were sent before two readings could be taken; raise --messages"
            )
        (start, cpu_start, resident_start), (end, cpu_end, resident_end) = inside[0], inside[-1]
        count = int(np.searchsorted(ended, end) - np.searchsorted(ended, start))
        return Round(
            count / (end - start), (cpu_end - cpu_start) / max(1, count), (resident_start, resident_end), self._failed,
            self._idle,
        )  # fmt: skip


@asynccontextmanager
async def _smtp_sink(sessions: int) -> AsyncIterator[Address]:
    (port,) = find_free_ports(1, set())
    address = Address(host="127.0.0.1", port=port)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec("smtp-sink", *user, "-m", str(sessions + 10), str(address), "1000")
    try:
        await asyncio.to_thread(wait_for_banner, address, "smtp-sink", 10.0)
        yield address
    finally:
        process.kill()
        await process.wait()


def _run_smtp_source(sink: Address, load: Load, size_bytes: int, *, keep: bool) -> Round:
    began = time.monotonic()
    process = subprocess.Popen(
        ["smtp-source", *(["-d"] if keep else []), "-s", str(load.sessions), "-m", str(load.messages), "-l", str(size_bytes),
         "-f", "calibrate@sender.loadgen.test", "-t", "calibrate@loadgen.test", str(sink)],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise UsageError(f"smtp-source ended with exit code {process.returncode}; its words are above")
    return Round(load.messages / took_s, (usage.ru_utime + usage.ru_stime) / load.messages)


def _mean_size(profile: Profile) -> float:
    shares = profile.message.size_shares
    return sum(size * share for size, share in shares) / sum(share for _, share in shares)
