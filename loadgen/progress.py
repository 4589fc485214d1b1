"""What a person sees while a run goes on: one live line on a terminal, plain lines elsewhere.

Everything goes to standard error; results go to standard output when the run
is over.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadgen.units import format_duration

__all__ = ["PatientConsole", "Progress", "Reading", "silence"]

_PLAIN_EVERY_S = 10.0
_RATE_OVER_S = 3.0


@dataclass
class Reading:
    """The state of a run at one moment."""

    place: str
    """The step in words, such as "step 2/6"."""
    phase: str
    concurrency: int
    sessions: int
    accepted: int
    delivered: int
    left_s: float | None
    """None: not known."""
    gauges: dict[str, float] = field(default_factory=dict)


class PatientConsole(Console):
    """A console whose reader may go away without taking the program with it."""

    def on_broken_pipe(self) -> None:
        """Say nothing more: the run, or its exit code, is worth more than the words."""
        self.quiet = True
        silence(self.file)


def silence(stream: IO[str]) -> None:
    """Let what is still written to *stream*, whose reader has gone away, go nowhere."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class Progress:
    """Shows readings as they come; use it as a context manager."""

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        """Show on *console*; *brief*: where it is no terminal, only lines that stay."""
        self._console = console
        self._brief = brief
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._history: list[tuple[float, int, int]] = []
        self._said_at = 0.0
        self._said: tuple[str, str] | None = None

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(Text(text), soft_wrap=True)

    def show(self, reading: Reading) -> None:
        """Show *reading*: at once on a terminal, else at each change of phase and every 10 s."""
        now = time.monotonic()
        if self._history and reading.accepted < self._history[-1][1]:  # another run has begun
            self._history.clear()
        self._history.append((now, reading.accepted, reading.delivered))
        while now - self._history[0][0] > _RATE_OVER_S and len(self._history) > 2:
            self._history.pop(0)
        if self._live is not None:
            self._live.update(Text(self._describe(reading)))
            return
        place = (reading.place, reading.phase)
        if self._brief:
            return
        if place != self._said or now - self._said_at >= _PLAIN_EVERY_S:
            self._said, self._said_at = place, now
            self._console.print(Text(self._describe(reading)), soft_wrap=True)

    def _describe(self, reading: Reading) -> str:
        since, accepted, delivered = self._history[0]
        elapsed = self._history[-1][0] - since
        rates = (
            f"accepted {(reading.accepted - accepted) / elapsed:.1f}/s, delivered {(reading.delivered - delivered) / elapsed:.1f}/s"
            if elapsed > 0.5
            else "accepted -, delivered -"
        )
        gauges = reading.gauges
        queue = sum(gauges.get(f"queue.{name}", 0) for name in ("incoming", "active", "deferred"))
        queue_text = f"queue {queue:.0f}" if "queue.active" in gauges else "queue -"
        busy = gauges.get("amavis.busy")
        busy_text = f"busy {busy:.0f}/{gauges.get('amavis.children', 0):.0f}" if busy is not None else "busy -"
        left_text = f", about {format_duration(reading.left_s)} left" if reading.left_s is not None else ""
        return (
            f"{reading.place} {reading.phase:<7} sessions {reading.sessions}/{reading.concurrency}, "
            f"{rates}, {queue_text}, {busy_text}{left_text}"
        )
