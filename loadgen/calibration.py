"""What a calibration found: its figures, for programs and for people."""

import statistics
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from loadgen.units import format_size

__all__ = ["Calibration", "Contender", "Load", "Round", "describe", "print_calibration"]

_SATURATED_SHARE = 0.7
"""A generator that has to give more than this share of what it can is taken to be part of the result."""


@dataclass(frozen=True)
class Load:
    """What each round is made of."""

    sessions: int
    """Open at once."""
    messages: int
    """Sent by each contender."""
    rounds: int
    """Of all contenders in turn."""
    workers: int = 0
    """Processes that send; 0: one, without a master."""


@dataclass(frozen=True)
class Round:
    """What one round of one contender gave."""

    per_s: float
    """Messages a second while all sessions were open."""
    cpu_s_per_message: float
    """Of the generator's processes, user and system."""
    resident_bytes: tuple[int, int] | None = None
    """Of the generator's processes once all sessions were open, and at the end; None for smtp-source."""
    failed_sessions: int = 0
    """Sessions that did not open or broke."""
    idle_sessions: int = 0
    """Sessions that carried no message."""


@dataclass
class Contender:
    """One generator on one sink."""

    generator: str
    """loadgen or smtp-source."""
    sink: str
    """loadgen or smtp-sink."""
    rounds: list[Round] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Messages a second, median of the rounds."""
        return statistics.median(one.per_s for one in self.rounds)

    @property
    def cpu_s_per_message(self) -> float:
        """CPU seconds of one message, median of the rounds."""
        return statistics.median(one.cpu_s_per_message for one in self.rounds)


@dataclass(frozen=True)
class Calibration:
    """What was asked and what was found."""

    load: Load
    size_bytes: int
    """Mean over the messages sent."""
    pipelining: bool
    """The envelope was to go out in one write."""
    messages_per_session: int | None
    contenders: dict[str, Contender]
    """own-sink, and where they are installed smtp-sink and smtp-source."""
    planned_per_s: float | None
    """Highest rate that the profile asks for."""
    missing: list[str]
    """Programs that are not installed."""

    @property
    def capacity_per_s(self) -> float:
        """What the generator carries into our own sink, msg/s, median of the rounds."""
        return self.contenders["own-sink"].per_s

    @property
    def ratio_vs_smtp_source(self) -> float | None:
        """Throughput over smtp-source's into the same smtp-sink, median of the rounds; None: not installed."""
        ours, theirs = self.contenders.get("smtp-sink"), self.contenders.get("smtp-source")
        if ours is None or theirs is None:
            return None
        return statistics.median(a.per_s / b.per_s for a, b in zip(ours.rounds, theirs.rounds, strict=True))

    @property
    def planned_share(self) -> float | None:
        """Share of the capacity that the profile's highest rate takes; None: it has no rates."""
        return None if self.planned_per_s is None else self.planned_per_s / self.capacity_per_s

    @property
    def saturates(self) -> bool:
        """The generator would be part of what is measured."""
        return self.planned_share is not None and self.planned_share > _SATURATED_SHARE


def describe(found: Calibration) -> dict[str, object]:
    """Return *found* for a program to read."""
    return {
        "sessions": found.load.sessions, "size_bytes": found.size_bytes, "messages": found.load.messages,
        "rounds": found.load.rounds, "workers": found.load.workers, "pipelining": found.pipelining,
        "messages_per_session": found.messages_per_session, "missing": found.missing,
        "contenders": {name: _describe_contender(one, found.size_bytes) for name, one in found.contenders.items()},
        "capacity_per_s": found.capacity_per_s, "ratio_vs_smtp_source": found.ratio_vs_smtp_source,
        "planned_per_s": found.planned_per_s, "planned_share": found.planned_share,
        "findings": ["generator-saturated"] if found.saturates else [],
    }  # fmt: skip


def _describe_contender(one: Contender, size_bytes: int) -> dict[str, object]:
    ours = [entry for entry in one.rounds if entry.resident_bytes is not None]
    return {
        "generator": one.generator, "sink": one.sink, "per_s": [entry.per_s for entry in one.rounds],
        "per_s_median": one.per_s, "bytes_per_s": one.per_s * size_bytes, "cpu_s_per_message": one.cpu_s_per_message,
        "resident_bytes": [entry.resident_bytes for entry in ours],
        "failed_sessions": [entry.failed_sessions for entry in ours],
        "idle_sessions": [entry.idle_sessions for entry in ours],
    }  # fmt: skip


def print_calibration(found: Calibration, console: Console) -> None:
    """Print *found* for a person."""
    kept = "kept open" if found.messages_per_session is None else f"reopened after {found.messages_per_session}"
    console.print(
        f"{found.load.sessions} sessions, {kept}; {found.load.messages} messages of {format_size(found.size_bytes)} a round; "
        f"medians of {found.load.rounds} rounds in turn",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("generator")
    table.add_column("into")
    for name in ("msg/s", "least to most", "MB/s", "CPU per message"):
        table.add_column(name, justify="right")
    for one in found.contenders.values():
        rates = [entry.per_s for entry in one.rounds]
        table.add_row(
            one.generator, one.sink, f"{one.per_s:.0f}", f"{min(rates):.0f} to {max(rates):.0f}",
            f"{one.per_s * found.size_bytes / 1e6:.0f}", f"{one.cpu_s_per_message * 1e6:.0f} us",
        )  # fmt: skip
    console.print(table)
    for line in _say_what_it_means(found):
        console.print(line, highlight=False)


def _say_what_it_means(found: Calibration) -> list[str]:
    if found.ratio_vs_smtp_source is not None:
        lines = [f"{found.ratio_vs_smtp_source:.2f} times smtp-source, round by round on the same sink"]
    else:
        lines = [f"not compared with smtp-source: {' and '.join(found.missing)} not installed (package postfix)"]
    if found.planned_share is None:
        most = _SATURATED_SHARE * found.capacity_per_s
        lines.append(f"a chain that carries up to {most:.0f} msg/s can be measured with it")
    else:
        lines.append(f"the profile's {found.planned_per_s:g} msg/s are {found.planned_share:.0%} of what it can")
    if found.saturates:
        lines.append(
            "generator-saturated: it would measure itself. Lower the rate, or send from more processes or machines."
        )
    return lines
