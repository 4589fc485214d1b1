"""What a step says: rates, intervals, percentiles, and whether it may be used."""

from pathlib import Path

import numpy as np
import pytest

from loadgen.records import RunReader
from reports.analyse import analyse
from reports.steady import find_warm_up, is_precise, measure_rate, measure_slope, time_mean
from reports.steprow import StepRow
from reports.steps import check_little, is_overloaded, take_percentiles
from reports.tables import message_key
from tests.make_run import Made, change, expected_rate, make_run


def read_steps(directory: Path) -> list[StepRow]:
    with RunReader(directory) as reader:
        return analyse(reader)["steps"]


def evenly(rate: float, start: float, end: float) -> np.ndarray:
    return np.arange(start + 0.5 / rate, end, 1 / rate)


# -- rates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_s", [0.0, 0.013, 0.049])
def test_slope_of_even_arrivals_is_their_rate_wherever_the_window_cuts(offset_s: float) -> None:
    got = measure_rate(evenly(20, 0, 60), 10 + offset_s, 40 + offset_s)

    assert got.per_s == pytest.approx(20, rel=0.002)
    assert got.interval is not None
    assert got.interval[0] <= 20 <= got.interval[1]


def test_arrivals_outside_the_window_do_not_count() -> None:
    got = measure_rate(np.array([0.5, 1.5, 2.5, 9.0]), 1, 3)

    assert got.events == 2


def test_interval_covers_the_rate_of_random_arrivals_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        arrivals = np.cumsum(rng.exponential(1 / 20, 1600))
        got = measure_rate(arrivals, 5, 45)
        assert got.interval is not None
        covered += got.interval[0] <= 20 <= got.interval[1]

    assert covered / 400 > 0.92


def test_interval_is_wider_when_neighbouring_seconds_follow_each_other() -> None:
    rng = np.random.default_rng(3)
    level, levels = 0.0, []
    for _ in range(60):
        level = 0.95 * level + rng.normal(0, 1)
        levels.append(20 * (1 + 0.1 * level))
    slow = np.concatenate([second + np.sort(rng.random(max(0, int(n)))) for second, n in enumerate(levels)])
    even = evenly(20, 0, 60)

    got, reference = measure_rate(slow, 0, 60).interval, measure_rate(even, 0, 60).interval

    assert got is not None
    assert reference is not None
    assert got[1] - got[0] > 4 * (reference[1] - reference[0])


def test_halves_that_differ_significantly_are_not_steady() -> None:
    arrivals = np.concatenate([evenly(20, 0, 30), evenly(16, 30, 60)])

    got = measure_rate(arrivals, 0, 60)

    assert not got.steady
    assert got.halves_change == pytest.approx(-0.2, abs=0.02)


def test_halves_that_differ_by_less_than_ten_per_cent_are_steady() -> None:
    assert measure_rate(np.concatenate([evenly(20, 0, 30), evenly(18.4, 30, 60)]), 0, 60).steady


def test_slow_beginning_is_cut_as_warm_up() -> None:
    gaps = np.random.default_rng(1).gamma(11.0, 1 / 11.0, 710)
    instants = np.cumsum(gaps * np.where(np.arange(710) < 30, 1 / 5, 1 / 20))

    cut = find_warm_up(instants, 0.0, 40.0)

    assert cut == pytest.approx(6.0, abs=1.5)
    assert measure_rate(instants, cut or 0.0, 40.0).per_s == pytest.approx(20.0, rel=0.05)


def test_rate_that_changes_late_was_never_steady() -> None:
    instants = np.concatenate([evenly(20.0, 0, 30), evenly(10.0, 30, 45)])

    assert find_warm_up(instants, 0.0, 45.0) is None


def test_steady_arrivals_are_seldom_called_unsteady() -> None:
    rng = np.random.default_rng(5)
    never = sum(find_warm_up(np.cumsum(rng.gamma(11.0, 1 / 11.0, 300)), 0.0, 150.0) is None for _ in range(400))

    assert never <= 8, "2 % of 400"


def test_too_few_arrivals_decide_nothing() -> None:
    assert find_warm_up(evenly(2.0, 0, 10), 0.0, 10.0) == 0.0


