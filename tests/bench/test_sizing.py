"""Is the recommended process count right? Asked of the chain in another way, of chains that are formulas, and of the clock.

pytest -m bench -s tests/bench/test_sizing.py
LOADGEN_BENCH_ROUNDS=3 pytest -m bench -s tests/bench/test_sizing.py -k independent
"""

import asyncio
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from loadgen.chain.tuning import Setting
from loadgen.chain.tuning_lab import LabTuner
from loadgen.profile import Message
from loadgen.traffic.message import MessageFactory
from reports.levels import level_rates
from reports.sizing import choose_processes
from tests.bench.drain import FILES, drain_slope_per_s
from tests.command import loadgen, read_summary, run_directory
from tests.labs import lab_up
from tests.make_rows import Simulated, make_profile

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("LOADGEN_BENCH_ROUNDS", "3"))
_BACKLOG = 240
SIMULATIONS = int(os.environ.get("LOADGEN_BENCH_SIMULATIONS", "1000"))


# -- simulated chains -------------------------------------------------------------------------------------


def draw_law(rng: random.Random) -> Callable[[int], float]:
    """Return a law of one of the three shapes a chain can have."""
    each, shape = rng.uniform(3, 10), rng.choice(("usl", "cap", "smooth"))
    if shape == "usl":
        alpha, beta = rng.uniform(0.01, 0.15), math.exp(rng.uniform(math.log(5e-4), math.log(2e-2)))
        return lambda p: each * p / (1 + alpha * (p - 1) + beta * p * (p - 1))
    cap = each * rng.uniform(2, 9)
    if shape == "cap":
        return lambda p: min(each * p, cap)
    power = rng.uniform(2, 10)
    return lambda p: float(((each * p) ** -power + cap**-power) ** (-1 / power))


@pytest.mark.parametrize("how", ["auto", "exhaustive"])
def test_intervals_hold_what_they_promise_on_known_laws(how: str) -> None:
    rng = random.Random(f"laws:{how}")
    held = {"processes": 0, "throughput": 0}
    off, share = [], []
    for seed in range(SIMULATIONS):
        law, most, spread = draw_law(rng), rng.choice((8, 12, 16)), rng.choice((0.01, 0.02, 0.04))
        chain = Simulated(law, spread, seed)
        wanted = f'search = "auto"\nmax = {most}' if how == "auto" else f"levels = {list(range(1, most + 1))}"
        chain.sweep(make_profile(f"[processes]\n{wanted}\n", seed))
        best = max(law(p) for p in range(1, most + 1))
        right = next(p for p in range(1, most + 1) if law(p) >= 0.95 * best - 1e-9)
        choice = choose_processes(level_rates(chain.rows), 0.05)
        held["processes"] += choice.interval[0] <= right <= choice.interval[1]
        held["throughput"] += choice.per_s_interval[0] <= law(choice.processes) <= choice.per_s_interval[1]
        off.append(abs(choice.processes - right))
        share.append(len(chain.visits) / (3 * most))
    print(f"\n{how}: {SIMULATIONS} simulated sweeps, spread 1 to 4 %")
    for name, count in held.items():
        print(f"  the 95 % interval of the {name} holds the truth in {count / SIMULATIONS:.1%}")
    print(f"  within one process of the right count: {sum(o <= 1 for o in off) / SIMULATIONS:.1%}")
    print(f"  visits against every level three times: mean {statistics.mean(share):.2f}, most {max(share):.2f}")

    for name, count in held.items():
        assert 0.93 <= count / SIMULATIONS <= 0.97, name


# -- the real lab -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    factory, directory = MessageFactory(Message(), 1, "be0c4a11"), tmp_path_factory.mktemp("messages")
    paths = []
    for number in range(FILES):
        message = factory.make_message(number)
        path = directory / f"{number}.eml"
        path.write_bytes((message.head + message.body).replace(b"\r\n", b"\n"))
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Chain:
    """A lab, and the levels at which it is drained by hand."""

    levels: tuple[int, ...]
    options: tuple[tuple[str, str], ...] = ()
    """Of the feed's service."""
    wait_s: float = 0.0
    """What every scan waits without a CPU."""


CHAINS = {
    "stock": Chain((1, 2, 3, 4, 6, 8)),
    "mended": Chain((1, 2, 3, 4, 6, 8), (("lmtp_discard_lhlo_keywords", "pipelining"),)),
    "waiting": Chain((4, 8, 12, 16, 20, 24), wait_s=0.7),
}


