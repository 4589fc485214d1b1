"""The other processes of a run, as the conductor sees them: started, read, told, waited for, ended."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from loadgen.channel import parse_line
from loadgen.errors import UsageError

__all__ = ["Child", "python_module"]

_LONGEST_LINE = 64 * 1024 * 1024
_END_TIMEOUT_S = 10.0
_EXIT_TIMEOUT_S = 1.0
"""Time to exit for a process that has closed its output."""

Line = dict[str, Any]


class Child:
    """One process that speaks `loadgen.channel`; its standard error goes to a file of the run."""

    def __init__(self, name: str, on_line: Callable[[str, Line], None]) -> None:
        """*on_line* gets the name and every line; also {"event": "died", "text": ...} if it ends unasked."""
        self.name = name
        self._on_line = on_line
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]
        self._ending = False
        self._log: Path
        self._awaited: dict[str, asyncio.Future[Line]] = {}
        self._problem = ""

    @property
    def pid(self) -> int:
        """Process id, for accounting its CPU."""
        return self._process.pid

    async def start(self, command: list[str], settings: Line, log: Path) -> None:
        """Start *command* and hand it its settings line.

        It gets a session of its own: a Ctrl-C in the terminal is for the conductor alone.
        """
        self._log = log
        with log.open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                start_new_session=True, limit=_LONGEST_LINE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self.tell(settings)
        self._reader = asyncio.create_task(self._read())

    def tell(self, command: Line) -> None:
        """Send one line; a process that is gone is noticed where its lines are read, not here."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(json.dumps(command).encode() + b"\n")

    def expect(self, event: str) -> None:
        """Keep the next *event* for `receive`; call it before whatever brings the event about."""
        self._awaited[event] = asyncio.get_running_loop().create_future()
        if self._problem:
            self._give_up(self._problem)

    def settle(self, event: str, line: Line) -> None:
        """Hand *line* to whoever expects *event*, if anybody does."""
        future = self._awaited.get(event)
        if future is not None and not future.done():
            future.set_result(line)

    async def receive(self, event: str, timeout_s: float) -> Line:
        """Return the expected event.

        Raises:
            UsageError: the process ended, or said that it failed.
            TimeoutError: it did not come in time.
        """
        try:
            return await asyncio.wait_for(self._awaited[event], timeout_s)
        except TimeoutError:
            raise TimeoutError(f"{self.name}: no {event} after {timeout_s:g} s; see {self._log}") from None

    def let_end(self) -> None:
        """Take it as wanted that the process ends."""
        self._ending = True

    async def end(self) -> None:
        """Close its input, which tells it to stop, and wait until its last line has been read."""
        self._ending = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._reader), _END_TIMEOUT_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._reader
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (asked for in start)
        while text := await self._process.stdout.readline():
            try:
                line = parse_line(text)
            except ValueError:
                break  # cut off in the middle: it was killed
            event = line.get("event", "")
            self.settle(event, line)
            if event == "failed":
                self._give_up(line["reason"])
            self._on_line(self.name, line)
        if not self._ending:
            try:
                code = await asyncio.wait_for(self._process.wait(), _EXIT_TIMEOUT_S)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.kill()  # whatever else it is, it is no use any more
                code = await self._process.wait()
            said = self._log.read_text(errors="replace").strip().splitlines()[-1:] if self._log.exists() else []
            problem = f"ended by itself with exit code {code}" + (f": {said[0][:300]}" if said else "")
            self._give_up(f"{self.name} {problem}; see {self._log}")
            self._on_line(self.name, {"event": "died", "text": problem})

    def _give_up(self, reason: str) -> None:
        self._problem = reason
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(UsageError(reason))
                future.exception()  # nobody may be waiting for this one any more


def python_module(module: str) -> list[str]:
    """Return the command that runs *module* with this Python, without the working directory on its path."""
    return [sys.executable, "-P", "-m", module]
