"""Four laws of throughput against concurrency, and the least-squares fit of each.

Pure: points in, a `Fit` out. The Universal Scalability Law is in the notation
of Gunther and of R's usl 3, X(N) = gamma N / (1 + alpha (N - 1) + beta N (N - 1));
Amdahl's law is it with beta = 0; a hard cap is linear up to a limit and flat
from there; smooth-min rounds that corner and is Amdahl's law for p = 1. All are
fitted within bounds, the hard cap exactly: it is not smooth, and a local solver
finds the wrong corner.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LAWS",
    "Fit",
    "Floats",
    "Law",
    "descend",
    "fit_law",
    "is_on_bound",
    "jacobian",
    "minimise",
    "no_starts",
    "rss_of",
    "usl",
]

Floats = NDArray[np.float64]

_ON_BOUND = 1e-9


@dataclass(frozen=True)
class Law:
    """One law: throughput as a function of concurrency and parameters."""

    names: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    scale: tuple[float, ...]
    """Typical sizes of the parameters, which differ by six orders of magnitude; gamma and x_max as multiples of the data's."""
    throughput: Callable[[Floats, Floats], Floats]
    starts: Callable[[Floats, Floats], Sequence[tuple[float, ...]]]


def usl(n: Floats, p: Floats) -> Floats:
    """Return the Universal Scalability Law at *n*; *p*: gamma, alpha, beta."""
    return np.asarray(p[0] * n / (1 + p[1] * (n - 1) + p[2] * n * (n - 1)))


def _amdahl(n: Floats, p: Floats) -> Floats:
    return np.asarray(p[0] * n / (1 + p[1] * (n - 1)))


def _hard_cap(n: Floats, p: Floats) -> Floats:
    return np.asarray(np.minimum(p[0] * n, p[1]))


def _smooth_min(n: Floats, p: Floats) -> Floats:
    # in logarithms: (g N)^-p overflows for a large p
    return np.asarray(np.exp(-np.logaddexp(-p[2] * np.log(p[0] * n), -p[2] * math.log(p[1])) / p[2]))


def no_starts(_: Floats, __: Floats) -> Sequence[tuple[float, ...]]:
    """Return nothing: the law is not fitted by descent from given points."""
    return ()


_SHARES, _COHERENCES = (0.001, 0.01, 0.1, 0.5), (1e-6, 1e-4, 1e-2)

LAWS: dict[str, Law] = {
    "hard_cap": Law(("gamma", "x_max"), ((1e-12, np.inf), (1e-12, np.inf)), (1.0, 1.0), _hard_cap, no_starts),
    "amdahl": Law(
        ("gamma", "alpha"), ((1e-12, np.inf), (0.0, 1.0)), (1.0, 0.01), _amdahl,
        lambda n, x: [(float((x / n).max()), alpha) for alpha in _SHARES],
    ),
    "smooth_min": Law(
        ("gamma", "x_max", "p"), ((1e-12, np.inf), (1e-12, np.inf), (0.3, 60.0)), (1.0, 1.0, 1.0), _smooth_min,
        lambda n, x: [
            (float((x / n).max()) * g, float(x.max()) * top, p)
            for g in (0.7, 1.0, 1.4, 2.0) for top in (0.9, 1.1, 1.5) for p in (0.6, 1.0, 2.0, 4.0, 8.0, 20.0)
        ],
    ),
    "usl": Law(
        ("gamma", "alpha", "beta"), ((1e-12, np.inf), (0.0, 1.0), (0.0, 1.0)), (1.0, 0.01, 1e-4), usl,
        lambda n, x: [(float((x / n).max()), alpha, beta) for alpha in _SHARES for beta in _COHERENCES],
    ),
}  # fmt: skip
"""Name to law, the simpler ones first."""


