"""The arithmetic of a comparison: intervals that hold what they promise, verdicts against a margin, known answers."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from reports.comparison import adjust_for_several, compare, detectable_change, needed_runs


def draw(rng: random.Random, mean: float, spread: float, count: int) -> list[float]:
    return [mean * math.exp(rng.gauss(0, spread)) for _ in range(count)]


def test_change_is_the_ratio_of_geometric_means_with_welchs_interval() -> None:
    base, candidate = [10.0, 11.0, 10.5, 9.8], [11.5, 12.4, 12.0]

    found = compare(base, candidate, margin=0.05, higher_is_better=True)

    x, y = np.log(base), np.log(candidate)
    want = stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
    assert found.ratio == pytest.approx(math.exp(y.mean() - x.mean()))
    assert found.interval == pytest.approx((math.exp(want.low), math.exp(want.high)))
    assert found.verdict == "improved"


def test_pairs_are_compared_pair_by_pair() -> None:
    base, candidate = [10.0, 20.0, 30.0, 15.0], [9.0, 18.2, 26.9, 13.4]

    together = compare(base, candidate, margin=0.05, higher_is_better=True, block=1)

    assert together.verdict == "regression"
    assert compare(base, candidate, margin=0.05, higher_is_better=True).verdict == "inconclusive"
    want = stats.ttest_1samp(np.log(candidate) - np.log(base), 0).confidence_interval(0.95)
    assert together.interval == pytest.approx((math.exp(want.low), math.exp(want.high)))


def test_blocks_take_out_what_their_runs_have_in_common() -> None:
    # the machine is half as fast in the second block and twice as fast in the third
    base, candidate = [10.0, 10.2, 5.0, 5.1, 20.4, 20.0], [9.0, 9.1, 4.5, 4.6, 18.1, 18.2]

    found = compare(base, candidate, margin=0.05, higher_is_better=True, block=2)

    # two-way analysis of variance: runs explained by their block and their side
    y = np.log(np.array(base + candidate))
    side, place = np.repeat([0.0, 1.0], 6), np.tile(np.repeat(np.arange(3), 2), 2)
    design = np.column_stack([side, *(place == number for number in range(3))]).astype(float)
    solution, rest, *_ = np.linalg.lstsq(design, y, rcond=None)
    error = math.sqrt(rest[0] / 8 * np.linalg.inv(design.T @ design)[0, 0])
    half = stats.t.ppf(0.975, 8) * error
    assert found.ratio == pytest.approx(math.exp(solution[0]))
    assert found.interval == pytest.approx((math.exp(solution[0] - half), math.exp(solution[0] + half)))
    assert found.verdict == "regression"


@pytest.mark.parametrize(
    ("candidate", "higher", "want"),
    [
        ([10.2, 10.1, 10.0, 10.1], True, "equivalent"),
        ([9.0, 9.1, 8.9, 9.0], True, "regression"),
        ([11.0, 11.1, 10.9, 11.0], True, "improved"),
        ([9.0, 9.1, 8.9, 9.0], False, "improved"),
        ([11.0, 11.1, 10.9, 11.0], False, "regression"),
        ([9.0, 11.0, 8.5, 10.5], True, "inconclusive"),
    ],
)
def test_verdict_says_where_the_interval_lies_against_the_margin(
    candidate: list[float], higher: bool, want: str
) -> None:
    found = compare([10.0, 10.1, 9.9, 10.0], candidate, margin=0.05, higher_is_better=higher)

    assert found.verdict == want


def test_one_run_on_a_side_decides_nothing() -> None:
    found = compare([10.0], [5.0], margin=0.05, higher_is_better=True)

    assert (found.verdict, found.interval, found.detectable) == ("inconclusive", None, None)
    assert found.ratio == pytest.approx(0.5)


@pytest.mark.parametrize("block", [None, 1, 5])
def test_interval_holds_the_truth_nineteen_times_in_twenty(block: int | None) -> None:
    rng = random.Random(f"coverage:{block}")
    held = 0
    for _ in range(2000):
        one, other = draw(rng, 10, 0.04, 5), draw(rng, 9.3, 0.04, 5)
        interval = compare(one, other, margin=0.05, higher_is_better=True, block=block).interval
        assert interval is not None
        held += interval[0] <= 0.93 <= interval[1]

    assert 0.935 <= held / 2000 <= 0.965


def test_loss_of_just_the_margin_is_called_a_regression_in_one_of_forty_and_no_loss_never() -> None:
    rng = random.Random(3)
    at_margin = same = 0
    for _ in range(2000):
        base = draw(rng, 10, 0.03, 5)
        at_margin += compare(base, draw(rng, 9.5, 0.03, 5), margin=0.05, higher_is_better=True).verdict == "regression"
        same += compare(base, draw(rng, 10, 0.03, 5), margin=0.05, higher_is_better=True).verdict == "regression"

    assert at_margin / 2000 == pytest.approx(0.025, abs=0.01)
    assert same <= 2


def test_a_large_loss_is_seen_and_a_small_one_within_the_margin_is_not() -> None:
    rng = random.Random(4)
    verdicts = [
        (
            compare(base, draw(rng, 8.5, 0.04, 5), margin=0.05, higher_is_better=True).verdict,
            compare(base, draw(rng, 9.8, 0.04, 5), margin=0.10, higher_is_better=True).verdict,
        )
        for base in (draw(rng, 10, 0.04, 5) for _ in range(200))
    ]

    assert sum(large == "regression" for large, _ in verdicts) >= 180
    assert not any(small == "regression" for _, small in verdicts)


@pytest.mark.parametrize(
    ("spread", "runs", "want"), [(0.02, 5, 0.040), (0.05, 3, 0.152), (0.10, 10, 0.133), (0.01, 20, 0.009)]
)
def test_detectable_change_is_the_published_one(spread: float, runs: int, want: float) -> None:
    assert detectable_change(spread, runs, runs) == pytest.approx(want, abs=6e-4)


def test_needed_runs_are_the_fewest_that_see_the_margin() -> None:
    runs = needed_runs(0.03, 0.05)

    assert runs is not None
    assert (detectable_change(0.03, runs, runs) or 1) <= 0.05 < (detectable_change(0.03, runs - 1, runs - 1) or 0)
    assert needed_runs(1.0, 0.01) is None


def test_interval_without_a_distribution_is_the_known_one() -> None:
    rng = random.Random(5)
    six, seven = draw(rng, 10, 0.1, 6), draw(rng, 11, 0.1, 6)
    d = np.log(seven) - np.log(six)
    # of six pairs only the outermost averages will do: the smallest and the largest difference
    assert compare(six, seven, margin=0.05, higher_is_better=True, block=1).free_interval == pytest.approx(
        (math.exp(d.min()), math.exp(d.max()))
    )
    assert compare(six[:5], seven[:5], margin=0.05, higher_is_better=True, block=1).free_interval is None
    # four against four: 1/70 on each side
    sides = np.log(seven[:4])[:, None] - np.log(six[:4])[None, :]
    assert compare(six[:4], seven[:4], margin=0.05, higher_is_better=True).free_interval == pytest.approx(
        (math.exp(sides.min()), math.exp(sides.max()))
    )
    assert compare(six[:3], seven[:3], margin=0.05, higher_is_better=True).free_interval is None


def test_many_looks_need_more_certainty_than_one() -> None:
    rng = random.Random(6)
    alarms = 0
    for _ in range(300):
        family = [
            compare(draw(rng, 10, 0.03, 5), draw(rng, 10, 0.03, 5), margin=0.05, higher_is_better=True)
            for _ in range(8)
        ]
        alarms += any(one.verdict in ("improved", "regression") for one in adjust_for_several(family))

    assert alarms / 300 <= 0.05
    sure = compare([10.0, 10.1, 9.9, 10.0], [8.0, 8.1, 7.9, 8.0], margin=0.05, higher_is_better=True)
    assert adjust_for_several([sure] * 8)[0].verdict == "regression"


@pytest.mark.parametrize("values", [([], [1.0]), ([1.0], [0.0]), ([1.0], [-1.0])])
def test_what_cannot_be_compared_is_refused(values: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="want at least one run on each side"):
        compare(*values, margin=0.05, higher_is_better=True)
