"""What the time charts show: gauges over the whole run, thinned without hiding a peak.

A long run has more readings than a screen has pixels, so each stretch of time
keeps its smallest and its largest reading, in their order. Rates are counted
in equal slots. None of this is in `summary.json`; it can be read again from
the record.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

from reports.steprow import name_step
from reports.steps import QUEUES
from reports.summary import Summary
from reports.tables import Floats, Run

__all__ = ["HoldSpan", "Series", "read_series", "thin"]

MOST_POINTS = 1600
_MOST_SLOTS = 600

_GAUGES = (
    "queue.pass1", "queue.pass2", "queue.deferred", "amavis.pss_bytes", "host.cpu_busy", "host.cpu_iowait", "host.cpu_steal",
    "host.psi_cpu_some", "host.psi_io_full", "host.psi_memory_some", "host.memory_available_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class HoldSpan:
    """The measured part of a step, to be shaded."""

    name: str
    began_at: float
    ended_at: float
    valid: bool


@dataclass(frozen=True)
class Series:
    """Name to instants and values; names of gauges, and "queue.depth", "rate.delivered", "rate.accepted"."""

    lines: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    holds: tuple[HoldSpan, ...] = ()
    end_at: float = 0.0
    processes: tuple[Floats, dict[str, Floats]] | None = None
    """Slot middles, and mean busy, held and free processes of the filter in each slot."""
    slot_s: float = 1.0

    def has(self, *names: str) -> bool:
        """Return whether any of *names* has readings."""
        return any(name in self.lines for name in names)


def read_series(run: Run, summary: Summary) -> Series:
    """Return the series of a run, thinned."""
    lines = {}
    at, depth = run.sample_sum(QUEUES)
    if len(at):
        lines["queue.depth"] = thin(at, depth)
    for name in _GAUGES:
        at, values = run.sample(name)
        if len(at):
            lines[name] = thin(at, values)
    messages = run.messages
    for name, instants in (
        ("rate.delivered", run.arrivals.instants),
        ("rate.accepted", messages.ended[(messages.outcome == "accepted") & ~np.isnan(messages.ended)]),
    ):
        if len(instants) and run.end_at > 0:
            lines[name] = _count(instants, run.end_at)
    holds = tuple(
        HoldSpan(name_step(row).replace(" = ", "="), row["hold_began_at"], row["hold_ended_at"], row["valid"])
        for row in summary["steps"]
        if row["hold_began_at"] is not None and row["hold_ended_at"] is not None
    )
    slot_s = max(1.0, run.end_at / _MOST_SLOTS)
    return Series(lines, holds, run.end_at, _mean_processes(run, slot_s), slot_s)


def thin(at: Floats, values: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """Return at most *most* points of a line, the smallest and the largest of every stretch among them."""
    n = len(at)
    if n <= most:
        return at, values
    edges = np.linspace(0, n, most // 2 + 1).astype(int)
    keep = []
    for first, last in itertools.pairwise(edges):
        if first < last:
            part = values[first:last]
            keep += sorted({first + int(part.argmin()), first + int(part.argmax())})
    chosen = np.array(keep)
    return at[chosen], values[chosen]


def _mean_processes(run: Run, slot_s: float) -> tuple[Floats, dict[str, Floats]] | None:
    """Return slot means, so that the kinds can be stacked; a slot without a reading is left out."""
    parts: dict[str, Floats] = {}
    edges = np.arange(0.0, run.end_at + slot_s, slot_s)
    middles, seen = (edges[:-1] + edges[1:]) / 2, np.zeros(max(len(edges) - 1, 0), dtype=bool)
    for name in ("busy", "held", "free"):
        at, values = run.sample(f"amavis.{name}")
        if len(at):
            counts = np.histogram(at, bins=edges)[0]
            sums = np.histogram(at, bins=edges, weights=values)[0]
            parts[name] = sums / np.maximum(counts, 1)
            seen |= counts > 0
    if not parts or not seen.any():
        return None
    return middles[seen], {name: values[seen] for name, values in parts.items()}


def _count(instants: Floats, end_s: float) -> tuple[Floats, Floats]:
    """Return events per second in slots of at least a second; the middle of each slot is its instant."""
    width = max(1.0, end_s / _MOST_SLOTS)
    edges = np.arange(0.0, end_s + width, width)
    counts = np.histogram(instants, bins=edges)[0]
    return (edges[:-1] + edges[1:]) / 2, counts / width
