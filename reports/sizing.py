"""How many processes: the fewest that carry nearly as much as the best, and how sure that is.

Pure: repeats of measured levels in, a choice with its intervals out. The
curve is taken to rise and then to stay or fall, as one station after the
other fills up, and nothing else is assumed of it: means are smoothed to that
shape and to no formula. How far repeats of one level differ, pooled over all
levels, says how sure everything is; the spread within a step does not, because it
knows nothing of what changes from one step to the next. Counts that were not
tried lie on the straight line between their neighbours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Choice", "Spread", "choose_processes", "measure_spread", "smooth_unimodal"]

Floats = NDArray[np.float64]

_DRAWS = 4000
_LEVEL = 0.95
_LIKELY = 0.7
"""A count is recommended when it is within the margin with this probability: one process too many costs memory, one too
few costs throughput, and at a half the noise would decide."""
_EVEN = 0.5
"""Is enough where otherwise noise alone would recommend the largest count."""
_LEAST_SPREAD = 0.004
"""Repeats that agree better than this do so by chance."""
_WITHOUT_REPEATS = 0.05
"""Taken for the spread where nothing is known of it."""


@dataclass(frozen=True)
class Spread:
    """Relative standard deviation of one measurement of a level."""

    relative: float
    freedom: int
    """Degrees of freedom behind it."""

    def half_width(self, repeats: int) -> float:
        """Return half of the relative 95 % interval of a mean of *repeats*."""
        return student(self.freedom, 1 - (1 - _LEVEL) / 2) * self.relative / math.sqrt(repeats)


@dataclass(frozen=True)
class Choice:
    """The recommendation at one set of options."""

    processes: int
    """The fewest, among the measured, that are likely to be within the margin of the best."""
    crossing: int
    """The fewest, among the measured, whose smoothed throughput itself is within the margin: where the noise is as likely
    to err to one side as to the other. What a search looks closer at."""
    interval: tuple[int, int]
    """95 % for the fewest that are within the margin in truth; counts between measured ones included."""
    best: int
    """The measured level with the highest smoothed throughput."""
    per_s: float
    """Throughput at `processes`, mean of its repeats."""
    per_s_interval: tuple[float, float]
    best_per_s: float
    rising: bool
    """Throughput was higher at the largest level than at the one before, noise or not."""
    rises: bool
    """The largest level is surely better than the one before, and by enough to matter."""
    at_largest: bool
    """The largest level is the recommended one, or surely better than the one before: the best may be beyond."""
    falls: bool
    """The largest level is significantly slower than the best, and by more than the margin."""
    spread: Spread


def student(freedom: int, share: float) -> float:
    """Return a quantile of Student's t."""
    from scipy.special import stdtrit  # lazily: only analysis pays for scipy

    return float(stdtrit(freedom, share))


def measure_spread(
    levels: Mapping[int, Sequence[float]] | Sequence[Sequence[float]], within: float | None = None
) -> Spread:
    """Return the pooled relative spread of the repeats.

    Args:
        levels: Throughputs of the repeats, by level.
        within: Relative standard error of one step from within itself; what is used, with a few degrees of
            freedom, where no level has been repeated. None: not known.
    """
    groups = [np.log(np.asarray(values)) for values in (levels.values() if isinstance(levels, Mapping) else levels)]
    freedom = sum(len(group) - 1 for group in groups)
    prior, prior_freedom = max(within or _WITHOUT_REPEATS, _LEAST_SPREAD), 2
    if freedom < 1:
        return Spread(prior, prior_freedom)
    total = sum(float(((group - group.mean()) ** 2).sum()) for group in groups if len(group) > 1)
    if freedom < 4:  # too few to stand alone
        total += prior_freedom * prior**2
        freedom += prior_freedom
    return Spread(max(math.sqrt(total / freedom), _LEAST_SPREAD), freedom)


