"""Whole sweeps on the reference chain, from outside: the right answer, cut short, continued, and without a tuner."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from loadgen.records import RunReader
from tests.command import LOADGEN, loadgen, read_summary, run_directory

CAPPED = """\
[reference]
law = "hard-cap"
service_s = 0.05
cap_per_s = 62.0
feed_processes = 2
filter_servers = 2
effects = { lmtp_discard_lhlo_keywords = 1.25 }
"""
SWEEP = """\
about = "a short sweep"
[timing]
warm_up = "500ms"
drain = "20s"
precision = 0.1
[processes]
levels = [1, 2, 3, 4, 6]
repeats = 1
hold = "2s"
hold_limit = "2s"
"""


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    path = tmp_path / "capped.toml"
    path.write_text(CAPPED)
    return path


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    return path


def test_sweep_measures_every_level_and_recommends_where_the_law_bends(tmp_path: Path, chain: Path) -> None:
    twice = SWEEP.replace("repeats = 1", "repeats = 2")

    said = loadgen("run", write(tmp_path, twice), "--chain", chain, "--output", tmp_path / "runs")

    assert said.returncode == 0, said.stderr + said.stdout
    summary = read_summary(run_directory(tmp_path / "runs"))
    # 20 msg/s each up to 62: 60 at three are within 5 % of the best
    assert summary["recommendation"]["processes"] == 3
    assert summary["sweep"]["models"]["chosen"] == "hard_cap"
    assert [level["processes"] for level in summary["levels"]] == [1, 2, 3, 4, 6]
    for step in summary["steps"]:
        assert step["feed_processes"] == step["filter_servers"] == step["level"]
        assert step["delivered_per_s"] == pytest.approx(min(20 * step["level"], 62), rel=0.06)
        assert step["known_delivered_per_s"] == pytest.approx(min(20 * step["level"], 62))
    assert "Set maxproc = $max_servers = 3" in said.stdout
    assert summary["recommendation"]["present"]["feed_processes"] == 2


def test_variant_with_a_known_effect_is_measured_and_adopted(tmp_path: Path, chain: Path) -> None:
    chain.write_text(CAPPED.replace("62.0", "60.0"))
    text = SWEEP.replace("levels = [1, 2, 3, 4, 6]", "levels = [3, 6]") + (
        '[variants]\nknown = false\nblocks = 2\n[variants.own.mend]\nfeed = { lmtp_discard_lhlo_keywords = "pipelining" }\n'
    )

    said = loadgen("run", write(tmp_path, text), "--chain", chain, "--output", tmp_path / "runs")

    assert said.returncode == 0, said.stderr + said.stdout
    summary = read_summary(run_directory(tmp_path / "runs"))
    (variant,) = summary["sweep"]["variants"]
    assert variant["name"] == "mend"
    saturated = next(gain for gain in variant["gains"] if gain["load"] == "saturated")
    assert saturated["ratio"] == pytest.approx(0.25, abs=0.06)
    assert variant["adopted"]
    assert summary["recommendation"]["variants"] == ["mend"]
    assert summary["recommendation"]["delivered_per_s"] == pytest.approx(1.25 * 60, rel=0.08)


def test_sweep_that_was_killed_is_continued_without_measuring_again(tmp_path: Path, chain: Path) -> None:
    profile = write(tmp_path, SWEEP)
    process = subprocess.Popen(
        [*LOADGEN, "run", str(profile), "--chain", str(chain), "--output", str(tmp_path / "first")],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 3 ") and " hold " in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = run_directory(tmp_path / "first")

    said = loadgen("run", profile, "--chain", chain, "--output", tmp_path / "second", "--continue", first)

    assert said.returncode == 0, said.stderr + said.stdout
    second = run_directory(tmp_path / "second")
    summary = read_summary(second)
    assert len(summary["steps"]) == 5, "two finished ones of the first run, and the three that were missing"
    assert summary["status"] == "complete"
    assert summary["accounting"]["adds_up"]
    assert [level["processes"] for level in summary["levels"]] == [1, 2, 3, 4, 6]
    with RunReader(first) as one, RunReader(second) as two:
        kept = one.query("SELECT id FROM message WHERE step < 2 ORDER BY id")
        assert kept == two.query("SELECT id FROM message WHERE step < 2 ORDER BY id")
        assert two.meta["continues"] == first.name


def test_run_is_not_continued_with_another_profile(tmp_path: Path, chain: Path) -> None:
    first = tmp_path / "first"
    loadgen("run", write(tmp_path, SWEEP.replace("[1, 2, 3, 4, 6]", "[1]")), "--chain", chain, "--output", first)

    said = loadgen(
        "run",
        write(tmp_path, SWEEP),
        "--chain",
        chain,
        "--output",
        tmp_path / "second",
        "--continue",
        run_directory(first),
    )

    assert said.returncode == 2
    assert "made with another profile" in said.stderr
    assert list((tmp_path / "second").iterdir()) == []


def test_step_ends_as_soon_as_its_throughput_is_known(tmp_path: Path) -> None:
    profile = tmp_path / "until.toml"
    profile.write_text(
        'about = "until it is known"\n[timing]\nwarm_up = "500ms"\nprecision = 0.2\n'
        '[[step]]\nconcurrency = 8\nhold = "2s"\nhold_limit = "30s"\n'
    )
    chain = tmp_path / "constant.toml"
    chain.write_text('[reference]\nlaw = "constant"\nservice_s = 0.05\nfeed_processes = 4\nfilter_servers = 4\n')

    said = loadgen("run", profile, "--chain", chain, "--output", tmp_path / "runs")

    (step,) = read_summary(run_directory(tmp_path / "runs"))["steps"]
    assert said.returncode in (0, 4), said.stderr
    assert step["precise"]
    assert step["hold_s"] < 15


def test_dry_run_of_a_sweep_says_what_it_will_do() -> None:
    said = loadgen("run", "size", "--chain", "reference", "--dry-run")

    assert said.returncode == 0
    assert "search up to 12 processes" in said.stdout
    assert "the known mends" in said.stdout


def test_json_of_a_sweep_is_the_summary(tmp_path: Path, chain: Path) -> None:
    text = SWEEP.replace("levels = [1, 2, 3, 4, 6]", "levels = [2]")
    said = loadgen("run", write(tmp_path, text), "--chain", chain, "--output", tmp_path / "runs", "--json")

    got = json.loads(said.stdout)
    assert got["recommendation"]["processes"] is None
    assert "only 2 processes were measured" in got["verdict"]["headline"]
