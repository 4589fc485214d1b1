"""Baselines: what some runs gave, kept to be compared with; only of the same load, and only as far as the machine allows."""

import json
from pathlib import Path

import pytest

from loadgen.errors import UnusableRunError, UsageError
from reports.baseline import load_baseline, save_baseline
from reports.runcomparison import compare_runs
from tests.make_values import HASH, make_side, make_values

OTHER = {"hostname": "mx2", "cpu_model": "Another CPU", "cpus": 8, "memory_bytes": 32 << 30, "kernel": "6.1.0"}
BASE = [16.0, 16.1, 15.9, 16.05]


def test_what_was_saved_is_loaded_run_by_run(tmp_path: Path) -> None:
    runs = make_side(BASE)

    save_baseline(tmp_path / "base.json", runs)

    loaded = load_baseline(tmp_path / "base.json", HASH)
    assert [run["steps"] for run in loaded] == [run["steps"] for run in runs]
    assert [run["machine"] for run in loaded] == [run["machine"] for run in runs]


def test_settings_are_kept_as_digests_that_still_tell_a_difference(tmp_path: Path) -> None:
    secret = {"main.cf": ["smtp_sasl_password_maps = inline:{ mx=me:secret }"]}
    save_baseline(tmp_path / "base.json", make_side(BASE, settings=secret))

    assert "secret" not in (tmp_path / "base.json").read_text()
    loaded = load_baseline(tmp_path / "base.json")
    assert not compare_runs(loaded, make_side(BASE, settings=secret))["notes"]
    notes = compare_runs(loaded, make_side(BASE, settings={"main.cf": ["soft_bounce = yes"]}))["notes"]
    assert "settings of Postfix or amavisd are others" in " ".join(notes)


def test_baseline_of_another_load_is_refused(tmp_path: Path) -> None:
    save_baseline(tmp_path / "base.json", make_side(BASE))

    with pytest.raises(UnusableRunError, match="of another load"):
        load_baseline(tmp_path / "base.json", "fedcba9876543210")


def test_nothing_is_saved_of_a_run_that_is_not_complete(tmp_path: Path) -> None:
    with pytest.raises(UnusableRunError, match="nothing was saved"):
        save_baseline(tmp_path / "base.json", [*make_side(BASE), make_values(status="invalid")])

    assert not (tmp_path / "base.json").exists()


def test_earlier_baseline_is_replaced_and_any_other_file_is_left_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "base.json", tmp_path / "package.json"
    save_baseline(path, make_side(BASE))
    save_baseline(path, make_side([20.0, 20.1]))
    other.write_text('{"name": "mine"}')

    assert len(load_baseline(path)) == 2
    with pytest.raises(UsageError, match="no baseline that loadgen wrote"):
        save_baseline(other, make_side(BASE))
    assert other.read_text() == '{"name": "mine"}'


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("not json", "not JSON"),
        ('{"kind": "loadgen baseline", "format": 99, "runs": []}', "format 99, this version reads 1"),
        ('{"kind": "loadgen baseline", "format": 1, "runs": []}', "has no runs"),
        ('{"kind": "loadgen baseline", "format": 1, "runs": [{"directory": "x"}]}', "parts of them are missing"),
    ],
)
def test_file_that_is_no_baseline_says_so(tmp_path: Path, text: str, want: str) -> None:
    (tmp_path / "base.json").write_text(text)

    with pytest.raises(UsageError) as caught:
        load_baseline(tmp_path / "base.json")

    assert want in str(caught.value)


def test_other_machine_is_compared_by_what_its_generator_carries() -> None:
    # twice as fast in everything: by itself no better
    base = make_side(BASE, generator_per_s=10_000.0)
    candidate = [
        make_values(2 * value, machine=OTHER, generator_per_s=20_000.0, cpu_s_per_message=0.06) for value in BASE
    ]

    found = compare_runs(base, candidate)

    assert found["relative"]
    assert found["verdict"] == "equivalent"
    assert found["metrics"][0]["ratio"] == pytest.approx(1.0)
    assert {row["metric"]: round(row["ratio"], 6) for row in found["metrics"]}["cpu_s_per_message"] == 1.0
    assert "machines of different kinds" in found["notes"][0]


def test_loss_is_seen_across_machines() -> None:
    base = make_side(BASE, generator_per_s=10_000.0)
    candidate = [make_values(1.4 * value, machine=OTHER, generator_per_s=20_000.0) for value in BASE]

    found = compare_runs(base, candidate)

    assert found["verdict"] == "regression"
    assert found["metrics"][0]["ratio"] == pytest.approx(0.7)


def test_machine_that_has_changed_by_itself_decides_nothing() -> None:
    speeds = (20_000.0, 20_400.0, 19_800.0, 20_100.0)
    base = [make_values(value, generator_per_s=speed) for value, speed in zip(BASE, speeds, strict=True)]
    slower = [make_values(0.8 * value, generator_per_s=0.8 * speed) for value, speed in zip(BASE, speeds, strict=True)]

    found = compare_runs(base, slower)

    assert found["verdict"] == "inconclusive"
    assert found["machine_changed"]
    assert "Measure the base again" in " ".join(found["sentences"])


def test_scatter_of_the_generator_alone_changes_no_verdict() -> None:
    base = [make_values(v, generator_per_s=g) for v, g in zip(BASE, (20e3, 24e3, 17e3, 22e3), strict=True)]
    slower = [make_values(0.8 * v, generator_per_s=g) for v, g in zip(BASE, (18e3, 23e3, 21e3, 17e3), strict=True)]

    assert compare_runs(base, slower)["verdict"] == "regression"


def test_file_is_small_and_readable(tmp_path: Path) -> None:
    save_baseline(tmp_path / "base.json", make_side(BASE))

    content = json.loads((tmp_path / "base.json").read_text())
    assert content["format"] == 1
    assert content["workload_hash"] == HASH
    assert len(content["runs"]) == 4
    assert (tmp_path / "base.json").stat().st_size < 10_000
