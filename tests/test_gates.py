"""`loadgen run` as a gate and `loadgen compare` in turn, from outside, on the reference chain and on recorded runs."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadgen.records import RunReader
from reports.analyse import analyse
from reports.baseline import save_baseline
from reports.runvalues import read_values
from tests.command import loadgen, read_until, start_loadgen
from tests.make_run import Made, make_run, set_meta
from tests.make_values import make_side
from tests.page import Page

GATE = """
about = "a gate"
runs = 2
[message]
size = "1KiB"
[timing]
warm_up = "500ms"
drain = "10s"
[[step]]
concurrency = 4
hold = "2s"
"""
FAST = '[reference]\nlaw = "constant"\nservice_s = 0.02\nfeed_processes = 2\nfilter_servers = 2\n'
SLOW = FAST.replace("0.02", "0.03")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "fast.toml").write_text(FAST)
    (tmp_path / "slow.toml").write_text(SLOW)
    return tmp_path


def run_gate(place: Path, expect: str, *arguments: str | Path, chain: str = "fast.toml", **named: Any) -> Any:
    (place / "gate.toml").write_text(GATE + expect)
    return loadgen(
        "run", place / "gate.toml", "--chain", place / chain, "--output", place / "runs", *arguments, **named
    )


def test_run_makes_as_many_runs_as_the_profile_says_and_its_expectations_decide(place: Path) -> None:
    said = run_gate(
        place,
        "[expect]\ndelivered_per_s_min = 50\nlost_max = 0\n",
        "--save-baseline",
        place / "base.json",
        "--junit",
        place / "j.xml",
    )

    assert said.returncode == 0, said.stdout + said.stderr
    assert "\u2713 lost: 0, want at most 0" in said.stdout
    assert "2 runs" in said.stdout
    assert len(list(place.glob("runs/*-gate/*-gate/report.html"))) == 2
    assert len(json.loads((place / "base.json").read_text())["runs"]) == 2
    assert 'failures="0" errors="0"' in (place / "j.xml").read_text()

    slower = run_gate(place, "[expect]\nlost_max = 0\n", "--baseline", place / "base.json", "--json", chain="slow.toml")
    assert slower.returncode == 3, slower.stderr
    gate = json.loads(slower.stdout)["gate"]
    assert gate["outcome"] == "missed"
    change = next(one for one in gate["judged"] if one["key"] == "worse_max.delivered_per_s")
    assert change["interval"][0] < 20 / 30 - 1 < change["interval"][1]


def test_missed_expectation_ends_with_3_and_stands_in_every_output(place: Path) -> None:
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(place / "summary.md")}

    said = run_gate(
        place, "[expect]\ndelivered_per_s_min = 1000\n", "--junit", place / "j.xml", environment=environment
    )

    assert said.returncode == 3
    assert "\u2717 delivered" in said.stdout
    assert "::error title=loadgen%3A delivered::" in said.stdout
    assert 'failures="1"' in (place / "j.xml").read_text()
    assert (place / "summary.md").read_text().startswith("### loadgen: missed (gate)")


def test_baseline_of_another_load_is_refused_before_anything_is_sent(place: Path) -> None:
    save_baseline(place / "base.json", make_side([16.0, 16.1]))

    said = run_gate(place, "", "--baseline", place / "base.json")

    assert said.returncode == 4
    assert "of another load" in said.stderr
    assert not (place / "runs").exists()


@pytest.mark.parametrize("option", ["--baseline", "--save-baseline"])
def test_sweep_has_no_baseline_and_says_so_before_it_takes_a_quarter_of_an_hour(place: Path, option: str) -> None:
    save_baseline(place / "base.json", make_side([16.0, 16.1]))

    said = loadgen("run", "size", "--chain", "reference", "--output", place / "runs", option, place / "base.json")

    assert said.returncode == 2
    assert "a sweep over process counts" in said.stderr
    assert not (place / "runs").exists()


def test_expectation_of_a_later_version_is_named_and_no_bug(place: Path) -> None:
    run = make_expecting_run(place / "r1", {"smtp_elegance_min": 7})

    said = loadgen("report", run)

    assert said.returncode == 2
    assert "r1: its profile expects what this version does not know: smtp_elegance_min" in said.stderr


def test_baseline_of_another_machine_is_no_match_for_runs_that_do_not_know_how_fast_theirs_is(place: Path) -> None:
    run = make_run(place / "r1", Made(concurrencies=(8,), hold_s=15))
    with RunReader(run) as reader:
        values = read_values(analyse(reader))
    save_baseline(
        place / "base.json", [{**values, "machine": {**values["machine"], "cpus": 64}, "generator_per_s": 2e4}]
    )

    said = loadgen("compare", place / "base.json", "--", run)

    assert said.returncode == 4
    assert "on another kind of machine than the baseline" in said.stderr


@pytest.mark.parametrize(
    ("option", "name", "want"),
    [
        ("--junit", "nowhere/j.xml", "its directory is not there"),
        ("--markdown", ".", "a directory, want the name of a file"),
        ("--baseline", "missing.json", "make a baseline with"),
        ("--save-baseline", "gate.toml", "left as it is"),
    ],
)
def test_file_that_cannot_be_used_is_said_before_anything_is_sent(
    place: Path, option: str, name: str, want: str
) -> None:
    said = run_gate(place, "", option, place / name)

    assert said.returncode == 2
    assert want in said.stderr
    assert not (place / "runs").exists()


def test_interrupted_gate_never_passes_and_leaves_nothing_running(place: Path) -> None:
    (place / "gate.toml").write_text(GATE.replace("runs = 2", "runs = 50"))
    process = start_loadgen("run", place / "gate.toml", "--chain", place / "fast.toml", "--output", place / "runs")
    read_until(process, "run 1 of 50")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_two_chains_in_turn_are_told_apart_and_every_run_is_kept(place: Path) -> None:
    (place / "gate.toml").write_text(GATE)

    said = loadgen(
        "compare", "--ab", place / "fast.toml", place / "slow.toml", place / "gate.toml", "--time-limit", "3min", "--seed", "7",
        "--output", place / "runs", "--json",
    )  # fmt: skip

    assert said.returncode == 3, said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert found["verdict"] == "regression"
    assert found["block"] == 2
    low, high = found["metrics"][0]["interval"]
    assert low < 20 / 30 < high
    (directory,) = (place / "runs").iterdir()
    blocks = json.loads((directory / "blocks.json").read_text())["blocks"]
    assert len(blocks) == 3, "so large a loss is known after the fewest blocks"
    assert all((directory / run / "run.sqlite").is_file() for block in blocks for side in "AB" for run in block[side])
    assert (
        "in turn" in (directory / "comparison.html").read_text()
        or "A B B A" in (directory / "comparison.html").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["--ab", "reference", "quick"], "want CHAIN_A CHAIN_B PROFILE"),
        (["--ab", "reference", "reference", "size"], "a sweep over process counts"),
        (["--ab", "reference", "reference", "quick", "--time-limit", "5"], "want a duration with a unit"),
        (["--ab", "reference", "nowhere.toml", "quick"], "nowhere.toml"),
        (["--ab", "--self-test", "quick"], "want one of them"),
        (["--ab", "a", "b", "quick", "--", "c"], "take their runs themselves"),
        (["--self-test", "quick", "steps"], "want a profile, or run directories"),
        (["--self-test", "quick", "--junit", "j.xml"], "is no gate"),
        (["--chain", "reference", "a", "--", "b"], "add --self-test or --ab"),
    ],
)
def test_wrong_calls_say_what_is_wanted(place: Path, arguments: list[str], want: str) -> None:
    said = (
        loadgen("compare", *arguments, "--output", place / "runs")
        if "--" not in arguments
        else loadgen("compare", *arguments)
    )

    assert said.returncode == 2
    assert want in said.stderr
    assert not (place / "runs").exists()


def test_self_test_reads_recorded_runs_of_one_chain(place: Path) -> None:
    services = [0.100 + 0.001 * ((7 * number) % 5) for number in range(12)]
    runs = [
        make_run(place / f"r{number:02}", Made(concurrencies=(8,), service_s=service, hold_s=15))
        for number, service in enumerate(services)
    ]
    for number, run in enumerate(runs):
        set_meta(run, "started_at", 1_780_000_000 + number)

    said = loadgen("compare", "--self-test", *runs)

    assert said.returncode == 0, said.stderr
    assert re.search(r"^ *3 +1000 +0\.0%", said.stdout, re.MULTILINE), said.stdout
    assert "To see a loss of 5% in four of five cases" in said.stdout
    few = loadgen("compare", "--self-test", *runs[:8])
    assert few.returncode == 4
    assert "want at least 12" in few.stderr


def make_expecting_run(directory: Path, expect: dict[str, Any]) -> Path:
    """Make a run of a profile that expects something; it delivers 40 messages a second."""
    run = make_run(directory, Made(concurrencies=(8,), hold_s=15))
    with RunReader(run) as reader:
        profile = reader.meta["profile"]
    set_meta(run, "profile", {**profile, "expect": expect})
    return run


def test_compare_takes_a_baseline_for_a_side_and_the_expectations_of_the_candidate(place: Path) -> None:
    runs = [make_expecting_run(place / name, {"delivered_per_s_min": 1000}) for name in ("r1", "r2")]
    values = []
    for run in runs:
        with RunReader(run) as reader:
            values.append(read_values(analyse(reader)))
    save_baseline(place / "base.json", values)

    said = loadgen("compare", "--json", place / "base.json", "--", *runs)

    assert said.returncode == 3, said.stderr
    found = json.loads(said.stdout)
    assert found["metrics"][0]["ratio"] == pytest.approx(1.0)
    outcomes = {one["key"]: one["outcome"] for one in found["gate"]["judged"]}
    assert outcomes == {"delivered_per_s_min": "missed", "worse_max.delivered_per_s": "met"}


def test_incomplete_run_is_an_error_for_a_ci_server_too(place: Path) -> None:
    runs = [make_run(place / name, Made(concurrencies=(8,), hold_s=15)) for name in ("r1", "r2")]
    set_meta(runs[1], "status", "incomplete")

    said = loadgen("compare", "--junit", place / "j.xml", runs[0], "--", runs[1])

    assert said.returncode == 4
    text = (place / "j.xml").read_text()
    assert 'errors="1"' in text
    assert "r2: incomplete" in text


def test_report_of_a_run_shows_what_was_expected_of_it(place: Path) -> None:
    directory = make_expecting_run(place / "r1", {"lost_max": 0, "delivered_per_s_min": 1000})

    said = loadgen("report", directory)

    assert said.returncode == 3
    assert "expectations: missed" in said.stdout
    assert "Expectations: missed" in " ".join(Page((directory / "report.html").read_text()).words)
    assert json.loads((directory / "summary.json").read_text())["gate"]["outcome"] == "missed"
