"""The choice of a process count: what it is, and how often its intervals are right."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.sizing import choose_processes, measure_spread, smooth_unimodal

PLATEAU = {
    1: [5.0, 5.1, 4.9],
    2: [10.0, 9.9, 10.1],
    3: [14.8, 15.0, 14.9],
    4: [15.2, 15.3, 15.1],
    6: [15.3, 15.1, 15.2],
}


def test_fewest_processes_within_the_margin_are_chosen_not_the_best() -> None:
    choice = choose_processes(PLATEAU, 0.05)

    assert choice.processes == 3
    assert choice.best in (4, 6)
    assert choice.per_s == pytest.approx(14.9)
    assert choice.per_s_interval[0] < 14.9 < choice.per_s_interval[1]
    assert not choice.at_largest
    assert not choice.falls


def test_smaller_margin_asks_for_more_processes() -> None:
    assert choose_processes(PLATEAU, 0.01).processes == 4


def test_interval_names_the_counts_that_the_noise_does_not_tell_apart() -> None:
    noisy = {p: [v * f for v in values for f in (0.94, 1.06)] for p, values in PLATEAU.items()}

    sure, unsure = choose_processes(PLATEAU, 0.05), choose_processes(noisy, 0.05)

    assert sure.interval == (3, 3)
    assert unsure.interval[1] > unsure.interval[0]


def test_count_between_measured_ones_belongs_to_the_interval() -> None:
    coarse = {2: [10.0, 10.1, 9.9], 8: [20.0, 20.1, 19.9], 16: [20.0, 20.2, 19.8]}

    choice = choose_processes(coarse, 0.2)

    assert choice.processes == 8
    assert choice.interval[0] == 6, "by the straight line 16 msg/s are reached with 5.6"


def test_throughput_that_still_rises_is_said_to() -> None:
    choice = choose_processes({1: [5.0, 5.0], 2: [10.0, 10.1], 4: [19.9, 20.0]}, 0.05)

    assert choice.at_largest
    assert choice.rising


def test_fall_beyond_the_best_is_seen_when_it_is_sure() -> None:
    falling = {1: [6.0, 6.1], 2: [12.0, 12.1], 4: [15.0, 15.1], 8: [12.0, 12.1]}

    assert choose_processes(falling, 0.05).falls
    assert not choose_processes(falling | {8: [14.6, 14.7]}, 0.05).falls


def test_without_repeats_the_spread_is_a_cautious_guess() -> None:
    spread = measure_spread({1: [5.0], 2: [10.0]})

    assert spread.relative == pytest.approx(0.05)
    assert spread.half_width(1) > 0.15


def test_spread_is_pooled_over_levels() -> None:
    spread = measure_spread({1: [10 * math.exp(0.03), 10 * math.exp(-0.03)] * 3, 2: [20.0] * 3})

    # six values at +-3 % have 5 degrees of freedom, three equal ones 2
    assert spread.freedom == 7
    assert spread.relative == pytest.approx(math.sqrt(6 * 0.03**2 / 7))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1, 20), min_size=1, max_size=5), st.data())
def test_smoothing_is_the_best_fit_that_rises_then_falls(values: list[float], data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.integers(1, 4), min_size=len(values), max_size=len(values))), dtype=float)
    y = np.array(values)

    got = smooth_unimodal(y[None, :], weights)[0]

    peak = int(np.argmax(got))
    assert np.all(np.diff(got[: peak + 1]) >= -1e-9)
    assert np.all(np.diff(got[peak:]) <= 1e-9)
    error = float(((got - y) ** 2 * weights).sum())
    assert error <= _best_by_blocks(y, weights) + 1e-6


def _best_by_blocks(y: np.ndarray, weights: np.ndarray) -> float:
    """Return the least error over all ways to cut the curve into flat blocks that rise and then fall."""
    n, best = len(y), math.inf
    for cuts in itertools.product((False, True), repeat=n - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), n]
        fit = np.concatenate(
            [np.full(b - a, np.average(y[a:b], weights=weights[a:b])) for a, b in itertools.pairwise(edges)]
        )
        peak = int(np.argmax(fit))
        if np.all(np.diff(fit[: peak + 1]) >= 0) and np.all(np.diff(fit[peak:]) <= 0):
            best = min(best, float(((fit - y) ** 2 * weights).sum()))
    return best