def sweep_independently(chain: Chain, files: list[Path]) -> dict[int, list[float]]:
    """Return level to the slopes of three drains each, in random order; nothing of loadgen's traffic takes part."""
    rng = random.Random(7)
    order = [level for _ in range(3) for level in rng.sample(chain.levels, len(chain.levels))]
    found: dict[int, list[float]] = {level: [] for level in chain.levels}
    with lab_up("bench", wait_s=chain.wait_s) as built:
        tuner = LabTuner(built)
        for level in order:
            asyncio.run(tuner.apply(Setting(level, level, chain.options)))
            slope, children = drain_slope_per_s(built, files, _BACKLOG)
            found[level].append(slope)
            print(f"  drain at {level} processes: {slope:.2f} msg/s ({children:.1f} children)", flush=True)
    return found


@pytest.mark.chain
@pytest.mark.parametrize("name", CHAINS)
def test_recommended_level_is_within_five_per_cent_of_the_best_by_an_independent_sweep(
    files: list[Path], tmp_path: Path, name: str
) -> None:
    tried = CHAINS[name]
    profile = tmp_path / "size.toml"
    profile.write_text(
        'about = "a search"\n[timing]\nwarm_up = "2s"\ndrain = "60s"\n'
        f'[processes]\nsearch = "auto"\nmax = {max(tried.levels)}\nhold = "8s"\nhold_limit = "16s"\n'
    )
    chain = tmp_path / "chain.toml"
    feed = ", ".join(f'{option} = "{value}"' for option, value in tried.options)
    wait = f'wait = "{1000 * tried.wait_s:.0f}ms"\n' if tried.wait_s else ""
    chain.write_text(f"[lab]\nprocesses = 2\nfeed_options = {{ {feed} }}\n{wait}")
    recommended = []
    for number in range(ROUNDS):
        said = loadgen(
            "run", profile, "--chain", chain, "--output", tmp_path / str(number), timeout_s=1800
        )  # fmt: skip
        assert said.returncode == 0, said.stderr + said.stdout
        got = read_summary(run_directory(tmp_path / str(number)))["recommendation"]
        recommended.append(got["processes"])
        print(f"run {number + 1}: {got['headline']}, interval {got['interval']}", flush=True)

    means = {level: statistics.mean(slopes) for level, slopes in sweep_independently(tried, files).items()}
    best = max(means.values())
    print(json.dumps({level: round(mean, 2) for level, mean in means.items()}))
    carried = {p: float(np.interp(p, list(means), list(means.values()))) for p in recommended}
    print(
        f"recommended {recommended}: {', '.join(f'{p}: {c / best - 1:+.1%}' for p, c in carried.items())} of the best"
    )

    assert max(recommended) - min(recommended) <= 1
    assert all(rate >= 0.95 * best for rate in carried.values())


@pytest.mark.chain
def test_search_agrees_with_every_level_three_times_in_a_third_of_the_time(tmp_path: Path) -> None:
    base = 'about = "both"\n[timing]\nwarm_up = "2s"\ndrain = "60s"\n[processes]\nhold = "8s"\nhold_limit = "16s"\n'
    took, recommended = {}, {}
    for name, how in (("auto", 'search = "auto"\nmax = 8\n'), ("exhaustive", "levels = [1, 2, 3, 4, 5, 6, 7, 8]\n")):
        profile = tmp_path / f"{name}.toml"
        profile.write_text(base + how)
        began = time.monotonic()
        said = loadgen("run", profile, "--chain", "lab", "--output", tmp_path / name, timeout_s=3600)
        took[name] = time.monotonic() - began
        assert said.returncode == 0, said.stderr + said.stdout
        summary = read_summary(run_directory(tmp_path / name))
        recommended[name] = summary["recommendation"]["processes"]
        print(
            f"\n{name}: {summary['recommendation']['headline']}, {summary['sweep']['visits']} visits, {took[name]:.0f} s",
            flush=True,
        )
    print(f"time of the search against every level: {took['auto'] / took['exhaustive']:.2f}")

    assert abs(recommended["auto"] - recommended["exhaustive"]) <= 1
    assert took["auto"] <= 0.36 * took["exhaustive"], "a third, and what bringing up a lab twice costs"
