"""`loadgen compare`: run directories in, a verdict with its evidence out, and an exit code for a gate."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.command import loadgen
from tests.make_run import Made, change, make_run, set_meta
from tests.page import Page


def make_side(tmp_path: Path, name: str, services: tuple[float, ...], **made: Any) -> list[Path]:
    """Make one run for each mean service time; capacity is four over it."""
    return [
        make_run(tmp_path / f"{name}{number}", Made(concurrencies=(1, 4, 8), service_s=service, hold_s=15, **made))
        for number, service in enumerate(services)
    ]


SAME, SLOWER = (0.100, 0.101, 0.099, 0.1005), (0.125, 0.126, 0.124, 0.1255)


def test_slower_chain_is_a_regression_with_its_interval_and_exit_3(tmp_path: Path) -> None:
    base, candidate = make_side(tmp_path, "a", SAME), make_side(tmp_path, "b", SLOWER)

    said = loadgen("compare", *base, "--", *candidate)

    assert said.returncode == 3, said.stderr
    assert "regression" in said.stdout
    assert "Throughput: -20" in said.stdout
    found = json.loads(loadgen("compare", "--json", *base, "--", *candidate).stdout)
    throughput = found["metrics"][0]
    assert found["verdict"] == throughput["verdict"] == "regression"
    assert throughput["interval"][0] < 0.8 < throughput["interval"][1]
    assert throughput["base"] == pytest.approx([4 / one for one in SAME], rel=0.03)
    assert [row["metric"] for row in found["curve"]] == ["N = 1", "N = 4", "N = 8"]
    assert {row["verdict"] for row in found["curve"]} == {"regression"}


def test_same_chain_is_equivalent_and_passes(tmp_path: Path) -> None:
    base, candidate = make_side(tmp_path, "a", SAME), make_side(tmp_path, "b", SAME[::-1])

    said = loadgen("compare", *base, "--", *candidate, "--markdown")
    assert said.returncode == 2, "an option behind -- is a directory that is not there"

    said = loadgen("compare", "--markdown", tmp_path / "c.md", *base, "--", *candidate)
    assert said.returncode == 0, said.stdout + said.stderr
    text = (tmp_path / "c.md").read_text()
    assert text.startswith("### loadgen: equivalent")
    assert re.search(r"\| delivered, msg/s \| (39|40)\.\d\d \| (39|40)\.\d\d \|", text), text
    assert re.search(r"\| response p50, least load \| \d\d+ ms \|", text), text


def test_few_scattered_runs_decide_nothing_and_say_how_many_would(tmp_path: Path) -> None:
    base, candidate = make_side(tmp_path, "a", (0.1, 0.115)), make_side(tmp_path, "b", (0.105, 0.098))

    said = loadgen("compare", *base, "--", *candidate)

    assert said.returncode == 4
    assert "inconclusive" in said.stdout
    assert "runs on each side would do" in said.stdout


def test_page_has_the_verdict_the_tables_and_both_figures_and_loads_nothing(tmp_path: Path) -> None:
    base, candidate = make_side(tmp_path, "a", SAME), make_side(tmp_path, "b", SLOWER)
    set_meta(candidate[0], "settings", {"main.cf": "<script>alert(1)</script> = 1"})

    loadgen("compare", "--html", tmp_path / "c.html", *base, "--", *candidate)

    text = (tmp_path / "c.html").read_text()
    page = Page(text)
    words = " ".join(page.words)
    assert "Regression" in words
    assert "Load by load" in words
    assert "a0" in page.words
    assert set(json.loads(page.data["figures"])) == {"changes", "curves"}
    assert not [link for link in page.links if link[2].startswith(("http", "//"))]
    assert "<script>alert" not in text
    assert page.handlers == []


@pytest.mark.parametrize("what", ["incomplete", "another load"])
def test_run_that_cannot_be_used_never_passes(tmp_path: Path, what: str) -> None:
    base, candidate = make_side(tmp_path, "a", SAME[:2]), make_side(tmp_path, "b", SAME[:2])
    if what == "incomplete":
        set_meta(candidate[1], "status", "incomplete")
    else:
        set_meta(candidate[1], "workload_hash", "fedcba9876543210")

    said = loadgen("compare", *base, "--", *candidate)

    assert said.returncode == 4
    assert f"{candidate[1].name}: {what}" in said.stderr
    assert not said.stdout


def test_another_machine_and_other_settings_are_named(tmp_path: Path) -> None:
    base, candidate = make_side(tmp_path, "a", SAME[:2]), make_side(tmp_path, "b", SAME[:2])
    for directory in candidate:
        change(directory, "UPDATE meta SET value = replace(value, 'Some CPU', 'Another CPU') WHERE key = 'host'")
        change(directory, "UPDATE meta SET value = replace(value, '3.7.11', '3.11.0') WHERE key = 'software'")
        set_meta(directory, "settings", {"main.cf": "default_process_limit = 50"})

    notes = " ".join(json.loads(loadgen("compare", "--json", *base, "--", *candidate).stdout)["notes"])

    assert "Not all runs were taken on machines of one kind" in notes
    assert "postfix 3.7.11 -> 3.11.0" in notes
    assert "main.cf: + default_process_limit = 50" in notes


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["a"], "got one side, want two"),
        (["a", "--", "a"], "given twice"),
        (["--paired", "a", "--", "b", "c"], "want as many on both sides"),
    ],
)
def test_wrong_calls_say_what_is_wanted(tmp_path: Path, arguments: list[str], want: str) -> None:
    paths = {name: make_run(tmp_path / name, Made(concurrencies=(4,), hold_s=15)) for name in "abc"}

    said = loadgen("compare", *(paths.get(word, word) for word in arguments))

    assert said.returncode == 2
    assert want in said.stderr
