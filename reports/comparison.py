"""Is one set of runs better than another: log-ratios with intervals, against a margin. Pure arithmetic on one value per run.

The unit is a run, never a second or a message: what differs between two starts
of the same chain is mostly larger than what differs within one. Runs that were
taken in pairs are compared pair by pair; otherwise the two sides stand by
themselves (Welch). Beside it stands an interval that assumes no distribution
(Hodges and Lehmann 1963), where there are enough runs for one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

__all__ = ["Difference", "adjust_for_several", "compare", "detectable_change", "is_enough", "needed_runs"]

_ALPHA = 0.05
_POWER = 0.8
_MOST_RUNS = 200
_ALPHA_EARLY = 0.005
"""An answer that is looked for again and again is found by chance: before the end it must be this sure."""
_FEWEST_BLOCKS = 3
_FEWEST_PRECISE = 6
"""With fewer values a narrow interval is mostly luck."""


@dataclass(frozen=True)
class Difference:
    """Candidate against base in one metric."""

    ratio: float
    """Candidate over base, of the geometric means."""
    interval: tuple[float, float] | None
    """95 %, of the ratio; None: too few runs for one."""
    free_interval: tuple[float, float] | None
    """95 % at least, assuming no distribution; None: too few runs for one (six pairs, or four against four)."""
    verdict: str
    """improved, equivalent, regression or inconclusive."""
    detectable: float | None
    """Smallest relative change that so many runs, scattering so, show in four of five cases."""
    spread: float | None
    """Standard deviation of the logarithm of a run; in blocks (and pairs) without what they have in common."""
    p_worse: float
    """Of the hypothesis that it is no worse than the margin, one-sided; 1 where nothing can be said."""
    p_better: float
    """Of the hypothesis that it is no better, one-sided."""
    runs: tuple[int, int]
    block: int | None
    """Runs of a side that belong together with as many of the other; 1: pairs; None: the sides stand by themselves."""

    @property
    def agrees(self) -> bool:
        """Whether the interval that assumes nothing says of "no change" what the other says."""
        if self.interval is None or self.free_interval is None:
            return True
        return (self.interval[0] <= 1 <= self.interval[1]) == (self.free_interval[0] <= 1 <= self.free_interval[1])


@dataclass(frozen=True)
class _Estimate:
    """Of a difference of logarithms."""

    mean: float
    error: float
    """Standard error."""
    df: float
    spread: float
    """Standard deviation of a single run."""


def compare(
    base: Sequence[float],
    candidate: Sequence[float],
    *,
    margin: float,
    higher_is_better: bool,
    block: int | None = None,
) -> Difference:
    """Return what *candidate* says against *base*.

    Args:
        base: One positive value per run.
        candidate: The same; with *block* in the same order and number.
        margin: Relative change for the worse that does not matter, such as 0.05.
        higher_is_better: As for throughput; otherwise as for response times.
        block: So many runs of each side, in their order, were taken together; 1: pairs. None: the sides stand by themselves.

    Raises:
        ValueError: a side is empty, a value is not positive, or the sides do not make whole blocks.
    """
    if not base or not candidate or min(*base, *candidate) <= 0:
        raise ValueError("want at least one run on each side, and positive values")
    if block is not None and (len(base) != len(candidate) or len(base) % block):
        raise ValueError(
            f"got {len(base)} and {len(candidate)} runs, want as many on both sides, in blocks of {block} of each"
        )
    if not 0 < margin < 1:
        raise ValueError(f"margin: got {margin:g}, want between 0 and 1")
    x, y = np.log(np.asarray(base, float)), np.log(np.asarray(candidate, float))
    estimate = _estimate_blocks(x, y, block) if block is not None else _estimate_sides(x, y)
    free = _free_pairs(_block_means(y, block) - _block_means(x, block)) if block is not None else _free_sides(x, y)
    found = Difference(
        ratio=math.exp(float(y.mean() - x.mean())), interval=None, free_interval=free, verdict="inconclusive", detectable=None, spread=None,
        p_worse=1.0, p_better=1.0, runs=(len(x), len(y)), block=block,
    )  # fmt: skip
    if estimate is None:
        return found
    half = _t(1 - _ALPHA / 2, estimate.df) * estimate.error
    low, high = estimate.mean - half, estimate.mean + half
    # the same change for the worse and back: a loss of 5 % is undone by a gain of 5.3 %
    worst = math.log1p(-margin) if higher_is_better else -math.log1p(margin)
    sign = 1.0 if higher_is_better else -1.0
    gain_low, gain_high = (low, high) if higher_is_better else (-high, -low)
    p_worse = _below((sign * estimate.mean - worst), estimate)
    p_better = 1 - _below(sign * estimate.mean, estimate)
    return replace(
        found,
        interval=(math.exp(low), math.exp(high)),
        verdict=_judge(gain_low, gain_high, worst),
        detectable=detectable_change(estimate.spread, len(x), len(y), block=block),
        spread=estimate.spread,
        p_worse=p_worse,
        p_better=p_better,
    )


def adjust_for_several(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with verdicts that hold for all of them together (Holm 1979).

    An "improved" or "regression" that would not be said with this many looks becomes "inconclusive".
    """
    kept: dict[int, Difference] = dict(enumerate(differences))
    for verdict, key in (("regression", "p_worse"), ("improved", "p_better")):
        order = sorted(range(len(differences)), key=lambda place: getattr(differences[place], key))
        for rank, place in enumerate(order):
            if getattr(differences[place], key) <= _ALPHA / 2 / (len(order) - rank):
                continue
            # this one and all that are less sure
            for other in order[rank:]:
                if kept[other].verdict == verdict:
                    kept[other] = replace(kept[other], verdict="inconclusive")
            break
    return [kept[place] for place in range(len(differences))]


