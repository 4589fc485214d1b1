"""Four laws of throughput against concurrency, fitted to one set of points and compared.

Pure: points in, a `Models` out. The Universal Scalability Law is in the
notation of Gunther and of R's usl 3, X(N) = gamma N / (1 + alpha (N - 1) +
beta N (N - 1)); Amdahl's law is it with beta = 0; a hard cap is linear up to a
limit and flat from there; smooth-min rounds that corner and is Amdahl's law
for p = 1. All are fitted by least squares within bounds, the hard cap
exactly (it is not smooth, and a local solver finds the wrong corner); they are
compared by AICc; intervals are by profile likelihood, which may end at a bound.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.summary import Model, Models, Parameter

__all__ = ["LAWS", "Fit", "fit_law", "fit_models"]

Floats = NDArray[np.float64]

_LEAST_LEVELS = 4
_FEW_POINTS = 6
_TIE = 2.0
_CURVE_POINTS = 60
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


def _usl(n: Floats, p: Floats) -> Floats:
    return np.asarray(p[0] * n / (1 + p[1] * (n - 1) + p[2] * n * (n - 1)))


def _amdahl(n: Floats, p: Floats) -> Floats:
    return np.asarray(p[0] * n / (1 + p[1] * (n - 1)))


def _hard_cap(n: Floats, p: Floats) -> Floats:
    return np.asarray(np.minimum(p[0] * n, p[1]))


def _smooth_min(n: Floats, p: Floats) -> Floats:
    # in logarithms: (g N)^-p overflows for a large p
    return np.asarray(np.exp(-np.logaddexp(-p[2] * np.log(p[0] * n), -p[2] * math.log(p[1])) / p[2]))


def _no_starts(_: Floats, __: Floats) -> Sequence[tuple[float, ...]]:
    """Return nothing: the law is not fitted by descent from given points."""
    return ()


_SHARES, _COHERENCES = (0.001, 0.01, 0.1, 0.5), (1e-6, 1e-4, 1e-2)

LAWS: dict[str, Law] = {
    "hard_cap": Law(("gamma", "x_max"), ((1e-12, np.inf), (1e-12, np.inf)), (1.0, 1.0), _hard_cap, _no_starts),
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
        ("gamma", "alpha", "beta"), ((1e-12, np.inf), (0.0, 1.0), (0.0, 1.0)), (1.0, 0.01, 1e-4), _usl,
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
            values, _rss(LAWS[name], values, n, x, weights), len(n), *_errors(LAWS[name], values, n, x, weights, ())
        )
    held = tuple(LAWS[name].names.index(key) for key in fixed or ())
    start = np.array([(fixed or {}).get(key, np.nan) for key in LAWS[name].names])
    values = _minimise(LAWS[name], n, x, weights, held, start)
    standard, on_bound = _errors(LAWS[name], values, n, x, weights, held)
    return Fit(values, _rss(LAWS[name], values, n, x, weights), len(n) + len(held), standard, on_bound)


def fit_models(
    points: Sequence[tuple[float, float]], errors: Sequence[float] | None = None, *, variant: str = "stock"
) -> Models:
    """Return all four laws fitted to (N, X) *points* and compared.

    Args:
        points: Repeats as points of their own.
        errors: Standard error of each X; None: unweighted.
        variant: What the points were measured under.

    Raises:
        ValueError: fewer than four different N, or an N below 1.
    """
    n, x = np.array([p[0] for p in points], dtype=float), np.array([p[1] for p in points], dtype=float)
    if len(set(n.tolist())) < _LEAST_LEVELS:
        raise ValueError(f"got {len(set(n.tolist()))} different concurrencies, want at least {_LEAST_LEVELS}")
    if n.min() < 1 or x.min() <= 0 or not np.isfinite(x).all():
        raise ValueError("want every concurrency at least 1 and every throughput above 0")
    weights = 1 / np.asarray(errors, dtype=float) if errors is not None else np.ones(len(n))
    fits = {name: fit_law(name, n.tolist(), x.tolist(), errors) for name in LAWS}
    chosen, ties = _choose(fits)
    models = {name: _describe(name, fit, n, x, weights) for name, fit in fits.items()}
    return Models(
        chosen=chosen,
        ties=ties,
        models=models,
        warnings=_find_warnings(chosen, ties, fits, models, n, x),
        points=[[float(a), float(b)] for a, b in zip(n, x, strict=True)],
        variant=variant,
    )


def _choose(fits: Mapping[str, Fit]) -> tuple[str, list[str]]:
    """Return the law with the smallest AICc, a simpler one where that is a tie, and the others that tie with it."""
    known = {name: fit.aicc for name, fit in fits.items() if fit.aicc is not None}
    if not known:  # fewer than five points: only the residuals of the two-parameter laws are left to compare
        return min(("hard_cap", "amdahl"), key=lambda name: fits[name].rss), []
    least = min(known.values())
    near = [name for name in fits if name in known and (known[name] or 0.0) - least < _TIE]
    fewest = min(len(fits[name].values) for name in near)
    simple = [name for name in near if len(fits[name].values) == fewest]
    chosen = min(simple, key=lambda name: known[name] or 0.0)
    return chosen, [name for name in near if name != chosen]


def _describe(name: str, fit: Fit, n: Floats, x: Floats, weights: Floats) -> Model:
    law = LAWS[name]
    largest = float(n.max())
    peak, peak_interval = None, None
    if name == "usl":
        _, alpha, beta = fit.values
        at = math.sqrt((1 - alpha) / beta) if beta > 0 else math.inf
        peak = at if 1 <= at <= largest else None
        peak_interval = _profile_peak(fit, n, x, weights)
    return Model(
        parameters={
            key: Parameter(
                value=float(fit.values[i]), standard_error=fit.standard_errors[i],
                interval=_profile(law, i, fit, n, x, weights),
            )
            for i, key in enumerate(law.names)
        },
        aicc=fit.aicc,
        rss=fit.rss,
        peak_concurrency=peak,
        peak_interval=peak_interval,
        curve=_curve(law, fit, n, weights),
    )  # fmt: skip


def _find_warnings(
    chosen: str, ties: Sequence[str], fits: Mapping[str, Fit], models: Mapping[str, Model], n: Floats, x: Floats
) -> list[str]:
    """Return ids of what a reader should know before believing any of it."""
    found = []
    usl = fits["usl"]
    if len(n) < _FEW_POINTS:
        found.append("fewer-than-six-points")
    if models["usl"]["peak_concurrency"] is None:
        found.append("peak-outside-range")
    if usl.on_bound or fits[chosen].on_bound:
        found.append("parameter-on-bound")
    one, other = fits["hard_cap"].aicc, usl.aicc
    if chosen == "hard_cap" or (one is not None and other is not None and other - one >= _TIE):
        found.append("hard-cap-fits-better")
    gamma = float(fits[chosen].values[0])
    if float((x / n / gamma).max()) > 1.05:
        found.append("super-linear")
    first = x[n == n.min()]
    if n.min() == 1 and abs(gamma / float(first.mean()) - 1) > 0.1:
        found.append("first-point-misfit")
    if _runs_are_few(x - LAWS[chosen].throughput(n, fits[chosen].values), n):
        found.append("residuals-not-random")
    if ties:
        found.append("aicc-tie")
    return found


def _runs_are_few(residuals: Floats, n: Floats) -> bool:
    """Return whether the signs of the residuals, in order of N, change more seldom than chance allows (Wald and Wolfowitz)."""
    means = np.array([residuals[n == level].mean() for level in np.unique(n)])
    signs = means > 0
    plus, minus = int(signs.sum()), int((~signs).sum())
    if plus < 3 or minus < 3:
        return False
    runs = 1 + int((signs[1:] != signs[:-1]).sum())
    total = plus + minus
    expected = 2 * plus * minus / total + 1
    variance = (expected - 1) * (expected - 2) / (total - 1)
    return variance > 0 and (runs - expected) / math.sqrt(variance) < -1.96


# -- fitting ----------------------------------------------------------------------------------------------


def _rss(law: Law, values: Floats, n: Floats, x: Floats, weights: Floats) -> float:
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
            rss = _rss(LAWS["hard_cap"], values, n, x, weights)
            if rss < least:
                best, least = values, rss
    return best


def _minimise(law: Law, n: Floats, x: Floats, weights: Floats, held: Sequence[int], at: Floats) -> Floats:
    """Return the parameters that minimise the residuals with those in *held* kept as in *at*; several starts."""
    free = [i for i in range(len(law.names)) if i not in held]
    starts = law.starts(n, x)
    best, least = np.array(at, dtype=float), math.inf
    for start in _promising(law, starts, n, x, weights, held, at):
        values, rss = _descend(law, start, free, n, x, weights)
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
    return sorted(filled, key=lambda values: _rss(law, values, n, x, weights))[:6]


def _descend(
    law: Law, start: Floats, free: Sequence[int], n: Floats, x: Floats, weights: Floats
) -> tuple[Floats, float]:
    from scipy.optimize import least_squares

    if not free:
        return start, _rss(law, start, n, x, weights)
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


def _jacobian(law: Law, values: Floats, n: Floats) -> Floats:
    """Return the derivatives of the throughput by each parameter, shape (points, parameters), by central differences."""
    columns = []
    for i, value in enumerate(values):
        step = 1e-6 * max(abs(value), law.scale[i] * 1e-3)
        up, down = values.copy(), values.copy()
        up[i] += step
        down[i] = max(down[i] - step, 0.0)
        columns.append((law.throughput(n, up) - law.throughput(n, down)) / (up[i] - down[i]))
    return np.stack(columns, axis=1)


def _is_on_bound(law: Law, i: int, value: float) -> bool:
    low, high = law.bounds[i]
    return value - low <= _ON_BOUND * max(1.0, abs(low)) or (math.isfinite(high) and high - value <= _ON_BOUND * high)


def _errors(
    law: Law, values: Floats, n: Floats, x: Floats, weights: Floats, held: Sequence[int]
) -> tuple[tuple[float | None, ...], bool]:
    """Return the standard errors from the Jacobian, and whether a parameter is on its bound; then there are none."""
    free = [i for i in range(len(values)) if i not in held]
    on_bound = any(_is_on_bound(law, i, float(values[i])) for i in free)
    freedom = len(n) - len(free)
    if on_bound or freedom <= 0:
        return (None,) * len(values), on_bound
    slopes = (_jacobian(law, values, n) * weights[:, None])[:, free]
    information = slopes.T @ slopes
    if np.linalg.matrix_rank(slopes) < len(free):
        return (None,) * len(values), on_bound
    variance = _rss(law, values, n, x, weights) / freedom * np.linalg.inv(information)
    errors: list[float | None] = [None] * len(values)
    for place, i in enumerate(free):
        errors[i] = float(math.sqrt(max(0.0, variance[place, place])))
    return tuple(errors), on_bound


# -- intervals --------------------------------------------------------------------------------------------


def _limit(fit: Fit) -> float | None:
    """Return the residual sum of squares up to which a parameter is not refuted at 95 %."""
    if fit.freedom <= 0:
        return None
    from scipy.special import fdtri

    return fit.rss * (1 + float(fdtri(1, fit.freedom, 0.95)) / fit.freedom)


def _profile(law: Law, i: int, fit: Fit, n: Floats, x: Floats, weights: Floats) -> list[float | None] | None:
    """Return the profile-likelihood interval of parameter *i*, the others fitted again within their bounds."""
    limit = _limit(fit)
    if limit is None:
        return None
    low, high = law.bounds[i]
    near = fit.values.copy()

    def excess(value: float) -> float:
        at = near.copy()
        at[i] = value
        if law is LAWS["hard_cap"]:
            return _profile_cap(i, value, n, x, weights) - limit
        free = [j for j in range(len(at)) if j != i]
        return _descend(law, at, free, n, x, weights)[1] - limit

    value = float(fit.values[i])
    step = fit.standard_errors[i] or law.scale[i] * (abs(value) if law.names[i] in ("gamma", "x_max") else 1.0)
    return [_cross(excess, value, -step, low), _cross(excess, value, step, high)]


def _profile_cap(i: int, value: float, n: Floats, x: Floats, weights: Floats) -> float:
    """Return the least residuals of a hard cap with one parameter given: the other is where a bounded search finds it."""
    from scipy.optimize import minimize_scalar

    squares = weights**2
    if i == 1:  # cap given: for a slope the points below the corner decide; between corners it is a parabola
        candidates = {value / float(level) for level in np.unique(n)}
        for level in np.unique(n):
            part = n <= level
            candidates.add(float((squares * n * x)[part].sum() / (squares * n * n)[part].sum()))
        return min(_rss(LAWS["hard_cap"], np.array([slope, value]), n, x, weights) for slope in candidates)
    found = minimize_scalar(
        lambda cap: _rss(LAWS["hard_cap"], np.array([value, cap]), n, x, weights),
        bounds=(0.2 * float(x.max()), 2 * float(x.max())), method="bounded", options={"xatol": 1e-9 * float(x.max())},
    )  # fmt: skip
    corners = [value * float(level) for level in np.unique(n)]
    return min(float(found.fun), *(_rss(LAWS["hard_cap"], np.array([value, cap]), n, x, weights) for cap in corners))


def _profile_peak(fit: Fit, n: Floats, x: Floats, weights: Floats) -> list[float | None] | None:
    """Return the interval of the concurrency with the highest throughput, with beta = (1 - alpha) / peak^2 put in."""
    limit = _limit(fit)
    if limit is None:
        return None
    law = Law(
        ("gamma", "alpha"), LAWS["amdahl"].bounds, (1.0, 0.01), lambda n, p: p[0] * n, _no_starts,
    )  # fmt: skip

    def excess(peak: float) -> float:
        def throughput(at: Floats, p: Floats) -> Floats:
            return _usl(at, np.array([p[0], p[1], (1 - p[1]) / peak**2]))

        here = Law(law.names, law.bounds, law.scale, throughput, law.starts)
        start = np.array([fit.values[0], min(max(fit.values[1], 0.0), 1.0)])
        return _descend(here, start, (0, 1), n, x, weights)[1] - limit

    amdahl = _minimise(LAWS["amdahl"], n, x, weights, (), np.array([np.nan, np.nan]))
    endless = _rss(LAWS["amdahl"], amdahl, n, x, weights) <= limit
    beta = float(fit.values[2])
    middle = math.sqrt(max(1e-12, 1 - float(fit.values[1])) / beta) if beta > 0 else 4 * float(n.max())
    if excess(middle) > 0:
        return [None, None]
    low = _cross(excess, middle, -0.1 * middle, 1.0)
    high = None if endless else _cross(excess, middle, 0.1 * middle, math.inf)
    return [low, high]


def _cross(excess: Callable[[float], float], start: float, step: float, bound: float) -> float | None:
    """Return where *excess* becomes positive going from *start* in direction *step*; the bound, or None where it never does."""
    from scipy.optimize import brentq

    if excess(start) >= 0:  # the optimum was found to no more digits than this
        return float(start)
    inside, distance = start, step
    for _ in range(60):
        outside = start + distance
        beyond = outside <= bound if step < 0 else outside >= bound
        if beyond and math.isfinite(bound):
            outside = bound
        if excess(outside) > 0:
            return float(brentq(excess, inside, outside, xtol=1e-9 * max(1e-6, abs(outside)), rtol=1e-9))
        if beyond:
            return float(bound) if math.isfinite(bound) else None
        inside = outside
        distance *= 2
    return None


def _curve(law: Law, fit: Fit, n: Floats, weights: Floats) -> list[list[float]]:
    """Return [N, X, low, high] over the tested range; the band is that of the mean, by the delta method.

    A parameter on its bound is held there. Without degrees of freedom the band has no width.
    """
    grid = np.linspace(float(n.min()), float(n.max()), _CURVE_POINTS)
    mean = law.throughput(grid, fit.values)
    reach = np.zeros_like(mean)
    free = [i for i in range(len(fit.values)) if not _is_on_bound(law, i, float(fit.values[i]))]
    freedom = fit.points - len(free)
    slopes = (_jacobian(law, fit.values, n) * weights[:, None])[:, free]
    if freedom > 0 and free and np.linalg.matrix_rank(slopes) == len(free):
        from scipy.special import stdtrit

        covariance = fit.rss / freedom * np.linalg.inv(slopes.T @ slopes)
        there: Any = _jacobian(law, fit.values, grid)[:, free]
        reach = float(stdtrit(freedom, 0.975)) * np.sqrt(
            np.clip(np.einsum("ij,jk,ik->i", there, covariance, there), 0, None)
        )
    return [
        [float(a), float(b), float(max(0.0, b - r)), float(b + r)] for a, b, r in zip(grid, mean, reach, strict=True)
    ]
