"""Whole runs on the reference chain, whose capacity is known: a subprocess runs, then its directory is read."""

from pathlib import Path

import pytest

from loadgen.records import RunReader
from tests.command import loadgen, read_summary, run_directory, write_profile


def test_measured_throughput_is_the_known_one_at_every_step(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(1, "6s"), (2, "4s"), (4, "4s"), (8, "4s")])

    said = loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")

    assert said.returncode == 0, said.stderr
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    with RunReader(directory) as reader:
        known = {int(n): x for n, x in reader.meta["chain"]["known_delivered_per_s"].items()}
        locust = reader.meta["locust"]
    for step in summary["steps"]:
        assert step["valid"], step["reasons"]
        assert step["delivered_per_s"] == pytest.approx(known[min(step["concurrency"], 4)], rel=0.05)
        # every session stays open for its step, and Little's law holds in a closed system
        assert step["concurrency"] == pytest.approx(step["delivered_per_s"] * step["response_s"]["mean"], rel=0.05)
    assert summary["accounting"]["delivered"] == summary["accounting"]["messages"] == locust["requests"]
    assert locust["failures"] == 0


def test_report_says_first_that_this_is_no_mail_server(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(2, "2s")])

    said = loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")

    directory = run_directory(tmp_path / "runs")
    html = (directory / "report.html").read_text()
    assert "not a mail server" in html[html.index("<body") :][:2500]
    assert "not a mail server" in "\n".join(said.stdout.splitlines()[:4])


def test_law_and_processes_are_set_by_a_chain_file(tmp_path: Path) -> None:
    (tmp_path / "chain.toml").write_text('[reference]\nlaw = "hard-cap"\nservice_s = 0.05\ncap_per_s = 30.0\n')
    profile = write_profile(tmp_path / "p.toml", [(4, "4s")])

    said = loadgen(
        "run", profile, "--chain", tmp_path / "chain.toml", "--processes", "3", "--output", tmp_path / "runs"
    )

    assert said.returncode == 0, said.stderr
    (step,) = read_summary(run_directory(tmp_path / "runs"))["steps"]
    assert step["delivered_per_s"] == pytest.approx(30.0, rel=0.05)


def test_sessions_are_reopened_after_their_share_of_messages(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(2, "3s")], "[session]\nmessages_per_session = 3\n")

    loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")

    with RunReader(run_directory(tmp_path / "runs")) as reader:
        carried = [row[8] for row in reader.rows("session")]
    assert max(carried) == 3
    assert carried.count(3) >= len(carried) - 2


def test_no_session_outlives_its_step(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(6, "2s"), (2, "2s")])

    loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")

    with RunReader(run_directory(tmp_path / "runs")) as reader:
        ((late,),) = reader.query(
            "SELECT count(*) FROM session s JOIN phase p ON p.step = s.step AND p.phase = 'end' WHERE s.ended_at > p.at"
        )
        assert late == 0
        assert reader.query("SELECT step, count(*) FROM session GROUP BY step") == [(0, 6), (1, 2)]
        assert reader.query("SELECT count(*) FROM session WHERE error != ''") == [(0,)]


def test_message_limit_ends_the_run_and_says_so(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(4, "20s"), (8, "20s")], "[limits]\nmessages = 30\n")

    said = loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")

    assert said.returncode == 4
    summary = read_summary(run_directory(tmp_path / "runs"))
    assert summary["status"] == "incomplete"
    assert summary["accounting"]["messages"] == 30