def test_cut_is_where_the_squared_standard_error_is_least() -> None:
    gaps = 1 + 3 * 0.9 ** np.arange(300.0) + 0.05 * np.sin(np.arange(300.0))
    instants = np.cumsum(gaps)
    batches = np.diff(np.concatenate([[0.0], instants]))[:300].reshape(60, 5).mean(axis=1)
    scores = [((batches[d:] - batches[d:].mean()) ** 2).sum() / (60 - d) ** 2 for d in range(55)]

    got = find_warm_up(instants, 0.0, instants[-1] + 0.1)

    assert got == pytest.approx(instants[5 * int(np.argmin(scores)) - 1])


def test_precise_means_steady_and_narrow() -> None:
    rate = measure_rate(evenly(20.0, 0, 60), 0.0, 60.0)

    assert is_precise(rate, 0.05)
    assert not is_precise(rate, 0.0001)
    assert not is_precise(measure_rate(np.concatenate([evenly(10, 0, 30), evenly(20, 30, 60)]), 0.0, 60.0), 0.5)


def test_few_arrivals_have_a_rate_and_no_interval() -> None:
    got = measure_rate(evenly(0.5, 0, 40), 0, 40)

    assert got.per_s == pytest.approx(0.5, rel=0.02)
    assert got.interval is None


def test_no_arrivals_are_no_throughput() -> None:
    got = measure_rate(np.empty(0), 0, 10)

    assert got.per_s == 0
    assert not got.steady


def test_growth_of_a_queue_is_its_slope_with_an_interval_around_it() -> None:
    rng = np.random.default_rng(1)
    at = np.arange(0, 40, 0.25)

    got = measure_slope(at, 3 * at + rng.normal(0, 2, len(at)), 0, 40)

    assert got is not None
    assert got.interval[0] < 3 < got.interval[1]


@pytest.mark.parametrize(
    ("growth", "lowest", "want"),
    [
        pytest.param(1.0, 0.8, True, id="grows"),
        pytest.param(0.15, 0.1, False, id="under-one-per-cent-of-throughput"),
        pytest.param(1.0, -0.1, False, id="within-its-noise"),
    ],
)
def test_overloaded_means_growing_beyond_noise(growth: float, lowest: float, want: bool) -> None:
    assert is_overloaded(growth, lowest, throughput_per_s=20, hold_s=30) is want


def test_growth_of_a_few_messages_is_a_wobble() -> None:
    assert not is_overloaded(0.5, 0.4, throughput_per_s=20, hold_s=8)


def test_mean_of_a_gauge_weights_each_reading_by_its_time() -> None:
    at, values = np.array([0.0, 1.0, 2.0, 2.5]), np.array([4.0, 4.0, 2.0, 0.0])

    assert time_mean(at, values, 0, 3) == pytest.approx((4 + 4 + 1 + 0) / 3)


def test_mean_without_readings_is_unknown_rather_than_zero() -> None:
    assert time_mean(np.empty(0), np.empty(0), 0, 10) is None


# -- percentiles, Little ----------------------------------------------------------------------------------


def test_percentiles_are_those_of_the_raw_values() -> None:
    values = np.arange(1, 1001) / 1000

    got = take_percentiles(values)

    want = [float(np.quantile(values, q)) for q in (0.5, 0.95, 0.99)]
    assert [got["p50"], got["p95"], got["p99"], got["max"]] == [*want, 1.0]


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        pytest.param(19, [], id="too-few-for-any"),
        pytest.param(20, ["p50"], id="median-from-20"),
        pytest.param(199, ["p50"], id="no-p95-below-200"),
        pytest.param(200, ["p50", "p95"], id="p95-from-200"),
        pytest.param(1000, ["p50", "p95", "p99"], id="p99-from-1000"),
    ],
)
def test_percentile_needs_ten_values_beyond_it(messages: int, shown: list[str]) -> None:
    got = take_percentiles(np.linspace(0, 1, messages))

    assert [name for name in ("p50", "p95", "p99") if got[name] is not None] == shown