def choose_processes(levels: Mapping[int, Sequence[float]], within: float, spread: Spread | None = None) -> Choice:
    """Return the fewest processes whose throughput is within a share of the best.

    Args:
        levels: Process count to the throughputs of its repeats, msg/s; at least one level.
        within: The share, such as 0.05.
        spread: From `measure_spread`; None: from these levels.

    The interval comes from a parametric bootstrap: curves are drawn around the
    measured means, their spread drawn as well, and each goes through the same
    choice as the measured one. The seed is fixed: the same data give the same answer.
    """
    spread = spread or measure_spread(levels)
    counts = np.array(sorted(levels))
    repeats = np.array([len(levels[count]) for count in counts], dtype=float)
    means = np.array([float(np.mean(levels[count])) for count in counts])
    curve = smooth_unimodal(means[None, :], repeats)[0]
    best = int(np.argmax(curve >= curve.max() * (1 - 1e-12)))
    rng = np.random.default_rng(20081103)
    scale = np.sqrt(spread.freedom / rng.chisquare(spread.freedom, size=(_DRAWS, 1)))
    noise = rng.standard_normal((_DRAWS, len(counts))) * scale * spread.relative / np.sqrt(repeats)
    drawn = smooth_unimodal(curve * np.exp(noise), repeats)
    grid = np.arange(counts[0], counts[-1] + 1)
    lines = drawn @ _interpolation(counts, grid)
    probable = (drawn >= (1 - within) * lines.max(axis=1, keepdims=True)).mean(axis=0)
    right = grid[np.argmax(lines >= (1 - within) * lines.max(axis=1, keepdims=True), axis=1)]
    values, times = np.unique(right, return_counts=True)
    low, high = _central(values, times / _DRAWS)

    last = len(counts) - 1
    rise = math.log(curve[last] / curve[last - 1]) if last else 0.0
    rise_error = spread.relative * math.sqrt(1 / repeats[last] + 1 / repeats[last - 1]) if last else 0.0
    quantile = student(spread.freedom, 0.975)
    rises = last > 0 and rise > max(within / 2, quantile * rise_error)
    chosen = _fewest(probable, _LIKELY)
    if chosen == last and not rises:
        # only the noise speaks for the largest: it is no reason to look for more
        chosen = _fewest(probable, _EVEN)
    half = spread.half_width(int(repeats[chosen]))
    fall = math.log(curve[best] / curve[last]) if best != last else 0.0
    fall_error = spread.relative * math.sqrt(1 / repeats[best] + 1 / repeats[last])
    return Choice(
        processes=int(counts[chosen]),
        crossing=int(counts[np.argmax(curve >= (1 - within) * curve.max())]),
        interval=(min(low, int(counts[chosen])), max(high, int(counts[chosen]))),
        best=int(counts[best]),
        per_s=float(means[chosen]),
        per_s_interval=(float(means[chosen] * math.exp(-half)), float(means[chosen] * math.exp(half))),
        best_per_s=float(curve[best]),
        rising=rise > within / 2,
        rises=rises,
        at_largest=last > 0 and (chosen == last or rises),
        falls=fall > -math.log1p(-within) and fall > quantile * fall_error,
        spread=spread,
    )


def _fewest(probable: Floats, least: float) -> int:
    """Return the position of the first probability that is at least *least*, of the greatest where none is."""
    enough = probable >= least
    return int(np.argmax(enough)) if enough.any() else int(np.argmax(probable))


def smooth_unimodal(curves: Floats, weights: Floats) -> Floats:
    """Return each curve's weighted least-squares fit among those that rise and then fall.

    Args:
        curves: Shape (draws, levels).
        weights: Shape (levels,), the repeats behind each level.
    """
    draws, n = curves.shape
    sums = np.concatenate([np.zeros((draws, 1)), np.cumsum(curves * weights, axis=1)], axis=1)
    masses = np.concatenate([[0.0], np.cumsum(weights)])
    # mean of every block [a, b): the max-min formulas of isotonic regression need no more
    with np.errstate(invalid="ignore", divide="ignore"):
        block = (sums[:, None, :] - sums[:, :, None]) / (masses[None, None, :] - masses[None, :, None])
    best = np.empty_like(curves)
    least = np.full(draws, np.inf)
    for mode in range(n):
        fit = np.empty_like(curves)
        for i in range(mode + 1):
            fit[:, i] = np.max(np.min(block[:, : i + 1, i + 1 : mode + 2], axis=2), axis=1)
        for i in range(mode + 1, n):
            fit[:, i] = np.max(np.min(block[:, mode + 1 : i + 1, i + 1 :], axis=1), axis=1)
        error = ((fit - curves) ** 2 * weights).sum(axis=1)
        # the falling part may start above the rising one; another mode then fits better or as well
        better = error < least - 1e-12 * np.maximum(error, 1)
        least[better] = error[better]
        best[better] = fit[better]
    return best


def _interpolation(counts: NDArray[np.int64], grid: NDArray[np.int64]) -> Floats:
    """Return the matrix, shape (levels, grid), that draws straight lines between measured counts."""
    return np.array([np.interp(grid, counts, unit) for unit in np.eye(len(counts))])


def _central(values: NDArray[np.int64], shares: Floats) -> tuple[int, int]:
    """Return the central 95 % of a distribution over counts.

    Half of a count's share is taken to lie on either side of it (mid-p): counted
    whole, the steps of a discrete distribution would make the interval too wide.
    """
    middle = np.cumsum(shares) - shares / 2
    tail = (1 - _LEVEL) / 2
    return int(values[np.argmax(middle > tail)]), int(values[len(values) - 1 - np.argmax(middle[::-1] < 1 - tail)])
