"""What the tool itself costs: its CPU beside the lab's at saturation, and how long `--help` takes.

pytest -m bench -s tests/bench/test_cost.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import LOADGEN, loadgen, read_summary, run_directory, write_profile

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

ROUNDS = 7


@pytest.mark.chain
def test_own_cpu_is_a_small_share_of_the_chains(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(4, "20s"), (8, "20s"), (16, "20s")], warm_up="4s")

    said = loadgen("run", profile, "--chain", "lab", "--output", tmp_path / "runs")

    assert said.returncode in (0, 4), said.stderr
    print("\n N  chain cores  own cores  share")
    steps = read_summary(run_directory(tmp_path / "runs"))["steps"]
    for step in steps:
        cost = step["cost"]
        share = cost["own_share"]
        print(f"{step['concurrency']:>2}  {cost['chain_cores']:>11.2f}  {cost['own_cores']:>9.3f}  {share:.1%}")
    assert statistics.median(step["cost"]["own_share"] for step in steps) <= 0.05


def test_help_is_not_much_slower_than_python_itself() -> None:
    commands = {"python": [sys.executable, "-c", "import typer"], "help": [*LOADGEN, "--help"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"\nhelp {medians['help']:.3f} s, importing typer alone {medians['python']:.3f} s")

    assert medians["help"] / medians["python"] < 3