def test_little_holds_for_a_complete_record() -> None:
    entered = np.arange(0, 60, 0.1)

    got = check_little(entered, entered + 0.4, 10, 50, concurrency=4)

    assert got is not None
    assert got["error_ratio"] < 0.01
    assert got["closed_error_ratio"] == pytest.approx(0, abs=0.01)


def test_little_fails_when_arrivals_are_missing() -> None:
    entered = np.arange(0, 60, 0.1)
    left = entered + 0.4
    left[::5] = np.inf

    got = check_little(entered, left, 10, 50, concurrency=4)

    assert got is not None
    assert got["error_ratio"] > 0.1


@pytest.mark.parametrize("text", ["<ab.1@loadgen.invalid>", "ab.1@loadgen.invalid", "ab.1", " <ab.1@x> "])
def test_message_ids_are_known_with_and_without_brackets(text: str) -> None:
    assert message_key(text) == "ab.1"


# -- whole steps ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> list[StepRow]:
    return read_steps(make_run(tmp_path_factory.mktemp("run")))


def test_known_throughput_is_recovered_and_within_the_interval(healthy: list[StepRow]) -> None:
    for row in healthy:
        want = expected_rate(Made(), row["concurrency"])
        assert row["delivered_per_s"] == pytest.approx(want, rel=0.015)
        assert row["delivered_per_s_interval"] is not None
        low, high = row["delivered_per_s_interval"]
        assert low <= want <= high
        assert row["valid"], row["reasons"]


def test_known_response_times_are_recovered(healthy: list[StepRow]) -> None:
    assert [row["response_s"]["p50"] for row in healthy] == pytest.approx([0.1, 0.1, 0.1, 0.2], rel=0.03)


def test_closed_system_obeys_n_equals_x_r(healthy: list[StepRow]) -> None:
    for row in healthy:
        assert row["little"] is not None
        assert row["little"]["error_ratio"] < 0.02
        assert row["little"]["closed_error_ratio"] == pytest.approx(0, abs=0.02)


def test_delays_belong_to_the_messages_of_the_hold(healthy: list[StepRow]) -> None:
    delays = healthy[-1]["feed_delays"]

    assert delays is not None
    assert delays["messages"] == healthy[-1]["started"]
    assert delays["b_s"] == pytest.approx(0.1, rel=0.05)  # eight in a station for four
    assert delays["d_s"] == pytest.approx(0.1, rel=0.05)


def test_cpu_is_the_slope_of_the_counters(healthy: list[StepRow]) -> None:
    cost = healthy[0]["cost"]

    assert cost["generator_cores"] == pytest.approx(0.05, rel=0.01)
    assert cost["own_share"] == pytest.approx(0.085 / 2.0, rel=0.02)
    assert cost["chain_cpu_s_per_message"] == pytest.approx(0.2, rel=0.03)


def test_arrivals_of_strangers_and_of_the_probe_do_not_count(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    before = read_steps(directory)[0]["deliveries"]
    for number in range(50):
        change(directory, "INSERT INTO arrival VALUES (?, 10, 1, 100)", (f"ffff0000.{number}",))
    change(directory, "INSERT INTO arrival VALUES ('abcd1234.probe', 10, 1, 100)")

    assert read_steps(directory)[0]["deliveries"] == before


def test_message_counts_once_all_its_recipients_have_it(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1,)))
    change(directory, "UPDATE message SET recipients = 2 WHERE id = 'abcd1234.50'")
    change(directory, "INSERT INTO arrival VALUES ('abcd1234.50', 20.0, 1, 100)")

    row = read_steps(directory)[0]

    assert row["duplicates"] == 0
    assert row["response_s"]["max"] == pytest.approx(20.0 - 1.2 - 5.0, abs=1.0)


def test_second_copy_is_a_duplicate_and_no_delivery(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1,)))
    before = read_steps(directory)[0]["deliveries"]
    change(directory, "INSERT INTO arrival VALUES ('abcd1234.50', 15.0, 1, 100)")

    row = read_steps(directory)[0]

    assert (row["duplicates"], row["deliveries"]) == (1, before)