def detectable_change(spread: float, base_runs: int, candidate_runs: int, *, block: int | None = None) -> float | None:
    """Return the smallest relative change that is seen in four of five cases, two-sided at 5 %; None: too few runs.

    Args:
        spread: Standard deviation of the logarithm of a run; with *block* of what its block does not explain.
        base_runs: How many.
        candidate_runs: How many.
        block: As in `compare`.
    """
    df = base_runs + candidate_runs - 2
    if block is not None:
        df -= base_runs // block - 1
    if df < 1:
        return None
    error = spread * math.sqrt(1 / base_runs + 1 / candidate_runs)
    return (_t(1 - _ALPHA / 2, df) + _t(_POWER, df)) * error


def is_enough(base: Sequence[float], candidate: Sequence[float], *, margin: float, block: int) -> bool:
    """Return whether the blocks taken so far decide, so that no more need to be taken.

    Either what they say is much surer than it will have to be at the end, or the
    interval is half as wide as the margin. Looked at after every block, this keeps
    the 95 % of the interval within a point or two (simulated in the tests).

    Args:
        base: One positive value per run, of something of which more is better.
        candidate: The same.
        margin: As in `compare`.
        block: As in `compare`.
    """
    blocks = len(base) // block
    estimate = _estimate_blocks(np.log(np.asarray(base, float)), np.log(np.asarray(candidate, float)), block)
    if estimate is None or blocks < _FEWEST_BLOCKS:
        return False
    half = _t(1 - _ALPHA_EARLY / 2, estimate.df) * estimate.error
    low, high = estimate.mean - half, estimate.mean + half
    allowed = -math.log1p(-margin)
    if high < -allowed or low > allowed or (-allowed < low and high < allowed):
        return True
    return blocks >= _FEWEST_PRECISE and _t(1 - _ALPHA / 2, estimate.df) * estimate.error <= allowed / 2


def needed_runs(spread: float, margin: float, *, block: int | None = None) -> int | None:
    """Return how many runs a side (with *block*: how many blocks) need to see a change of *margin* in four of five cases.

    None: more than 200.
    """
    each = block or 1
    for number in range(2, _MOST_RUNS + 1):
        seen = detectable_change(spread, each * number, each * number, block=block)
        if seen is not None and seen <= margin:
            return number
    return None


