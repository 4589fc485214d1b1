"""The four laws: published fits reproduced, exact data recovered, the right law chosen, intervals that hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.laws import LAWS, fit_law
from reports.models import fit_models

# SPARCcenter 2000, SPEC SDM91, October 1994 (Gunther, Guerrilla Capacity Planning; data of R's usl)
SPECSDM91 = [(1, 64.9), (18, 995.9), (36, 1652.4), (72, 1853.2), (108, 1828.9), (144, 1775.0), (216, 1702.2)]
# MySQL on Cisco UCS, N = 1 to 32 (Schwartz, Practical Scalability Analysis with the USL; Percona 2010)
CISCO = list(
    enumerate(
        [
            955.16, 1878.91, 2688.01, 3548.68, 4315.54, 5130.43, 5931.37, 6531.08, 7219.80, 7867.61, 8278.71, 8646.70,
            9047.84, 9426.55, 9645.37, 9897.24, 10097.60, 10240.50, 10532.39, 10798.52, 11151.43, 11518.63, 11806.00,
            12089.37, 12075.41, 12177.29, 12211.41, 12158.93, 12155.27, 12118.04, 12140.40, 12074.39,
        ],
        start=1,
    )
)  # fmt: skip


def columns(points: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    return [float(n) for n, _ in points], [x for _, x in points]


def test_specsdm91_is_fitted_as_by_r_usl_3() -> None:
    fit = fit_law("usl", *columns(SPECSDM91))
    gamma, alpha, beta = fit.values

    assert f"{gamma:.2f}" == "90.00"
    assert f"{alpha:.3e}" == "2.773e-02"
    assert f"{beta:.3e}" == "1.044e-04"
    assert [f"{e:.4g}" for e in fit.standard_errors if e is not None] == ["14.21", "0.009122", "1.988e-05"]
    assert f"{fit.residual_error:.2f}" == "82.85"
    assert fit.freedom == 4
    peak = math.sqrt((1 - alpha) / beta)
    assert f"{peak:.4f}" == "96.5194"
    assert f"{LAWS['usl'].throughput(np.array([peak]), fit.values)[0]:.0f}" == "1884"
    assert f"{1 / alpha:.3f}" == "36.064"
    assert f"{LAWS['usl'].throughput(np.array([1 / alpha]), fit.values)[0]:.0f}" == "1542"
    assert f"{gamma / alpha:.1f}" == "3245.6"


def test_specsdm91_fitted_values_and_efficiencies_are_those_published() -> None:
    n, x = columns(SPECSDM91)
    fit = fit_law("usl", n, x)

    fitted = LAWS["usl"].throughput(np.array(n), fit.values)

    assert [round(value) for value in fitted] == [90, 1078, 1541, 1850, 1879, 1822, 1646]
    efficiency = np.array(x) / np.array(n) / fit.values[0]
    assert [f"{value:.4f}" for value in efficiency] == [
        "0.7211",
        "0.6148",
        "0.5100",
        "0.2860",
        "0.1882",
        "0.1370",
        "0.0876",
    ]


def test_specsdm91_agrees_with_lmfit_to_its_digits() -> None:
    fit = fit_law("usl", *columns(SPECSDM91))

    assert fit.values == pytest.approx([89.9954927, 0.02772863, 0.00010437], rel=5e-5)
    assert fit.rss / fit.freedom == pytest.approx(6863.430, abs=5e-4)


def test_specsdm91_relative_to_one_processor_agrees_with_the_quadratic_transform() -> None:
    """R's usl 1.8 fitted N / C - 1 = beta' x^2 + alpha' x over x = N - 1 by ordinary least squares."""
    n, x = (np.array(column) for column in columns(SPECSDM91))
    deviation = n / (x / x[0]) - 1
    basis = np.stack([(n - 1) ** 2, n - 1], axis=1)

    (quadratic, linear), *_ = np.linalg.lstsq(basis, deviation, rcond=None)

    assert f"{linear - quadratic:.3e}" == "1.705e-02"
    assert f"{quadratic:.2e}" == "7.89e-05"
    assert round(math.sqrt((1 - (linear - quadratic)) / quadratic), -1) == 110


