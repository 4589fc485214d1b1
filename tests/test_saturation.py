"""The verdict: where throughput stops following the load, and never beyond what was tested."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadgen.records import RunReader
from reports.analyse import analyse
from reports.attribution import Limits, attribute
from reports.plateau import Point, find_plateau, mean_rate
from reports.saturation import judge
from reports.steprow import Delays, StepRow
from reports.summary import Verdict
from tests.make_run import Made, make_run

LIMITS = Limits(feed_processes=4, filter_servers=4, destination_concurrency_limit=20, cpus=4)


def points(curve: dict[int, float], half_width: float = 0.3) -> list[Point]:
    return [Point(i, n, x, (x - half_width, x + half_width)) for i, (n, x) in enumerate(curve.items())]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[StepRow]:
    directory = make_run(tmp_path_factory.mktemp("run"))
    with RunReader(directory) as reader:
        return analyse(reader)["steps"]


def changed(row: StepRow, **values: object) -> StepRow:
    return {**row, **values}  # type: ignore[typeddict-item]


def verdict_of(directory: Path) -> Verdict:
    with RunReader(directory) as reader:
        return analyse(reader)["verdict"]


# -- the plateau ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "want"),
    [
        pytest.param({1: 9.3, 2: 12.5, 3: 23.8, 4: 27.4, 6: 27.6, 8: 26.9, 16: 27.1}, 4, id="hard-cap"),
        pytest.param({1: 10, 2: 20, 4: 40, 8: 40.5}, 4, id="one-larger-step-is-enough"),
        pytest.param({1: 10, 2: 20, 4: 31, 8: 38, 16: 39.5, 32: 40}, 8, id="round-shoulder"),
        pytest.param({1: 10, 2: 20, 4: 40, 8: 33}, 4, id="falls-after-the-peak"),
        pytest.param({1: 10, 2: 20, 4: 40, 8: 80}, None, id="still-climbing"),
        pytest.param({1: 10, 2: 20, 4: 40, 8: 46}, None, id="climbing-slower"),
        pytest.param({28: 28, 30: 30, 31: 31}, None, id="steps-too-close-to-tell"),
        pytest.param({4: 40}, None, id="one-step"),
        pytest.param({}, None, id="no-steps"),
    ],
)
def test_saturation_point_is_the_first_on_an_established_plateau(curve: dict[int, float], want: int | None) -> None:
    got = find_plateau(points(curve))

    assert (got and got.concurrency) == want


def test_one_good_step_on_a_noisy_machine_is_not_growth() -> None:
    noisy = [Point(0, 4, 10.6, (9.6, 11.6)), Point(1, 8, 9.6, (7.9, 11.3)), Point(2, 16, 11.9, (10.9, 13.0))]
    exact = [Point(p.step, p.concurrency, p.per_s, (0.99 * p.per_s, 1.01 * p.per_s)) for p in noisy]
    rising = [Point(0, 4, 8.0, (5.0, 11.0)), Point(1, 8, 10.0, (7.0, 13.0)), Point(2, 16, 12.0, (9.0, 15.0))]

    got = find_plateau(noisy)

    assert got is not None
    assert got.concurrency == 4
    assert got.interval[0] < 11 < got.interval[1]
    assert find_plateau(exact) is None
    assert find_plateau(rising) is None, "a third more is growth, however vague"


def test_two_steps_that_scatter_have_an_interval_over_both_of_theirs() -> None:
    mean, interval = mean_rate([Point(0, 4, 10.6, (9.6, 11.6)), Point(1, 16, 12.6, (11.9, 13.3))])

    assert interval[0] <= 9.6 < mean < 13.3 <= interval[1]
    assert interval[1] - interval[0] < 6


def test_repeats_of_one_concurrency_are_no_larger_step() -> None:
    same = [Point(0, 4, 40, (39.7, 40.3)), Point(1, 4, 40.1, (39.8, 40.4))]

    assert find_plateau(same) is None


def test_fall_beyond_the_peak_is_retrograde_only_when_significant() -> None:
    sharp = find_plateau(points({1: 10, 4: 40, 8: 40, 16: 34}))
    vague = find_plateau(points({1: 10, 4: 40, 8: 40, 16: 34}, half_width=5))

    assert sharp is not None
    assert vague is not None
    assert sharp.fall == pytest.approx(0.15, abs=0.01)
    assert vague.fall is None


def test_steps_that_scatter_widen_the_interval() -> None:
    _, quiet = mean_rate(points({4: 40, 8: 40.1, 16: 39.9}))
    _, loud = mean_rate(points({4: 40, 8: 41.5, 16: 38.5}))

    assert loud[1] - loud[0] > 3 * (quiet[1] - quiet[0])


def test_steps_that_agree_within_their_intervals_are_pooled() -> None:
    _, got = mean_rate([Point(0, 4, 12.1, (11.4, 12.8)), Point(1, 8, 12.5, (11.7, 13.3))])

    assert got[1] - got[0] < 2 * 0.7


def test_more_exact_step_weighs_more() -> None:
    got, _ = mean_rate([Point(0, 4, 40, (39.9, 40.1)), Point(1, 8, 42, (40, 44))])

    assert got == pytest.approx(40, abs=0.1)


# -- the verdict ------------------------------------------------------------------------------------------


def test_known_capacity_is_found_with_its_interval(rows: list[StepRow]) -> None:
    got = judge(rows, "delivered", LIMITS)

    assert got["saturated"] is True
    assert got["concurrency"] == 4
    assert got["crossing_concurrency"] == pytest.approx(4, rel=0.02)
    assert got["delivered_per_s_interval"] is not None
    assert got["delivered_per_s_interval"][0] <= 40 <= got["delivered_per_s_interval"][1]
    assert got["plateau_steps"] == [2, 3]


def test_nothing_beyond_the_tested_range_is_a_number(tmp_path: Path) -> None:
    got = verdict_of(make_run(tmp_path / "run", Made(concurrencies=(1, 2, 3), processes=8)))

    assert got["saturated"] is False
    assert got["headline"].startswith("Not saturated up to N = 3: more than ")
    assert got["concurrency"] is None
    assert got["delivered_per_s"] is None
    said = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", " ".join([got["headline"], *got["sentences"]]))]
    assert max(said) <= 31


def test_more_than_is_the_lower_end_of_the_interval(rows: list[StepRow]) -> None:
    got = judge(rows[:2], "delivered", LIMITS)

    low = (rows[1]["delivered_per_s_interval"] or [0])[0]
    assert f"more than {low:.1f} msg/s" in got["headline"]


def test_invalid_steps_are_not_used(rows: list[StepRow]) -> None:
    spoilt = [*rows[:3], changed(rows[3], valid=False, reasons=["x"])]

    got = judge(spoilt, "delivered", LIMITS)

    assert got["saturated"] is False
    assert got["tested_to"] == 4


def test_no_valid_step_is_no_verdict(rows: list[StepRow]) -> None:
    got = judge([changed(row, valid=False) for row in rows], "delivered", LIMITS)

    assert got["saturated"] is None
    assert "no step is valid" in got["headline"]


def test_one_concurrency_is_no_verdict(rows: list[StepRow]) -> None:
    assert judge(rows[3:], "delivered", LIMITS)["saturated"] is None


def test_chain_that_falls_is_retrograde(tmp_path: Path) -> None:
    made = Made(concurrencies=(1, 2, 4, 8, 16), service_factor={16: 1.3})

    got = verdict_of(make_run(tmp_path / "run", made))

    assert got["retrograde"]
    assert any("slower" in sentence for sentence in got["sentences"])


def test_offered_rate_beyond_capacity_gives_what_comes_out(tmp_path: Path) -> None:
    made = Made(pacing="rate", rates=(20, 35, 60), concurrencies=(50, 50, 50), hold_s=15)

    got = verdict_of(make_run(tmp_path / "run", made))

    assert got["saturated"] is True
    assert got["delivered_per_s"] == pytest.approx(40, rel=0.02)
    assert got["kept_up_per_s"] == pytest.approx(35, rel=0.02)
    assert got["concurrency"] is None


def test_offered_rate_that_is_kept_up_with_is_not_saturated(tmp_path: Path) -> None:
    made = Made(pacing="rate", rates=(20, 30), concurrencies=(50, 50), hold_s=15)

    assert verdict_of(make_run(tmp_path / "run", made))["saturated"] is False


# -- which station ----------------------------------------------------------------------------------------


def delays(b: float = 0.0, c: float = 0.0, d: float = 0.1) -> Delays:
    return Delays(a_s=0.0, b_s=b, c_s=c, d_s=d, messages=500)


def host(row: StepRow, **values: float) -> dict[str, object]:
    return {**row["host"], **values}


def name_station(rows: Sequence[StepRow], limits: Limits = LIMITS, **values: object) -> tuple[str | None, str]:
    got = attribute(changed(rows[-1], **values), changed(rows[0], feed_delays=delays()), limits)
    return got.station, " ".join(got.sentences)


def test_equal_limits_name_the_filter_stage_and_say_whether_the_cpu_has_room(rows: list[StepRow]) -> None:
    station, text = name_station(rows)

    assert station == "filter"
    assert "4.0 of 4 filter processes are busy" in text
    assert "CPU still has room" in text


def test_feed_limit_is_named_when_the_filter_is_idle_beside_it(rows: list[StepRow]) -> None:
    limits = Limits(feed_processes=2, filter_servers=8, destination_concurrency_limit=20, cpus=4)

    station, text = name_station(
        rows, limits, utilisation=0.25, busy_processes=2.0, feed_utilisation=1.0, feed_delays=delays(b=0.5)
    )

    assert station == "feed"
    assert "maxproc" in text


def test_destination_limit_is_told_from_maxproc(rows: list[StepRow]) -> None:
    limits = Limits(feed_processes=40, filter_servers=40, destination_concurrency_limit=20, cpus=4)

    station, text = name_station(
        rows, limits, utilisation=0.5, busy_processes=20.0, feed_utilisation=1.0, feed_delays=delays(b=0.5)
    )

    assert station == "feed"
    assert "destination concurrency limit (20)" in text


def test_too_few_filter_processes_show_in_the_accept_queue_and_in_c(rows: list[StepRow]) -> None:
    limits = Limits(feed_processes=8, filter_servers=4, destination_concurrency_limit=20, cpus=4)

    station, text = name_station(rows, limits, accept_queue=4.0, feed_delays=delays(c=0.56))

    assert station == "filter"
    assert "8 deliveries of the feed wait" in text


def test_full_cpu_with_growing_work_is_the_cpu(rows: list[StepRow]) -> None:
    station, text = name_station(rows, host=host(rows[-1], cpu_busy=3.9), feed_delays=delays(d=0.2))

    assert station == "cpu"
    assert "3.9 of 4 cores busy" in text


def test_full_cpu_and_busy_processes_without_growth_name_both(rows: list[StepRow]) -> None:
    got = attribute(changed(rows[-1], host=host(rows[-1], cpu_busy=3.9)), rows[0], LIMITS)

    assert got.station is None
    assert set(got.candidates) == {"filter", "cpu"}


def test_disk_that_stalls_everything_is_named(rows: list[StepRow]) -> None:
    assert name_station(rows, host=host(rows[-1], psi_io_full=0.4, disk_busy=0.95))[0] == "disk"


@pytest.mark.parametrize("name", ["generator", "sink"])
def test_our_own_limit_is_never_taken_for_the_chains(rows: list[StepRow], name: str) -> None:
    station, text = name_station(rows, cost={**rows[-1]["cost"], f"{name}_cores": 0.95})

    assert station == name
    assert "may carry more" in text


def test_nothing_full_is_said_to_be_unexplained(rows: list[StepRow]) -> None:
    station, text = name_station(rows, utilisation=0.5, busy_processes=2.0, feed_utilisation=0.5)

    assert station is None
    assert "No station is at its limit" in text


def test_without_telemetry_no_station_is_guessed(rows: list[StepRow]) -> None:
    station, text = name_station(
        rows, utilisation=None, busy_processes=None, feed_utilisation=None, feed_delays=None, accept_queue=None
    )

    assert station is None
    assert "not known" in text


def test_recommendation_repeats_the_level_only_when_it_saturates(tmp_path: Path) -> None:
    saturated = make_run(tmp_path / "a")
    climbing = make_run(tmp_path / "b", Made(concurrencies=(1, 2)))

    with RunReader(saturated) as one, RunReader(climbing) as two:
        first, second = analyse(one), analyse(two)

    assert first["recommendation"]["processes"] == 4
    assert first["levels"][0]["delivered_per_s"] == first["verdict"]["delivered_per_s"]
    assert second["recommendation"]["processes"] is None
    assert second["levels"][0]["processes"] == 4
