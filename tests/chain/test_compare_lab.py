"""Two real labs in turn: each run begins with fresh processes, and both labs are gone afterwards, whatever happened."""

import json
import signal
from pathlib import Path

import pytest

from loadgen.chain import lab
from loadgen.records import RunReader
from tests.command import loadgen, read_until, start_loadgen, write_profile

pytestmark = pytest.mark.chain


@pytest.fixture
def chains(tmp_path: Path) -> tuple[Path, Path]:
    stock, mended = tmp_path / "stock.toml", tmp_path / "mended.toml"
    stock.write_text("[lab]\nprocesses = 2\n")
    mended.write_text('[lab]\nprocesses = 2\nfeed_options = { lmtp_discard_lhlo_keywords = "pipelining" }\n')
    return stock, mended


def list_filter_processes(run: Path) -> set[str]:
    """Return the process ids of the children of amavisd that have scanned something in *run*."""
    with RunReader(run) as reader:
        return {am_id.partition("-")[0] for (am_id,) in reader.query("SELECT am_id FROM scan")}


def test_mend_is_worth_something_and_every_run_begins_with_fresh_processes(
    tmp_path: Path, chains: tuple[Path, Path]
) -> None:
    profile = write_profile(tmp_path / "p.toml", [(8, "5s")], '[expect]\nlost_max = 0\n[message]\nsize = "4KiB"\n')

    said = loadgen(
        "compare", "--ab", *chains, profile, "--time-limit", "10s", "--output", tmp_path / "runs", "--json",
        "--junit", tmp_path / "j.xml", timeout_s=400,
    )  # fmt: skip

    assert said.returncode in (0, 4), said.stderr
    found = json.loads(said.stdout)
    assert found["metrics"][0]["ratio"] > 1.1
    assert found["gate"]["outcome"] in ("met", "inconclusive")
    assert any("lmtp_discard_lhlo_keywords" in note for note in found["notes"])
    assert 'failures="0"' in (tmp_path / "j.xml").read_text()
    (directory,) = (tmp_path / "runs").iterdir()
    (block,) = json.loads((directory / "blocks.json").read_text())["blocks"]
    for side in "AB":
        first, second = (list_filter_processes(directory / run) for run in block[side])
        assert first
        assert second
        assert not first & second
    assert [one for one in lab.list_labs() if one.owner is not None] == []


def test_interrupt_between_two_runs_takes_both_labs_down(tmp_path: Path, chains: tuple[Path, Path]) -> None:
    profile = write_profile(tmp_path / "p.toml", [(8, "5s")])
    process = start_loadgen("compare", "--ab", *chains, profile, "--output", tmp_path / "runs")
    read_until(process, "block 1 (")  # said when a run is over and the next one has not begun
    owned = [one.name for one in lab.list_labs() if one.owner == process.pid]

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert len(owned) == 2
    assert process.returncode == 130
    assert not {one.name for one in lab.list_labs()} & set(owned)
