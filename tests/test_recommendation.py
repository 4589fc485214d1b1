"""The recommendation of a sweep, from levels to words."""

from collections.abc import Mapping, Sequence

import pytest

from reports.gains import VariantFacts, compare_sides, measure_gains
from reports.guide import Proposal
from reports.recommendation import SweepFacts, recommend, withdraw_losers
from reports.sizing import measure_spread
from reports.sweepsummary import Level, Recommendation, Repeat
from tests.make_rows import NOTHING, make_row

STOCK = {1: (5.0, 5.1), 2: (10.0, 10.1), 3: (14.8, 14.9), 4: (15.0, 15.1), 8: (15.0, 14.9)}
GB = 1e9


def level(processes: int, rates: Sequence[float], variant: str = "stock", servers: int | None = None) -> Level:
    servers = servers or processes
    return Level(
        processes=processes, filter_servers=servers, variant=variant, delivered_per_s=sum(rates) / len(rates),
        interval=None, saturated=True,
        repeats=[Repeat(step=i, visit=i, delivered_per_s=rate, interval=None) for i, rate in enumerate(rates)],
        dropped=0, response_s=NOTHING, memory_bytes=0.1 * GB + 0.05 * GB * servers, cpu_busy=1.0, cpu_s_per_message=0.125,
        demand_s=0.2, feed_delays=None, timing_s={}, station=None, candidates=[], why=["The CPU is full."],
    )  # fmt: skip


def of(
    curve: Mapping[int, Sequence[float]] = STOCK, present: tuple[int, int] = (2, 2), memory_bound: int | None = None,
    more: Sequence[Level] = (), rows: Sequence[object] = (),
) -> Recommendation:  # fmt: skip
    facts = {"no-pipelining": VariantFacts(mends="pipelining-stall"), "present": VariantFacts(adoptable=False)}
    spread = measure_spread(curve)
    levels = [*(level(p, rates) for p, rates in curve.items()), *more]
    return recommend(
        levels,
        withdraw_losers(levels, measure_gains(rows, facts, spread), spread, 0.05),  # type: ignore[arg-type]
        compare_sides(rows, facts, spread),  # type: ignore[arg-type]
        spread,
        dict.fromkeys(curve, 2 * GB),
        SweepFacts(
            within=0.05, present_feed=present[0], present_servers=present[1], cpus=2, memory_bound=memory_bound,
            proposal=Proposal(0, 0, {}, {}, destination_concurrency_limit=20, reinjection_processes=100),
            variant_settings={"no-pipelining": ({"lmtp_discard_lhlo_keywords": "pipelining"}, {})},
        ),
    )  # fmt: skip


def test_fewest_processes_within_the_margin_are_recommended_with_all_that_goes_with_them() -> None:
    got = of()

    assert got["headline"] == "Set maxproc = $max_servers = 3: 14.9 msg/s delivered"
    assert (got["processes"], got["filter_servers"], got["interval"]) == (3, 3, [3, 3])
    assert got["delivered_per_s_interval"] is not None
    assert "$max_servers = 3;" in got["settings"]
    assert any("process_limit=3" in command for command in got["commands"])
    assert got["memory_bytes"] == pytest.approx(0.25 * GB)
    assert got["memory_bytes_interval"] is not None
    assert got["memory_available_bytes"] == 2 * GB
    assert got["already_right"] is False
    assert any("The present 2 on both sides carry 10.1 msg/s" in sentence for sentence in got["sentences"])


def test_present_settings_that_are_right_are_left_alone() -> None:
    got = of(present=(3, 3))

    assert got["already_right"] is True
    assert got["headline"].startswith("The settings are right")
    assert got["commands"] == []


def test_throughput_that_still_rises_gives_no_number() -> None:
    got = of({1: (5.0, 5.1), 2: (10.0, 10.1), 4: (20.0, 20.1)})

    assert got["processes"] is None
    assert got["headline"].startswith("More than 18.9 msg/s: throughput still rises at 4")
    assert got["settings"] == []


NOISE = {1: (6.29,), 2: (12.66,), 4: (15.69,), 6: (15.32,), 7: (15.66, 14.76), 8: (17.07, 15.34)}
"""A chain that is full from four on, as measured on a day on which one repeat at eight came out high."""


