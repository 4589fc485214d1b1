"""What each stage carries by itself: compared only where both were seen saturated, said in numbers with intervals."""

import json
from pathlib import Path
from typing import Any

import pytest

from reports.analyse import write_reports
from tests.make_run import Made, change, make_run
from tests.page import Page

NOW_S = 1_780_000_500.0
THREE = ("front", "filter", "reinjection")


def summary_of(directory: Path) -> dict[str, Any]:
    write_reports(directory, NOW_S)
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary


def stage(summary: dict[str, Any], entry: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in summary["stages"]["entries"] if one["entry"] == entry)
    return found


def test_every_entry_has_a_verdict_of_its_own_and_the_runs_is_that_of_the_front(tmp_path: Path) -> None:
    made = Made(concurrencies=(1, 2, 4, 8), entries=THREE, entry_factor={"filter": 0.8, "reinjection": 0.2})

    summary = summary_of(make_run(tmp_path / "run", made))

    assert [one["entry"] for one in summary["stages"]["entries"]] == list(THREE)
    assert stage(summary, "front")["verdict"]["delivered_per_s"] == pytest.approx(40, rel=0.05)
    assert stage(summary, "filter")["verdict"]["delivered_per_s"] == pytest.approx(50, rel=0.05)
    assert stage(summary, "reinjection")["verdict"]["delivered_per_s"] == pytest.approx(200, rel=0.05)
    assert summary["verdict"] == stage(summary, "front")["verdict"]
    assert stage(summary, "filter")["alone_response_s"] == pytest.approx(0.08, rel=0.05)
    assert stage(summary, "filter")["passes"] == ["filter", "reinjection", "delivery"]


def test_what_the_stations_before_the_filter_cost_is_said_with_its_interval(tmp_path: Path) -> None:
    made = Made(entries=("front", "filter"), entry_factor={"filter": 0.8})

    (said,) = summary_of(make_run(tmp_path / "run", made))["stages"]["sentences"]

    assert "without front, queue and feed it is +2" in said
    assert "the whole chain 4" in said


def test_difference_within_the_noise_is_called_that(tmp_path: Path) -> None:
    (said,) = summary_of(make_run(tmp_path / "run", Made(entries=("front", "filter"))))["stages"]["sentences"]

    assert "cost no throughput beyond the noise" in said


def test_stage_that_was_not_saturated_is_only_more_than(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(entries=("front", "reinjection"), entry_factor={"reinjection": 0.1}))
    # what would show where it ends
    change(directory, "DELETE FROM phase WHERE step IN (SELECT step FROM entry WHERE step > 5)")

    summary = summary_of(directory)

    assert stage(summary, "reinjection")["verdict"]["delivered_per_s"] is None
    (said,) = summary["stages"]["sentences"]
    assert "was not saturated" in said
    assert "everything before it set the limit" in said


def test_two_ways_in_are_compared_with_each_other(tmp_path: Path) -> None:
    made = Made(entries=("front", "pickup"), entry_factor={"pickup": 1.25})

    (said,) = summary_of(make_run(tmp_path / "run", made))["stages"]["sentences"]

    assert said.startswith("Mail by pickup comes through at 3")
    assert "-2" in said or "-19" in said


def test_run_at_one_entry_compares_nothing_and_says_where_it_was(tmp_path: Path) -> None:
    summary = summary_of(make_run(tmp_path / "run", Made(entries=("filter",))))

    assert summary["stages"] is None
    assert summary["verdict"]["headline"].endswith("put in at: filter")
    assert "the feed" not in " ".join(summary["verdict"]["sentences"])
    assert {step["entry"] for step in summary["steps"]} == {"filter"}


def test_chain_that_is_passed_by_is_not_accused(tmp_path: Path) -> None:
    stalling = Made(entries=("filter",), timing={"SMTP DATA": 0.042, "SA check": 0.07}, feed_processes=8)

    found = {finding["id"] for finding in summary_of(make_run(tmp_path / "run", stalling))["findings"]}

    assert not found & {"pipelining-stall", "feed-exceeds-servers"}


def test_report_shows_the_stages_and_where_each_step_was_put_in(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(entries=THREE, entry_factor={"reinjection": 0.2}))
    write_reports(directory, NOW_S)

    page = Page((directory / "report.html").read_text("utf-8"))

    assert "Each stage by itself" in page.words
    assert "stages" in json.loads(page.data["figures"])
    assert page.words.count("reinjection") >= 5  # the stage and its four steps


def test_run_of_an_earlier_format_was_put_in_at_the_front(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    change(directory, "DROP TABLE entry")
    change(directory, "UPDATE meta SET value = '2' WHERE key = 'format'")

    assert {step["entry"] for step in summary_of(directory)["steps"]} == {"front"}


def test_processes_of_sendmail_are_not_taken_for_somebody_elses(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,), entries=("front", "pickup")))
    change(directory, "UPDATE sample SET value = value + 1.5 WHERE name = 'host.cpu_busy'")

    reasons = {step["entry"]: " ".join(step["reasons"]) for step in summary_of(directory)["steps"]}

    assert "something else on this host" in reasons["front"]
    assert reasons["pickup"] == ""