def test_rate_pacing_counts_response_from_the_instant_due(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(pacing="rate", rates=(20,), concurrencies=(10,)))
    change(directory, "UPDATE message SET started_at = started_at + 0.05, intended_at = intended_at")

    row = read_steps(directory)[0]

    assert row["offered_per_s"] == pytest.approx(20, rel=0.01)
    assert row["response_s"]["p50"] == pytest.approx(0.101, rel=0.03)
    assert row["late"] == pytest.approx(400, abs=1)


def test_overloaded_rate_is_marked_and_stays_valid(tmp_path: Path) -> None:
    row = read_steps(make_run(tmp_path / "run", Made(pacing="rate", rates=(60,), concurrencies=(50,), hold_s=10)))[0]

    assert row["overloaded"]
    assert row["valid"], row["reasons"]
    assert row["queue_depth"]["growth_per_s"] == pytest.approx(20, rel=0.05)


SPOILT: list[tuple[str, str, str]] = [
    ("dead-destination", "INSERT INTO remark VALUES (10, 'postfix', 'dead-destination', 'x')", "held the filter for dead"),
    ("deferral", "INSERT INTO remark VALUES (10, 'postfix', 'deferred', 'x')", "deferred"),
    ("reload", "INSERT INTO remark VALUES (10, 'postfix', 'reload', 'x')", "reloaded"),
    ("restart", "INSERT INTO remark VALUES (10, 'amavisd', 'restart', 'x')", "restarted"),
    ("dropped-log-lines", "INSERT INTO remark VALUES (10, 'journal', 'suppressed', 'x')", "log lines were dropped"),
    ("failed-session", "UPDATE session SET error = 'reset' WHERE session = 0", "1 sessions failed"),
    ("missing-session", "DELETE FROM session WHERE session = 1", "sessions open on average, want 4"),
    ("refusals", "UPDATE message SET outcome = 'refused' WHERE id = 'abcd1234.400'", "refused in the hold"),
    ("unknown", "UPDATE message SET outcome = 'unknown' WHERE id = 'abcd1234.400'", "unknown in the hold"),
    ("cut-hold", "UPDATE phase SET at = at - 10 WHERE phase = 'drain'", "the hold ended after 10.0 s of 20 s"),
    ("no-hold", "DELETE FROM phase WHERE phase IN ('hold', 'drain', 'end')", "the hold never began"),
    ("not-drained", "INSERT INTO queued VALUES (30, 0, 'deferred', 'A000000001')", "drain did not empty"),
    ("telemetry-gap", "DELETE FROM sample WHERE at > 10 AND at < 14", "no telemetry for 4.0 s"),
    ("no-telemetry", "DELETE FROM sample", "no telemetry in the hold"),
    ("busy-generator", "UPDATE sample SET value = value * 19 WHERE name = 'own.generator_cpu_s'", "generator was at its own limit"),
    ("busy-sink", "UPDATE sample SET value = value * 46 WHERE name = 'own.sink_cpu_s'", "sink was at its own limit"),
    ("missing-arrivals", "DELETE FROM arrival WHERE rowid % 5 = 0", "Little's law is off"),
    ("few-deliveries", "DELETE FROM arrival WHERE rowid % 50 != 0", "deliveries in the hold, want 30"),
    ("unsteady", "DELETE FROM arrival WHERE at > 14 AND rowid % 4 = 0", "not steady: the second half of the hold"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "reason"), [case[1:] for case in SPOILT], ids=[case[0] for case in SPOILT])
def test_spoilt_step_is_not_valid_and_says_why(tmp_path: Path, sql: str, reason: str) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    assert change(directory, sql)

    row = read_steps(directory)[0]

    assert not row["valid"]
    assert any(reason in text for text in row["reasons"]), row["reasons"]


def test_remark_between_two_steps_spoils_neither(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(2, 4)))
    with RunReader(directory) as reader:
        ((end_at,),) = reader.query("SELECT at FROM phase WHERE step = 0 AND phase = 'end'")
    change(directory, "INSERT INTO remark VALUES (?, 'postfix', 'reload', 'x')", (end_at + 0.1,))

    assert all(row["valid"] for row in read_steps(directory))
