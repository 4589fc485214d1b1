"""The files a run leaves behind: true, offline, harmless, and there for any prefix of a run."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from loadgen.errors import RunFileError
from loadgen.records import TABLES, RunReader, RunWriter
from reports.analyse import Summary, analyse, write_reports
from reports.charts import draw_step_charts
from reports.foreign import clean
from reports.series import thin
from reports.text import print_summary
from tests.make_run import Made, change, make_run, set_meta
from tests.page import Page

NOW_S = 1_780_000_500.0
HOSTILE = "<script>alert(1)</script> ]]> \x1b[31mred\x1b[0m \u202egnp.exe {{ 7*7 }} </style>"


def page_of(directory: Path) -> Page:
    return Page((directory / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = make_run(tmp_path_factory.mktemp("run") / "2026-05-28T20-26-40Z-steps")
    write_reports(directory, NOW_S)
    return directory


# -- summary.json -----------------------------------------------------------------------------------------


def test_summary_has_the_stable_keys(healthy: Path) -> None:
    summary = json.loads((healthy / "summary.json").read_text())

    assert next(iter(summary)) == "format"
    assert summary["format"] == 1
    assert summary["status"] == "complete"
    for key in ("chain", "profile", "recommendation", "levels", "steps", "accounting", "findings", "cost"):
        assert key in summary
    assert set(summary["recommendation"]) >= {
        "processes", "interval", "delivered_per_s", "delivered_per_s_interval", "memory_bytes", "settings",
    }  # fmt: skip
    assert set(summary["steps"][0]) >= {
        "level", "concurrency", "offered_per_s", "accepted_per_s", "delivered_per_s", "response_s", "queue_depth",
        "busy_processes", "valid", "reasons",
    }  # fmt: skip


def test_returned_summary_is_the_written_one(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")

    got = write_reports(directory, NOW_S)

    assert json.loads((directory / "summary.json").read_text()) == json.loads(json.dumps(got, allow_nan=False))


def test_analysing_again_gives_the_same_files(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    write_reports(directory, NOW_S)
    before = (directory / "summary.json").read_bytes()

    write_reports(directory, NOW_S)

    assert (directory / "summary.json").read_bytes() == before
    assert not [p for p in directory.iterdir() if p.name.startswith(".")]


# -- any prefix of a run ----------------------------------------------------------------------------------


def test_run_without_anything_is_incomplete(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with RunWriter(directory):
        pass

    got = write_reports(directory, NOW_S)

    assert got["status"] == "incomplete"
    assert got["steps"] == []
    assert "No step was begun." in page_of(directory).words


@pytest.mark.parametrize("table", [*TABLES, "meta-but-format"])
def test_missing_rows_never_stop_the_report(tmp_path: Path, table: str) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(2, 4), hold_s=5))
    sql = "DELETE FROM meta WHERE key != 'format'" if table == "meta-but-format" else f"DELETE FROM {table}"
    change(directory, sql)

    write_reports(directory, NOW_S)

    assert (directory / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("cut_at", [0.5, 1.1, 3.0, 12.0, 24.3, 30.0])
def test_run_cut_at_any_moment_is_analysed_and_incomplete(tmp_path: Path, cut_at: float) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(2, 4)))
    for table, column in (
        ("phase", "at"), ("message", "ended_at"), ("arrival", "at"), ("sample", "at"), ("session", "ended_at"),
        ("delivery", "at"), ("scan", "at"), ("timing", "at"),
    ):  # fmt: skip
        change(directory, f"DELETE FROM {table} WHERE {column} > ?", (cut_at,))
    change(directory, "DELETE FROM meta WHERE key IN ('ended_at', 'end_reason', 'locust')")
    set_meta(directory, "status", "running")

    got = write_reports(directory, NOW_S)

    assert got["status"] == "incomplete"
    assert got["accounting"]["lost"] == 0
    assert got["accounting"]["adds_up"]


def test_finished_steps_of_an_interrupted_run_count(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(status="incomplete"))

    got = write_reports(directory, NOW_S)

    assert (got["status"], got["verdict"]["concurrency"]) == ("incomplete", 4)


def test_complete_run_without_a_valid_step_is_invalid(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(telemetry=False))

    assert write_reports(directory, NOW_S)["status"] == "invalid"


def test_foreign_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFileError):
        write_reports(tmp_path, NOW_S)


# -- the page ---------------------------------------------------------------------------------------------


def test_page_loads_nothing_from_anywhere(healthy: Path) -> None:
    page = page_of(healthy)

    outside = [link for link in page.links if not link[2].startswith(("#", "data:"))]
    assert outside == []
    text = (healthy / "report.html").read_text("utf-8")
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style


def test_policy_forbids_everything_but_the_two_scripts(healthy: Path) -> None:
    import base64
    import hashlib

    page = page_of(healthy)
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in page.scripts}

    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules["script-src"].split()) == digests
    assert len(page.scripts) == 2
    assert page.handlers == []


def test_page_is_small_enough_to_mail(healthy: Path) -> None:
    assert (healthy / "report.html").stat().st_size < 3_000_000


def test_reference_chain_is_disclaimed_before_anything_else(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(kind="reference", concurrencies=(4,)))
    write_reports(directory, NOW_S)

    words = page_of(directory).words
    body = words[1:]  # after the title
    assert body[0] == "This is not a mail server."


def test_real_chain_is_not_disclaimed(healthy: Path) -> None:
    assert "This is not a mail server." not in page_of(healthy).words


def test_figures_show_the_numbers_of_the_summary(healthy: Path) -> None:
    summary: Summary = json.loads((healthy / "summary.json").read_text())

    throughput = next(chart for chart in draw_step_charts(summary) if chart.name == "throughput")

    sources = [getattr(renderer, "data_source", None) for renderer in throughput.model.renderers]
    drawn = [list(source.data["y"]) for source in sources if source is not None and "low" in source.data]
    assert [row["delivered_per_s"] for row in summary["steps"]] in drawn


def test_every_figure_has_its_place(healthy: Path) -> None:
    page = page_of(healthy)
    text = (healthy / "report.html").read_text("utf-8")

    figures = json.loads(page.data["figures"])

    assert set(figures) >= {"throughput", "response", "stations", "rates", "queue", "processes", "cpu"}
    assert all(f'id="figure-{name}"' in text for name in figures)


def test_hostile_text_stays_inert(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    change(directory, "UPDATE message SET outcome = 'refused', code = 451, reply = ? WHERE rowid < 5", (HOSTILE,))
    change(directory, "INSERT INTO remark VALUES (10, 'postfix', 'fatal', ?)", (HOSTILE,))
    change(directory, "INSERT INTO timing VALUES (10, 'x', ?, 9.0)", (HOSTILE,))
    set_meta(directory, "settings", {HOSTILE: HOSTILE})
    set_meta(directory, "end_reason", HOSTILE)
    set_meta(directory, "profile_name", HOSTILE)
    plain = Page((make_and_report(tmp_path / "plain") / "report.html").read_text("utf-8"))

    write_reports(directory, NOW_S)

    page = page_of(directory)
    assert len(page.scripts) == len(plain.scripts)
    assert page.scripts[1] == plain.scripts[1]
    text = (directory / "report.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "{{ 7*7 }}" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "alert(1)" not in page.data["figures"]


def make_and_report(directory: Path) -> Path:
    make_run(directory, Made(concurrencies=(4,)))
    write_reports(directory, NOW_S)
    return directory


def test_thinning_keeps_the_highest_and_the_lowest_reading() -> None:
    at = np.arange(0, 7200, 0.25)
    values = np.sin(at / 50)
    values[12345], values[23456] = 99.0, -99.0

    got_at, got = thin(at, values)

    assert len(got) <= 1600
    assert (got.max(), got.min()) == (99.0, -99.0)
    assert np.all(np.diff(got_at) > 0)


def test_two_hours_of_readings_stay_small(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,), hold_s=7200, service_s=2.0, logs=False))

    write_reports(directory, NOW_S)

    assert (directory / "report.html").stat().st_size < 3_000_000


# -- the terminal -----------------------------------------------------------------------------------------


def printed(summary: Summary, width: int = 120) -> str:
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=width, color_system=None))
    return out.getvalue()


def test_terminal_says_the_verdict_first(healthy: Path) -> None:
    with RunReader(healthy) as reader:
        got = printed(analyse(reader))

    assert got.startswith("Saturated from N = 4: 40.0 msg/s delivered")
    assert "plateau" in got


def test_terminal_disclaims_the_reference_chain_before_the_verdict(tmp_path: Path) -> None:
    with RunReader(make_run(tmp_path / "run", Made(kind="reference"))) as reader:
        assert printed(analyse(reader)).startswith("This is not a mail server")


def test_terminal_gets_no_control_characters_and_no_markup(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    change(directory, "INSERT INTO remark VALUES (10, 'x', 'fatal', ?)", (f"[bold]{HOSTILE}[/nonsense]",))
    with RunReader(directory) as reader:
        got = printed(analyse(reader))

    assert "\x1b" not in got
    assert "\u202e" not in got
    assert "[bold]" in got


def test_terminal_table_fits_eighty_columns(healthy: Path) -> None:
    with RunReader(healthy) as reader:
        got = printed(analyse(reader), width=80)

    assert "p95 ms" in got
    assert max(len(line) for line in got.splitlines()) <= 80


def test_clean_keeps_lines_and_cuts_floods() -> None:
    assert clean("a\n\tb\x00\x07\u200bc") == "a\n\tbc"
    assert clean("x" * 100, longest=10) == "x" * 10 + " ..."


def test_moved_run_directory_can_be_analysed(healthy: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(healthy, copy)

    assert write_reports(copy, NOW_S)["status"] == "complete"
