"""Can a gate be trusted? Real gates on the real chain: losses that were planted, mends that are known, and nothing at all.

pytest -m bench -s tests/bench/test_gate.py                                   # about an hour and a half
LOADGEN_BENCH_ROUNDS=3 pytest -m bench -s tests/bench/test_gate.py -k planted
"""

import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command import loadgen

pytestmark = [pytest.mark.bench, pytest.mark.chain, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("LOADGEN_BENCH_ROUNDS", "10"))
FIVE_MINUTES_S = 300.0

STOCK = "[lab]\nprocesses = 2\n"
UNPIPELINED = f'{STOCK}feed_options = {{ lmtp_discard_lhlo_keywords = "pipelining" }}\n'
# both known mends: what is planted then is all that differs
MENDED = f"""{STOCK}feed_options = {{ lmtp_discard_lhlo_keywords = "pipelining", lmtp_connection_cache_on_demand = "no" }}
"""


@dataclass(frozen=True)
class Gate:
    """What one gate said."""

    verdict: str
    ratio: float
    interval: tuple[float, float]
    runs: int
    took_s: float
    exit_code: int


def take_gate(directory: Path, a: str, b: str, margin: float, limit: str) -> Gate:
    """Compare two labs in turn with the shipped profile for gates."""
    directory.mkdir()
    (directory / "a.toml").write_text(a)
    (directory / "b.toml").write_text(b)
    begun = time.monotonic()
    said = loadgen(
        "compare", "--ab", directory / "a.toml", directory / "b.toml", "ci-gate", "--margin", str(margin), "--time-limit", limit,
        "--output", directory / "runs", "--json", timeout_s=3600,
    )  # fmt: skip
    took_s = time.monotonic() - begun
    assert said.returncode in (0, 3, 4), said.stderr
    found = json.loads(said.stdout)
    metric = found["metrics"][0]
    low, high = metric["interval"]
    gate = Gate(found["verdict"], metric["ratio"], (low, high), len(metric["base"]), took_s, said.returncode)
    print(
        f"  {gate.verdict:<12} {gate.ratio - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%}), {2 * gate.runs} runs, {took_s:.0f} s, "
        f"exit {gate.exit_code}",
        flush=True,
    )
    return gate


def test_planted_loss_of_fifteen_per_cent_is_called_a_regression(tmp_path: Path) -> None:
    print(f"\n{ROUNDS} gates of at most five minutes, margin 5 %, every scan 22 ms longer")
    gates = [
        take_gate(tmp_path / f"g{number}", MENDED, f'{MENDED}wait = "22ms"\n', 0.05, "5min") for number in range(ROUNDS)
    ]

    planted = 1 - statistics.geometric_mean(gate.ratio for gate in gates)
    found = sum(gate.verdict == "regression" for gate in gates)
    print(f"  loss as measured by all of them together {planted:.1%}; {found} of {ROUNDS} called it a regression")
    assert all(gate.exit_code != 0 for gate in gates), "a gate passed"
    assert all(gate.took_s <= FIVE_MINUTES_S + 20 for gate in gates)
    assert found >= 0.9 * ROUNDS


def test_planted_loss_of_two_per_cent_is_never_a_regression_beyond_ten(tmp_path: Path) -> None:
    rounds = max(1, ROUNDS // 5)
    print(f"\n{rounds} gates of at most five minutes, margin 10 %, every scan 2.9 ms longer")
    gates = [
        take_gate(tmp_path / f"g{number}", MENDED, f'{MENDED}wait = "2.9ms"\n', 0.10, "5min")
        for number in range(rounds)
    ]

    assert not any(gate.verdict == "regression" for gate in gates)


def test_gain_of_the_pipelining_mend_in_one_command(tmp_path: Path) -> None:
    print("\nstock against PIPELINING discarded on the feed, 2 processes")
    gate = take_gate(tmp_path / "g", STOCK, UNPIPELINED, 0.05, "10min")

    assert gate.verdict == "improved"


@pytest.mark.parametrize("layout", ['feed = "smtp"', 'cleanup = "dual"'], ids=["smtp-feed", "two-cleanups"])
def test_layouts_are_compared_in_turn(tmp_path: Path, layout: str) -> None:
    print(f"\nstock against {layout}")
    gate = take_gate(tmp_path / "g", STOCK, f"{STOCK}{layout}\n", 0.05, "5min")

    assert gate.runs >= 4


def test_chain_against_itself_raises_no_false_alarms(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(MENDED)
    said = loadgen(
        "compare", "--self-test", "ci-gate", "--chain", tmp_path / "lab.toml", "--time-limit", "9min", "--output", tmp_path / "runs",
        "--json", timeout_s=3600,
    )  # fmt: skip

    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    print("\n" + "\n".join(found["sentences"]))
    for one in found["played"]:
        print(f"  {one}")
    assert all(one["false_alarms"] <= 0.05 * one["gates"] for one in found["played"])
