"""The laws compared on one set of points: which explains it best, and how sure each parameter is.

Pure: points in, a `Models` out. All four laws of `laws` are fitted and compared
by AICc; intervals are by profile likelihood, the other parameters fitted
again within their bounds, and may end at a bound or be open.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reports.laws import (
    LAWS,
    Fit,
    Floats,
    Law,
    descend,
    fit_law,
    is_on_bound,
    jacobian,
    minimise,
    no_starts,
    rss_of,
    usl,
)
from reports.sweepsummary import Model, Models, Parameter

__all__ = ["fit_models"]

_LEAST_LEVELS = 4
_FEW_POINTS = 6
_TIE = 2.0
_CURVE_POINTS = 60


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
        return descend(law, at, free, n, x, weights)[1] - limit

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
        return min(rss_of(LAWS["hard_cap"], np.array([slope, value]), n, x, weights) for slope in candidates)
    found = minimize_scalar(
        lambda cap: rss_of(LAWS["hard_cap"], np.array([value, cap]), n, x, weights),
        bounds=(0.2 * float(x.max()), 2 * float(x.max())), method="bounded", options={"xatol": 1e-9 * float(x.max())},
    )  # fmt: skip
    corners = [value * float(level) for level in np.unique(n)]
    return min(float(found.fun), *(rss_of(LAWS["hard_cap"], np.array([value, cap]), n, x, weights) for cap in corners))


def _profile_peak(fit: Fit, n: Floats, x: Floats, weights: Floats) -> list[float | None] | None:
    """Return the interval of the concurrency with the highest throughput, with beta = (1 - alpha) / peak^2 put in."""
    limit = _limit(fit)
    if limit is None:
        return None
    law = Law(
        ("gamma", "alpha"), LAWS["amdahl"].bounds, (1.0, 0.01), lambda n, p: p[0] * n, no_starts,
    )  # fmt: skip

    def excess(peak: float) -> float:
        def throughput(at: Floats, p: Floats) -> Floats:
            return usl(at, np.array([p[0], p[1], (1 - p[1]) / peak**2]))

        here = Law(law.names, law.bounds, law.scale, throughput, law.starts)
        start = np.array([fit.values[0], min(max(fit.values[1], 0.0), 1.0)])
        return descend(here, start, (0, 1), n, x, weights)[1] - limit

    amdahl = minimise(LAWS["amdahl"], n, x, weights, (), np.array([np.nan, np.nan]))
    endless = rss_of(LAWS["amdahl"], amdahl, n, x, weights) <= limit
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
    free = [i for i in range(len(fit.values)) if not is_on_bound(law, i, float(fit.values[i]))]
    freedom = fit.points - len(free)
    slopes = (jacobian(law, fit.values, n) * weights[:, None])[:, free]
    if freedom > 0 and free and np.linalg.matrix_rank(slopes) == len(free):
        from scipy.special import stdtrit

        covariance = fit.rss / freedom * np.linalg.inv(slopes.T @ slopes)
        there: Any = jacobian(law, fit.values, grid)[:, free]
        reach = float(stdtrit(freedom, 0.975)) * np.sqrt(
            np.clip(np.einsum("ij,jk,ik->i", there, covariance, there), 0, None)
        )
    return [
        [float(a), float(b), float(max(0.0, b - r)), float(b + r)] for a, b, r in zip(grid, mean, reach, strict=True)
    ]