def test_largest_level_that_is_best_by_noise_alone_is_not_taken_for_a_rise() -> None:
    got = of(NOISE)

    assert got["processes"] is None
    assert got["headline"].startswith("No recommendation: 8 processes, the most tested, did best, but by no more than")
    assert "With 4 processes it may be as good" in got["sentences"][0]


def test_largest_level_is_recommended_when_memory_allows_no_more() -> None:
    assert of({1: (5.0, 5.1), 2: (10.0, 10.1), 4: (20.0, 20.1)}, memory_bound=4)["processes"] == 4


def test_ceilings_are_the_next_two_by_what_they_allow() -> None:
    names = [ceiling["name"] for ceiling in of()["ceilings"]]

    # 15.1 msg/s at more processes, then 2 cores / 125 ms = 16 msg/s; 20 destinations would allow 99
    assert names == ["feed and filter processes", "CPU"]


def test_adopted_variant_moves_the_optimum_and_says_what_it_contributes() -> None:
    rows = [
        make_row(i, variant=name, purpose="variant", load=load, level=3, feed_processes=3, filter_servers=3, delivered_per_s=rate)
        for i, (name, load, rate) in enumerate(
            [("stock", "low", 6.0), ("no-pipelining", "low", 9.0), ("stock", "saturated", 15.0), ("no-pipelining", "saturated", 15.2)] * 3
        )
    ]  # fmt: skip
    mended = [
        level(p, rates, "no-pipelining") for p, rates in {1: (8.0, 8.1), 2: (15.3, 15.4), 4: (15.5, 15.4)}.items()
    ]

    got = of(more=mended, rows=rows)

    assert (got["processes"], got["variants"]) == (2, ["no-pipelining"])
    assert got["headline"] == "Set maxproc = $max_servers = 2 with no-pipelining: 15.4 msg/s delivered"
    assert "    -o lmtp_discard_lhlo_keywords=pipelining" in got["settings"]
    text = " ".join(got["sentences"])
    assert "Without no-pipelining the best would be 3 processes" in text
    assert "no-pipelining by itself, at 3 processes: +50%" in text


def test_variant_that_lowers_the_best_is_not_recommended() -> None:
    rows = [
        make_row(i, variant=name, purpose="variant", level=2, feed_processes=2, filter_servers=2, delivered_per_s=rate)
        for i, (name, rate) in enumerate([("stock", 10.0), ("no-pipelining", 12.0)] * 3)
    ]
    worse = [level(p, rates, "no-pipelining") for p, rates in {1: (6.0, 6.1), 2: (12.0, 12.1), 4: (12.2, 12.1)}.items()]

    got = of(more=worse, rows=rows)

    assert (got["processes"], got["variants"]) == (3, [])


def test_variant_whose_levels_were_not_measured_is_not_recommended() -> None:
    rows = [
        make_row(i, variant=name, purpose="variant", level=3, feed_processes=3, filter_servers=3, delivered_per_s=rate)
        for i, (name, rate) in enumerate([("stock", 15.0), ("no-pipelining", 18.0)] * 3)
    ]

    got = of(rows=rows)

    assert got["variants"] == []
    assert got["processes"] == 3
    assert any("too few levels were measured with them" in sentence for sentence in got["sentences"])


def test_sides_that_differ_are_priced() -> None:
    rows = [make_row(i, level=2, delivered_per_s=10.0 + i / 100, feed_processes=2, filter_servers=2) for i in range(2)]
    rows += [
        make_row(i, variant="present", purpose="variant", level=2, feed_processes=8, filter_servers=2, delivered_per_s=6.0 + i / 100)
        for i in (2, 3)
    ]  # fmt: skip

    got = of(present=(8, 2), rows=rows)

    assert got["already_right"] is False
    assert any("differ now (maxproc 8, $max_servers 2): 6.0 msg/s, -40%" in sentence for sentence in got["sentences"])


def test_one_level_recommends_nothing() -> None:
    got = of({3: (14.0, 14.1)})

    assert got["processes"] is None
    assert "only 3 processes were measured" in got["headline"]
