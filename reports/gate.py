"""The shape of a gate: what was expected of runs, and whether they showed it."""

from typing import TypedDict

from reports.steprow import Interval

__all__ = ["Gate", "Judged"]


class Judged(TypedDict):
    """One expectation."""

    key: str
    """As in the profile, such as "delivered_per_s_min" or "worse_max.delivered_per_s"."""
    words: str
    want: str
    """The limit in words."""
    got: str
    """What was measured, in words."""
    value: float | None
    interval: Interval | None
    """95 %; None: there is none (a count, or a single run)."""
    limit: float
    outcome: str
    """met, missed, inconclusive, or not measured."""


class Gate(TypedDict):
    """Whether runs have passed."""

    format: int
    outcome: str
    """met, missed, inconclusive, incomplete, invalid, or none (nothing was expected)."""
    profile: str
    delivered_per_s: float | None
    """Geometric mean of the runs that can be used."""
    delivered_per_s_interval: Interval | None
    """95 %, from the spread between runs; of a single run from within it."""
    judged: list[Judged]
    runs: list[str]
    """Directories, in their order."""
    spoilt: list[str]
    """Of these, not valid because of noise alone, and taken again."""
    reasons: list[str]
    """Why it is incomplete, invalid or inconclusive."""
    notes: list[str]
