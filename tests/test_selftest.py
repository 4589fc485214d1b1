"""Gates against themselves: how often they see what is not there, and how surely what is. On series of known noise."""

import numpy as np
import pytest

from reports.comparison import Difference, compare, is_enough
from reports.selftest import examine_bed, play_gates

SPREAD = 0.03
MARGIN = 0.05


def make_series(rng: np.random.Generator, count: int, correlation: float, drift: float = 0.0) -> list[float]:
    """Return throughputs of runs one after the other: AR(1) in their logarithms, and a drift per run."""
    noise = rng.normal(size=count) * SPREAD * np.sqrt(1 - correlation**2)
    logs = np.empty(count)
    logs[0] = rng.normal() * SPREAD
    for place in range(1, count):
        logs[place] = correlation * logs[place - 1] + noise[place]
    return [float(value) for value in 16 * np.exp(logs + drift * np.arange(count))]


def take_gate(rng: np.random.Generator, correlation: float, loss: float, margin: float, most: int) -> Difference:
    """Return what blocks of A B B A or B A A B say, taken until they are enough or *most* of them are."""
    series = make_series(rng, 4 * most, correlation)
    base: list[float] = []
    candidate: list[float] = []
    for block in range(most):
        runs = np.array(series[4 * block : 4 * block + 4])
        inner = np.array([False, True, True, False]) if rng.random() < 0.5 else np.array([True, False, False, True])
        runs[inner] *= 1 - loss
        candidate += [float(value) for value in runs[inner]]
        base += [float(value) for value in runs[~inner]]
        if is_enough(base, candidate, margin=margin, block=2):
            break
    return compare(base, candidate, margin=margin, higher_is_better=True, block=2)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261126)


@pytest.mark.parametrize("most", [4, 12], ids=["five-minutes", "a-quarter-of-an-hour"])
@pytest.mark.parametrize(
    ("correlation", "least", "highest"),
    [
        pytest.param(0.0, 0.035, 0.075, id="independent-runs"),
        pytest.param(0.4, 0.03, 0.07, id="neighbours-resemble-each-other"),
        pytest.param(0.7, 0.02, 0.06, id="neighbours-resemble-each-other-much"),
    ],
)
def test_one_gate_in_twenty_sees_a_change_where_there_is_none(
    rng: np.random.Generator, correlation: float, least: float, highest: float, most: int
) -> None:
    found = [take_gate(rng, correlation, 0.0, MARGIN, most) for _ in range(1500)]

    different = sum(one.interval is not None and not one.interval[0] <= 1 <= one.interval[1] for one in found)
    assert least <= different / len(found) <= highest
    assert sum(one.verdict == "regression" for one in found) / len(found) < 0.01


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_loss_of_fifteen_per_cent_is_called_a_regression_in_five_minutes(
    rng: np.random.Generator, correlation: float
) -> None:
    found = [take_gate(rng, correlation, 0.15, MARGIN, 4) for _ in range(400)]

    assert sum(one.verdict == "regression" for one in found) / len(found) >= 0.95


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_loss_of_two_per_cent_is_never_a_regression_beyond_ten(rng: np.random.Generator, correlation: float) -> None:
    found = [take_gate(rng, correlation, 0.02, 0.10, 4) for _ in range(400)]

    assert not any(one.verdict == "regression" for one in found)


def test_loss_as_large_as_the_margin_is_called_a_regression_about_as_often_as_the_interval_promises(
    rng: np.random.Generator,
) -> None:
    found = [take_gate(rng, 0.0, MARGIN, MARGIN, 8) for _ in range(1500)]

    assert sum(one.verdict == "regression" for one in found) / len(found) < 0.05
    assert sum(one.verdict == "equivalent" for one in found) / len(found) < 0.06


def test_drift_of_the_machine_cancels_within_a_block(rng: np.random.Generator) -> None:
    series = make_series(rng, 48, 0.0, drift=0.01)  # half as slow again at the end

    found = examine_bed(series, MARGIN)

    assert found["spread"] > 0.1
    assert found["block_spread"] < 0.05
    assert found["lag1"] > 0.5
    assert "drifts" in " ".join(found["sentences"])
    assert found["needed_blocks"] is not None
    assert found["needed_runs"] is None or found["needed_runs"] > 3 * found["needed_blocks"]


def test_self_test_says_how_much_a_gate_sees_and_how_many_runs_the_margin_needs(rng: np.random.Generator) -> None:
    found = examine_bed(make_series(rng, 80, 0.0), MARGIN)

    assert found["blocks"] == 20
    assert [one["blocks"] for one in found["played"]] == [3, 4, 6, 8, 12, 16]
    assert not any(one["false_alarms"] for one in found["played"])
    small = found["played"][1]
    assert 0.01 <= small["false_differences"] / small["gates"] <= 0.12
    assert small["found"] / small["gates"] > 0.95
    assert found["planted"] == pytest.approx(0.15)
    seen = {row["runs"]: row for row in found["power"]}
    # 3 % a run: 8 runs a side show 4.5 % (t(.975) + t(.8) times the standard error)
    assert seen[8]["unpaired"] == pytest.approx(0.045, rel=0.25)
    assert seen[8]["blocks"] == pytest.approx(0.031, rel=0.25)
    called = [row["called"] or 0.0 for row in found["power"]]
    assert called == sorted(called, reverse=True)
    assert min(called) > MARGIN


def test_planted_loss_is_found_by_gates_played_with_recorded_runs(rng: np.random.Generator) -> None:
    series = make_series(rng, 24, 0.3)

    found = play_gates(series, MARGIN, 6, 200, loss=0.15)

    assert sum(one.verdict == "regression" for one in found) >= 180


def test_too_few_runs_examine_nothing() -> None:
    with pytest.raises(ValueError, match="want at least 12"):
        examine_bed([16.0] * 11, MARGIN)