@dataclass(frozen=True)
class Fit:
    """One law fitted to points."""

    values: Floats
    rss: float
    """Residual sum of squares, weighted if the fit was."""
    points: int
    standard_errors: tuple[float | None, ...]
    on_bound: bool

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the residuals."""
        return self.points - len(self.values)

    @property
    def residual_error(self) -> float | None:
        """Standard deviation of the residuals."""
        return math.sqrt(self.rss / self.freedom) if self.freedom > 0 else None

    @property
    def aicc(self) -> float | None:
        """Corrected Akaike information criterion, the variance counted as a parameter; None with too few points for it."""
        n, k = self.points, len(self.values) + 1
        if n < k + 2:
            return None
        return n * math.log(max(self.rss, 1e-300) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def fit_law(
    name: str, concurrency: Sequence[float], throughput: Sequence[float], errors: Sequence[float] | None = None,
    fixed: Mapping[str, float] | None = None,
) -> Fit:  # fmt: skip
    """Return the least-squares fit of one law.

    Args:
        name: Of `LAWS`.
        concurrency: N of each point, at least 1.
        throughput: X of each point.
        errors: Standard error of each X: residuals are weighted by it; None: not weighted.
        fixed: Parameters that are given, by name.
    """
    n, x = np.asarray(concurrency, dtype=float), np.asarray(throughput, dtype=float)
    weights = 1 / np.asarray(errors, dtype=float) if errors is not None else np.ones(len(n))
    if name == "hard_cap" and not fixed:
        values = _fit_hard_cap(n, x, weights)
        return Fit(
            values, rss_of(LAWS[name], values, n, x, weights), len(n), *_errors(LAWS[name], values, n, x, weights, ())
        )
    held = tuple(LAWS[name].names.index(key) for key in fixed or ())
    start = np.array([(fixed or {}).get(key, np.nan) for key in LAWS[name].names])
    values = minimise(LAWS[name], n, x, weights, held, start)
    standard, on_bound = _errors(LAWS[name], values, n, x, weights, held)
    return Fit(values, rss_of(LAWS[name], values, n, x, weights), len(n) + len(held), standard, on_bound)


def rss_of(law: Law, values: Floats, n: Floats, x: Floats, weights: Floats) -> float:
    """Return the weighted residual sum of squares of a law with these parameters."""
    rest = (x - law.throughput(n, values)) * weights
    return float(rest @ rest)


def _fit_hard_cap(n: Floats, x: Floats, weights: Floats) -> Floats:
    """Return the exact optimum: every way to divide the points in a rising and a flat part, and every corner on a point."""
    squares = weights**2
    best, least = np.array([1.0, 1.0]), math.inf
    for break_ in np.unique(n):
        rising = n <= break_
        candidates = []
        slope = float((squares * n * x)[rising].sum() / (squares * n * n)[rising].sum())
        if (~rising).any():
            cap = float((squares * x)[~rising].sum() / squares[~rising].sum())
            after = float(n[~rising].min())
            if slope * break_ <= cap <= slope * after:
                candidates.append((slope, cap))
        h = np.minimum(n, break_)
        slope = float((squares * h * x).sum() / (squares * h * h).sum())
        candidates.append((slope, slope * float(break_)))
        for candidate in candidates:
            values = np.array(candidate)
            rss = rss_of(LAWS["hard_cap"], values, n, x, weights)
            if rss < least:
                best, least = values, rss
    return best


def minimise(law: Law, n: Floats, x: Floats, weights: Floats, held: Sequence[int], at: Floats) -> Floats:
    """Return the parameters that minimise the residuals with those in *held* kept as in *at*; several starts."""
    free = [i for i in range(len(law.names)) if i not in held]
    starts = law.starts(n, x)
    best, least = np.array(at, dtype=float), math.inf
    for start in _promising(law, starts, n, x, weights, held, at):
        values, rss = descend(law, start, free, n, x, weights)
        if rss < least:
            best, least = values, rss
    return best


def _promising(
    law: Law,
    starts: Sequence[tuple[float, ...]],
    n: Floats,
    x: Floats,
    weights: Floats,
    held: Sequence[int],
    at: Floats,
) -> list[Floats]:
    """Return the six best of the starting points, those that are held put in their place."""
    filled = []
    for start in starts:
        values = np.array(start)
        values[list(held)] = at[list(held)]
        filled.append(values)
    return sorted(filled, key=lambda values: rss_of(law, values, n, x, weights))[:6]


def descend(
    law: Law, start: Floats, free: Sequence[int], n: Floats, x: Floats, weights: Floats
) -> tuple[Floats, float]:
    """Return the parameters that a bounded solver reaches from *start*, and their residual sum of squares; only *free* ones move."""
    from scipy.optimize import least_squares

    if not free:
        return start, rss_of(law, start, n, x, weights)
    low, high = np.array([law.bounds[i][0] for i in free]), np.array([law.bounds[i][1] for i in free])

    def residuals(part: Floats) -> Floats:
        values = start.copy()
        values[list(free)] = part
        return (x - law.throughput(n, values)) * weights

    scale = np.array([law.scale[i] * (abs(start[i]) if law.names[i] in ("gamma", "x_max") else 1.0) for i in free])
    found = least_squares(
        residuals, np.clip(start[list(free)], low, high), bounds=(low, high), x_scale=scale, xtol=1e-14, ftol=1e-14, gtol=1e-14,
        max_nfev=400,
    )  # fmt: skip
    values = start.copy()
    values[list(free)] = found.x
    return values, float(2 * found.cost)


def jacobian(law: Law, values: Floats, n: Floats) -> Floats:
    """Return the derivatives of the throughput by each parameter, shape (points, parameters), by central differences."""
    columns = []
    for i, value in enumerate(values):
        step = 1e-6 * max(abs(value), law.scale[i] * 1e-3)
        up, down = values.copy(), values.copy()
        up[i] += step
        down[i] = max(down[i] - step, 0.0)
        columns.append((law.throughput(n, up) - law.throughput(n, down)) / (up[i] - down[i]))
    return np.stack(columns, axis=1)


def is_on_bound(law: Law, i: int, value: float) -> bool:
    """Return whether parameter *i* lies on one of its bounds."""
    low, high = law.bounds[i]
    return value - low <= _ON_BOUND * max(1.0, abs(low)) or (math.isfinite(high) and high - value <= _ON_BOUND * high)


def _errors(
    law: Law, values: Floats, n: Floats, x: Floats, weights: Floats, held: Sequence[int]
) -> tuple[tuple[float | None, ...], bool]:
    """Return the standard errors from the Jacobian, and whether a parameter is on its bound; then there are none."""
    free = [i for i in range(len(values)) if i not in held]
    on_bound = any(is_on_bound(law, i, float(values[i])) for i in free)
    freedom = len(n) - len(free)
    if on_bound or freedom <= 0:
        return (None,) * len(values), on_bound
    slopes = (jacobian(law, values, n) * weights[:, None])[:, free]
    information = slopes.T @ slopes
    if np.linalg.matrix_rank(slopes) < len(free):
        return (None,) * len(values), on_bound
    variance = rss_of(law, values, n, x, weights) / freedom * np.linalg.inv(information)
    errors: list[float | None] = [None] * len(values)
    for place, i in enumerate(free):
        errors[i] = float(math.sqrt(max(0.0, variance[place, place])))
    return tuple(errors), on_bound
