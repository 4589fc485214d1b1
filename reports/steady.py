"""Rates and slopes over one window, with honest intervals, and whether the window was steady.

Pure arithmetic on instants and readings. Neighbouring seconds of a mail chain
are not independent, so intervals come from the means of a few long batches
(an interval from single seconds is wrong in up to two cases of three), and are widened when even those still follow each other.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rate", "Slope", "find_warm_up", "is_precise", "measure_rate", "measure_slope", "time_mean"]

Floats = NDArray[np.float64]

_MSER_BATCH = 5
_MSER_LEAST = 20
_BATCHES = (20, 15, 10)
_PER_BATCH = 5
"""Events a batch should hold; fewer, and the batches are fewer."""
_HALVES_MARGIN = 0.10
"""A chain on a shared host wanders by several per cent in a minute: less than this is what the interval is for."""
_SLOPE_EXCESS = math.sqrt(1.2)
"""The slope weights the middle of the window: its variance is 6/5 of that of events over time."""


@dataclass(frozen=True)
class Rate:
    """Events per second over a window."""

    per_s: float
    """Least-squares slope of the cumulative count."""
    interval: tuple[float, float] | None
    """95 %; None with too few events for ten batches."""
    events: int
    batches: int
    lag1: float | None
    halves_change: float | None
    """Rate of the second half over that of the first, minus 1."""
    steady: bool
    """False when the halves differ significantly and by more than 10 %."""


@dataclass(frozen=True)
class Slope:
    """Growth of a gauge over a window, per second."""

    per_s: float
    interval: tuple[float, float]


def measure_rate(instants: Floats, start_s: float, end_s: float) -> Rate:
    """Return the rate of the events at sorted *instants* within [start_s, end_s)."""
    length = end_s - start_s
    inside = instants[np.searchsorted(instants, start_s) : np.searchsorted(instants, end_s)]
    n = len(inside)
    if length <= 0 or n == 0:
        return Rate(0.0, None, n, 0, None, None, steady=n > 0)
    slope = _cumulative_slope(inside, length, start_s)
    count = next((k for k in _BATCHES if n >= k * _PER_BATCH), 0) or (10 if n >= 30 else 0)
    if count == 0:
        return Rate(slope, None, n, 0, None, None, steady=True)
    lag1 = 0.0
    means: Floats = np.empty(0)
    for k in [k for k in _BATCHES if k <= count]:
        count = k
        means = np.histogram(inside, bins=k, range=(start_s, end_s))[0] * (k / length)
        lag1 = _lag1(means)
        if lag1 <= 2 / math.sqrt(k):
            break
    # one delivery more or less in the window is always in doubt
    half_width = max(_half_width(means, lag1) * _SLOPE_EXCESS, 1 / length)
    change, steady = _compare_halves(means)
    return Rate(slope, (max(0.0, slope - half_width), slope + half_width), n, count, lag1, change, steady)


def find_warm_up(instants: Floats, start_s: float, end_s: float) -> float | None:
    """Return where steady state begins in [start_s, end_s) by MSER-5, or None when it is not reached.

    The series are the gaps between events, averaged five at a time; the cut
    minimises the squared standard error of what is left (White 1997; batches
    of five: White, Cobb and Spratt 2000). Only a cut in the first half counts,
    and the last five averages are left out of the search: with so few, any
    of them can look steady. Fewer than 20 averages decide nothing: no cut. A
    cut in the second half means "not steady" only where the rate before it
    differs by more than a tenth from that after it: short steady series have
    their minimum there in one case of twenty.
    """
    inside = instants[np.searchsorted(instants, start_s) : np.searchsorted(instants, end_s)]
    gaps = np.diff(np.concatenate([[start_s], inside]))
    batches = len(gaps) // _MSER_BATCH
    if batches < _MSER_LEAST:
        return start_s
    means = gaps[: batches * _MSER_BATCH].reshape(batches, _MSER_BATCH).mean(axis=1)
    centred = means - means.mean()
    left = np.arange(batches, 0, -1, dtype=float)
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum((centred**2)[::-1])[::-1]
    scores = (squares - sums**2 / left) / left**2
    cut = int(np.argmin(scores[:-_MSER_BATCH]))
    if cut > batches / 2:
        before, after = means[:cut].mean(), means[cut:].mean()
        return None if abs(before / after - 1) > _HALVES_MARGIN else start_s
    return float(inside[cut * _MSER_BATCH - 1]) if cut else start_s


def is_precise(rate: Rate, precision: float) -> bool:
    """Return whether half of the interval of *rate* is at most the share *precision* of it, and it was steady."""
    if rate.interval is None or rate.per_s <= 0 or not rate.steady:
        return False
    return (rate.interval[1] - rate.interval[0]) / 2 <= precision * rate.per_s


def measure_slope(at: Floats, values: Floats, start_s: float, end_s: float) -> Slope | None:
    """Return the growth of a gauge read at instants *at*, or None with fewer than eight readings.

    The readings are averaged in up to ten groups first, so that a queue that
    only wobbles is not taken for one that grows.
    """
    chosen = (at >= start_s) & (at < end_s)
    x, y = at[chosen], values[chosen]
    if len(x) < 8:
        return None
    groups = min(10, len(x) // 2)
    xs = np.array([part.mean() for part in np.array_split(x, groups)])
    ys = np.array([part.mean() for part in np.array_split(y, groups)])
    centred = xs - xs.mean()
    spread = float(centred @ centred)
    if spread <= 0:
        return None
    slope = float(centred @ ys) / spread
    rest = ys - ys.mean() - slope * centred
    error = math.sqrt(float(rest @ rest) / (groups - 2) / spread)
    reach = _t(groups - 2) * error
    return Slope(slope, (slope - reach, slope + reach))


def time_mean(at: Floats, values: Floats, start_s: float, end_s: float) -> float | None:
    """Return the mean of a gauge over a window, each reading standing for the time until the next; None without."""
    first, last = np.searchsorted(at, start_s), np.searchsorted(at, end_s)
    x, y = at[first:last], values[first:last]
    if len(x) == 0:
        return None
    if len(x) == 1:
        return float(y[0])
    widths = np.diff(np.append(x, max(end_s, x[-1])))
    # a gap must not make one reading count for all of it
    widths = np.minimum(widths, 5 * np.median(np.diff(x)))
    return float(np.average(y, weights=widths)) if widths.sum() > 0 else float(y.mean())


def _cumulative_slope(inside: Floats, length: float, start_s: float) -> float:
    """Return the least-squares slope of the counting process itself, a staircase over the whole window.

    Closed form of the regression of N(t) on t over continuous time: with
    u = t - middle, slope = integral(u N) / integral(u^2). Unlike a regression
    through the points (t_i, i) it does not depend on where the window cuts.
    """
    u = inside - start_s - length / 2
    half = length / 2
    return float(np.sum(half * half - u * u) / 2 / (length**3 / 12))


def _lag1(means: Floats) -> float:
    centred = means - means.mean()
    total = float(centred @ centred)
    return float(centred[:-1] @ centred[1:]) / total if total > 0 else 0.0


def _half_width(means: Floats, lag1: float) -> float:
    k = len(means)
    error = float(means.std(ddof=1)) / math.sqrt(k)
    if lag1 > 2 / math.sqrt(k):  # still correlated: widen (Lada & Wilson's SBatch does the same)
        error *= math.sqrt((1 + lag1) / (1 - min(lag1, 0.9)))
    return _t(k - 1) * error


def _compare_halves(means: Floats) -> tuple[float | None, bool]:
    """Return the relative change from the first half to the second, and whether that still counts as steady."""
    half = len(means) // 2
    first, second = means[:half], means[-half:]
    if first.mean() <= 0:
        return None, False
    change = float(second.mean() / first.mean() - 1)
    error = math.sqrt(float(first.var(ddof=1) + second.var(ddof=1)) / half)
    significant = abs(float(second.mean() - first.mean())) > _t(2 * half - 2) * error
    return change, not (significant and abs(change) > _HALVES_MARGIN)


def _t(df: int) -> float:
    """Return the two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit  # lazily: only analysis pays for scipy

    return float(stdtrit(df, 0.975))