def test_cisco_is_fitted_as_in_the_book() -> None:
    fit = fit_law("usl", *columns(CISCO))

    assert fit.values[0] == pytest.approx(995.6486, rel=5e-7)
    assert fit.values[1] == pytest.approx(0.02671591, rel=5e-6)
    assert fit.values[2] == pytest.approx(7.690945e-4, rel=5e-6)
    assert math.floor(math.sqrt((1 - fit.values[1]) / fit.values[2])) == 35
    assert LAWS["usl"].throughput(np.array([35.0]), fit.values)[0] == pytest.approx(12341.7454, rel=1e-6)


def test_cisco_with_gamma_at_the_first_point_agrees_with_r_and_gnuplot() -> None:
    n, x = columns(CISCO)
    fit = fit_law("usl", n, [value / x[0] for value in x], fixed={"gamma": 1.0})

    assert fit.values[1:] == pytest.approx([0.0207164433, 0.0008612175], rel=5e-6)
    assert fit.values[1:] == pytest.approx([0.0207163, 0.000861226], rel=2e-5)
    assert [f"{error:.3e}" for error in fit.standard_errors[1:] if error] == ["1.322e-03", "5.412e-05"]
    assert fit.residual_error == pytest.approx(0.2005, abs=5e-5)
    assert fit.freedom == 30


def test_law_is_chosen_as_the_evidence_has_it() -> None:
    few, many = fit_models(SPECSDM91), fit_models(CISCO)

    # with seven points the penalty of a third parameter is 28 against 14: the cap wins although the USL leaves less
    assert few["chosen"] == "hard_cap"
    assert few["models"]["usl"]["rss"] < few["models"]["hard_cap"]["rss"]
    assert "hard-cap-fits-better" in few["warnings"]
    assert many["chosen"] == "usl"
    close = {name: model["aicc"] for name, model in many["models"].items() if model["aicc"] is not None}
    assert sorted(close, key=close.__getitem__)[:2] == ["usl", "smooth_min"]


def test_peak_beyond_the_tested_range_is_no_number() -> None:
    models = fit_models(CISCO)

    assert models["models"]["usl"]["peak_concurrency"] is None
    assert "peak-outside-range" in models["warnings"]
    assert fit_models(SPECSDM91)["models"]["usl"]["peak_concurrency"] == pytest.approx(96.51956, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("usl", (90.0, 0.03, 1e-3), id="usl"),
        pytest.param("amdahl", (5.0, 0.12), id="amdahl"),
        pytest.param("hard_cap", (6.0, 21.0), id="hard-cap"),
        pytest.param("smooth_min", (6.0, 21.0, 4.0), id="smooth-min"),
    ],
)
def test_exact_data_give_back_their_parameters(name: str, values: tuple[float, ...]) -> None:
    n = np.array([1.0, 2, 3, 4, 6, 8, 12, 16, 24])
    x = LAWS[name].throughput(n, np.array(values))

    got = fit_law(name, n.tolist(), x.tolist())

    assert got.values == pytest.approx(values, rel=1e-4)
    noisy = x * np.exp(np.random.default_rng(1).normal(0, 0.003, len(n)))
    models = fit_models(list(zip(n.tolist(), noisy.tolist(), strict=True)))
    assert name in (models["chosen"], *models["ties"])


@given(st.floats(1, 100), st.floats(0, 0.5), st.integers(1, 100))
def test_amdahl_is_usl_without_coherency_and_smooth_min_of_one(gamma: float, alpha: float, n: int) -> None:
    at = np.array([float(n)])
    amdahl = LAWS["amdahl"].throughput(at, np.array([gamma, alpha]))[0]

    assert LAWS["usl"].throughput(at, np.array([gamma, alpha, 0.0]))[0] == pytest.approx(amdahl)
    if alpha > 1e-3:
        rounded = LAWS["smooth_min"].throughput(at, np.array([gamma / (1 - alpha), gamma / alpha, 1.0]))[0]
        assert rounded == pytest.approx(amdahl)


@settings(max_examples=25, deadline=None)
@given(st.floats(2, 12), st.floats(8, 60), st.integers(0, 10_000))
def test_hard_cap_is_the_global_optimum(slope: float, cap: float, seed: int) -> None:
    """No pair of a fine grid leaves less than the exact solution."""
    rng = np.random.default_rng(seed)
    n = np.array([1.0, 2, 3, 4, 6, 8, 12])
    x = np.minimum(slope * n, cap) * np.exp(rng.normal(0, 0.1, len(n)))

    fit = fit_law("hard_cap", n.tolist(), x.tolist())

    slopes, caps = np.linspace(0.3 * slope, 2 * slope, 120), np.linspace(0.3 * x.max(), 1.5 * x.max(), 120)
    grid = np.minimum(slopes[:, None, None] * n, caps[None, :, None])
    assert fit.rss <= ((x - grid) ** 2).sum(axis=2).min() + 1e-9