def _judge(low: float, high: float, worst: float) -> str:
    """Return the verdict on a gain (log, positive: better) between *low* and *high*."""
    if high < worst:
        return "regression"
    if low > worst and high < -worst:
        return "equivalent"
    return "improved" if low > 0 else "inconclusive"


def _estimate_sides(x: Floats, y: Floats) -> _Estimate | None:
    """Welch's: the sides may scatter differently."""
    if len(x) < 2 or len(y) < 2:
        return None
    a, b = float(x.var(ddof=1)), float(y.var(ddof=1))
    error = a / len(x) + b / len(y)
    df = error**2 / (a**2 / len(x) ** 2 / (len(x) - 1) + b**2 / len(y) ** 2 / (len(y) - 1)) if error > 0 else 1.0
    spread = math.sqrt(((len(x) - 1) * a + (len(y) - 1) * b) / (len(x) + len(y) - 2))
    return _Estimate(float(y.mean() - x.mean()), math.sqrt(error), df, spread)


def _estimate_blocks(x: Floats, y: Floats, block: int) -> _Estimate | None:
    """Of a randomised complete block design; with one run of each side in a block, of pairs.

    What a block has in common, such as how fast the machine was meanwhile, is taken out. Neighbours that resemble each
    other, or a drift within the block, make the error too large rather than too small (A B B A).
    """
    blocks = len(x) // block
    df = len(x) + len(y) - blocks - 1
    if df < 1 or blocks < 1:
        return None
    a, b = x.reshape(blocks, block), y.reshape(blocks, block)
    d = b.mean(axis=1) - a.mean(axis=1)
    within = ((a - a.mean(axis=1, keepdims=True)) ** 2).sum() + ((b - b.mean(axis=1, keepdims=True)) ** 2).sum()
    spread = math.sqrt(float(within + block / 2 * ((d - d.mean()) ** 2).sum()) / df)
    return _Estimate(float(d.mean()), spread * math.sqrt(2 / len(x)), df, spread)


def _block_means(values: Floats, block: int) -> Floats:
    means: Floats = values.reshape(-1, block).mean(axis=1)
    return means


def _below(value: float, estimate: _Estimate) -> float:
    """Return the probability of a t as low as *value* over the error."""
    from scipy.special import stdtr  # lazily: only a comparison pays for scipy

    if estimate.error == 0:
        return 0.0 if value < 0 else 1.0
    return float(stdtr(estimate.df, value / estimate.error))


def _t(probability: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _free_pairs(d: Floats) -> tuple[float, float] | None:
    """Return the interval of the median of all averages of two (Walsh), from the signed-rank distribution."""
    n = len(d)
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        shifted = np.zeros_like(counts)
        shifted[rank:] = counts[: len(counts) - rank]
        counts += shifted
    i, j = np.triu_indices(n)
    return _cut(np.sort((d[i] + d[j]) / 2), counts / 2.0**n)


def _free_sides(x: Floats, y: Floats) -> tuple[float, float] | None:
    """Return the interval of the median of all differences, from the distribution of Mann and Whitney's U."""
    n, m = len(x), len(y)
    ways = [[np.ones(1) for _ in range(m + 1)] for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            counts = np.zeros(i * j + 1)
            counts[j : j + len(ways[i - 1][j])] += ways[i - 1][j]
            counts[: len(ways[i][j - 1])] += ways[i][j - 1]
            ways[i][j] = counts
    return _cut(np.sort((y[:, None] - x[None, :]).ravel()), ways[n][m] / math.comb(n + m, n))


def _cut(sorted_values: Floats, probabilities: Floats) -> tuple[float, float] | None:
    """Return the ratio interval between the order statistics that leave at most 2.5 % on each side."""
    below = np.cumsum(probabilities)
    place = int(np.searchsorted(below, _ALPHA / 2, side="right"))  # so many values are left out on each side
    if place == 0:
        return None
    return math.exp(float(sorted_values[place - 1])), math.exp(float(sorted_values[-place]))
