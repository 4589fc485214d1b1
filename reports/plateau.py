"""Find the plateau of a throughput curve: from where on more sessions bring nothing.

Pure: points in, a plateau or None out. No model is fitted; a plateau is only
claimed where larger concurrencies were measured and brought (almost) nothing,
so a saturation point is never beyond the tested range.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Plateau", "Point", "find_plateau", "mean_rate"]

_MARGIN = 0.05
_NOISE_MARGIN = 0.15
"""A point that is lower by no more than this is on the plateau, too, where the intervals explain the difference."""
_LEAST_CLIMB = 1.25
"""The plateau must be seen up to at least this much beyond its first concurrency ..."""
_LEAST_GAIN = 0.25
"""... and gain less than this share of what proportional growth would have gained."""

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Point:
    """Throughput of one valid step."""

    step: int
    concurrency: int
    per_s: float
    interval: tuple[float, float] | None

    @property
    def error(self) -> float:
        """Half of the interval; a twentieth of the rate where there is none."""
        return (self.interval[1] - self.interval[0]) / 2 if self.interval else 0.05 * self.per_s


@dataclass(frozen=True)
class Plateau:
    """What the chain carries when more sessions bring nothing."""

    concurrency: int
    """The smallest tested on it."""
    per_s: float
    interval: tuple[float, float]
    steps: tuple[int, ...]
    fall: float | None
    """Relative loss at the largest concurrency, when it is significant and over 5 %; else None."""


def find_plateau(points: Sequence[Point]) -> Plateau | None:
    """Return the plateau of the curve, or None when throughput was still following the load."""
    curve = _merge(points)
    if len(curve) < 2:
        return None
    best = max(curve, key=lambda p: p.per_s)
    flat = [p for p in curve if _is_as_good(p, best)]
    first = flat[0]
    last = curve[-1]
    climb = last.concurrency / first.concurrency
    gain = last.per_s / first.per_s - 1
    if climb < _LEAST_CLIMB or gain >= _LEAST_GAIN * (climb - 1):
        return None
    members = [p for p in points if p.concurrency in {f.concurrency for f in flat}]
    per_s, interval = mean_rate(members)
    fall = last.per_s / per_s - 1
    significant = per_s - last.per_s > math.hypot(last.error, (interval[1] - interval[0]) / 2)
    return Plateau(
        concurrency=first.concurrency,
        per_s=per_s,
        interval=interval,
        steps=tuple(p.step for p in members),
        fall=-fall if fall < -_MARGIN and significant else None,
    )


def _is_as_good(point: Point, best: Point) -> bool:
    """Return whether *point* carries what the best one does, within the margin or within what is noise."""
    if point.per_s >= (1 - _MARGIN) * best.per_s:
        return True
    explained = best.per_s - point.per_s <= math.hypot(best.error, point.error)
    return explained and point.per_s >= (1 - _NOISE_MARGIN) * best.per_s


def mean_rate(points: Sequence[Point]) -> tuple[float, tuple[float, float]]:
    """Return the weighted mean of several steps with a 95 % interval.

    Where they scatter more than their own intervals allow (chi-squared test at
    10 %), the interval follows the scatter: each step is then a draw of its
    own, and only the spread between them shows what changes from one to the next.
    """
    floor = max(1e-9, *(0.005 * p.per_s for p in points)) if points else 1e-9
    weights = [1 / max(p.error, floor) ** 2 for p in points]
    total = sum(weights)
    mean = sum(w * p.per_s for w, p in zip(weights, points, strict=True)) / total
    half = 1 / math.sqrt(total)
    if len(points) > 1:
        from scipy.special import chdtri, stdtrit  # lazily: only analysis pays for scipy

        df = len(points) - 1
        spread = sum(w * (p.per_s - mean) ** 2 for w, p in zip(weights, points, strict=True))
        # the weights are of half-widths at 95 %, the test is of standard errors
        if spread * _NORMAL_95**2 > float(chdtri(df, 0.1)):
            # of two values a spread can hardly be told: the interval then reaches over both of theirs
            scatter = float(stdtrit(df, 0.975)) * math.sqrt(spread / df / total)
            half = max(half, scatter if df > 1 else max(abs(p.per_s - mean) + p.error for p in points))
    return mean, (max(0.0, mean - half), mean + half)


def _merge(points: Sequence[Point]) -> list[Point]:
    """Return one point per concurrency, in ascending order."""
    merged = []
    for concurrency in sorted({p.concurrency for p in points}):
        same = [p for p in points if p.concurrency == concurrency]
        if len(same) == 1:
            merged.append(same[0])
        else:
            mean, interval = mean_rate(same)
            merged.append(Point(same[0].step, concurrency, mean, interval))
    return merged