def test_intervals_hold_the_truth_nineteen_times_in_twenty() -> None:
    rng, n = np.random.default_rng(4), np.array([1.0, 2, 3, 4, 6, 8, 12, 16])
    truth = np.array([6.0, 0.05, 0.004])
    held = {"gamma": 0, "alpha": 0, "beta": 0, "peak": 0}
    rounds = 20
    for _ in range(rounds):
        x = LAWS["usl"].throughput(n, truth) + rng.normal(0, 0.3, len(n))
        model = fit_models(list(zip(n.tolist(), x.tolist(), strict=True)))["models"]["usl"]
        for name, true in zip(("gamma", "alpha", "beta"), truth, strict=True):
            low, high = model["parameters"][name]["interval"] or (None, None)
            held[name] += (low is None or low <= true) and (high is None or true <= high)
        low, high = model["peak_interval"] or (None, None)
        held["peak"] += (low is None or low <= math.sqrt(0.95 / 0.004)) and (
            high is None or math.sqrt(0.95 / 0.004) <= high
        )

    assert all(0.85 <= count / rounds <= 1.0 for count in held.values()), held


def test_parameter_on_its_bound_has_no_standard_error_and_says_so() -> None:
    n = np.array([1.0, 2, 3, 4, 6, 8, 12])
    models = fit_models([(float(a), 5.0 * float(a) ** 1.02) for a in n])

    usl = models["models"]["usl"]["parameters"]
    assert usl["beta"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert usl["beta"]["standard_error"] is None
    assert "parameter-on-bound" in models["warnings"]
    assert models["models"]["usl"]["peak_concurrency"] is None


def test_points_almost_on_a_line_are_fitted() -> None:
    points = [
        (2, 9.6942),
        (2, 9.6931),
        (3, 14.1230),
        (3, 14.1083),
        (4, 18.2373),
        (4, 18.2453),
        (6, 25.7217),
        (6, 25.7758),
    ]

    models = fit_models([(float(n), x) for n, x in points])

    assert models["models"]["usl"]["peak_concurrency"] is None
    assert models["models"]["amdahl"]["parameters"]["alpha"]["value"] < 0.1


def test_cold_start_at_one_is_called_super_linear() -> None:
    models = fit_models([(1.0, 3.0), (2.0, 10.0), (3.0, 15.0), (4.0, 19.8), (6.0, 24.0), (8.0, 24.1), (12.0, 24.0)])

    assert "first-point-misfit" in models["warnings"]


def test_few_points_are_warned_of_and_compare_simple_laws_only() -> None:
    models = fit_models([(1.0, 5.0), (2.0, 10.0), (4.0, 15.0), (8.0, 15.1)])

    assert "fewer-than-six-points" in models["warnings"]
    assert models["models"]["usl"]["aicc"] is None
    assert models["chosen"] == "hard_cap"


@pytest.mark.parametrize(
    ("points", "want"),
    [
        ([(1.0, 5.0), (2.0, 9.0), (2.0, 9.1), (3.0, 12.0)], "got 3 different concurrencies, want at least 4"),
        ([(0.5, 5.0), (2.0, 9.0), (3.0, 9.1), (4.0, 12.0)], "every concurrency at least 1"),
        ([(1.0, 0.0), (2.0, 9.0), (3.0, 9.1), (4.0, 12.0)], "every throughput above 0"),
    ],
)
def test_points_that_cannot_be_fitted_are_refused(points: list[tuple[float, float]], want: str) -> None:
    with pytest.raises(ValueError, match=want):
        fit_models(points)


def test_weights_follow_the_standard_errors() -> None:
    n, x = columns(SPECSDM91)
    exact_first = fit_law("usl", n, x, [0.1, *[100.0] * 6])

    assert exact_first.values[0] == pytest.approx(64.9, rel=0.01)


def test_band_is_around_the_curve_and_over_the_tested_range_only() -> None:
    model = fit_models(SPECSDM91)["models"]["usl"]

    assert model["curve"][0][0] == 1.0
    assert model["curve"][-1][0] == 216.0
    assert all(low < mean < high for _, mean, low, high in model["curve"])
