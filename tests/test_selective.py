"""Filtered and unfiltered mail, told apart by the log and reported side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from reports.analyse import write_reports
from tests.make_run import Made, change, make_run
from tests.page import Page

NOW_S = 1_780_000_500.0
EVERY_FOURTH = "(CAST(substr(message_id, instr(message_id, '.') + 1) AS INTEGER) % 4 = 0)"
"""Of a Message-ID in the log, with or without a bracket before it."""


def summary_of(directory: Path) -> dict[str, Any]:
    write_reports(directory, NOW_S)
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary


def let_pass_by(directory: Path) -> None:
    """Make one message in four have gone past the filter, and come out 50 ms after it was sent."""
    mine = f"(SELECT queue_id FROM queue_entry WHERE {EVERY_FOURTH})"
    assert change(directory, f"DELETE FROM delivery WHERE station = 'feed' AND queue_id IN {mine}")
    assert change(directory, f"DELETE FROM scan WHERE {EVERY_FOURTH}")
    assert change(
        directory,
        "UPDATE arrival SET at = (SELECT started_at + 0.05 FROM message WHERE message.id = arrival.id) "
        "WHERE CAST(substr(id, instr(id, '.') + 1) AS INTEGER) % 4 = 0",
    )


def test_both_kinds_have_counts_rates_and_times_of_their_own(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,), entries=("front",)))
    let_pass_by(directory)

    split = summary_of(directory)["selective"]

    total = split["filtered"] + split["unfiltered"]
    assert split["unfiltered"] == pytest.approx(total / 4, abs=1)
    assert split["not_known"] == 0
    (step,) = split["steps"]
    assert step["filtered"]["response_s"]["p50"] == pytest.approx(0.1, rel=0.1)
    assert step["unfiltered"]["response_s"]["p50"] == pytest.approx(0.05, rel=0.01)
    rates = [step[kind]["delivered_per_s"] for kind in ("filtered", "unfiltered")]
    assert rates[1] / sum(rates) == pytest.approx(0.25, abs=0.02)
    assert step["filtered"]["delivered_per_s_interval"][0] < rates[0] < step["filtered"]["delivered_per_s_interval"][1]
    assert split["sentences"][0].startswith("75% of the mail went through the filter")
    assert "half of the rest within 50 ms" in split["sentences"][1]


def test_report_shows_them_side_by_side(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(2, 4)))
    let_pass_by(directory)
    summary_of(directory)

    text = " ".join(Page((directory / "report.html").read_text()).words)

    assert "Filtered and unfiltered mail" in text
    assert "75% of the mail went through the filter" in text


def test_kind_that_an_entry_has_none_of_has_no_row_there(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,), entries=("front", "inside")))
    let_pass_by(directory)
    inside = "(SELECT message.id FROM message JOIN entry USING (step))"
    mine = f"(SELECT queue_id FROM queue_entry WHERE rtrim(ltrim(message_id, '<'), '@loadgen.invalid>') IN {inside})"
    assert change(directory, f"DELETE FROM delivery WHERE station = 'feed' AND queue_id IN {mine}")
    assert change(directory, f"DELETE FROM scan WHERE queue_id IN {mine}")

    split = summary_of(directory)["selective"]

    assert [(step["entry"], step["filtered"]["messages"] > 0) for step in split["steps"]] == [
        ("front", True),
        ("inside", False),
    ]
    words = Page((directory / "report.html").read_text()).words
    words = words[words.index("Filtered and unfiltered mail") :]
    assert [word for word in words if word in ("filtered", "unfiltered")] == ["filtered", "unfiltered", "unfiltered"]
    assert split["sentences"][1].startswith("At N = 4 half of the filtered mail")


def test_message_that_the_log_does_not_know_is_of_neither_kind(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    let_pass_by(directory)
    change(directory, "DELETE FROM delivery WHERE queue_id IN ('A000000005', 'B000000005')")
    change(directory, "DELETE FROM queue_entry WHERE queue_id IN ('A000000005', 'B000000005')")
    change(directory, "DELETE FROM scan WHERE queue_id = 'A000000005'")

    assert summary_of(directory)["selective"]["not_known"] == 1


def test_chain_that_filters_all_mail_has_no_such_section(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))

    assert summary_of(directory)["selective"] is None
    assert "Filtered and unfiltered" not in (directory / "report.html").read_text()


def test_run_without_a_log_says_nothing_of_it(tmp_path: Path) -> None:
    assert summary_of(make_run(tmp_path / "run", Made(concurrencies=(4,), logs=False)))["selective"] is None
