"""How much a gate can be trusted on one machine: the same chain against itself, many times over.

Pure: the throughput of runs of one chain in, taken one after the other, what
follows for gates out. Gates are played with the recorded runs: blocks of four
neighbours, drawn anew for every gate, given the letters A and B by lot. What
such a gate calls a regression is a false alarm. The gates share runs, so they
are no independent experiments: the rate is what it is for this machine at this
time, and its bound counts only as many gates as there were blocks to make them of.
"""

import math
import random
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from reports.comparison import Difference, compare, detectable_change, needed_runs

__all__ = ["Power", "SelfTest", "examine_bed", "play_gates"]

_GATES = 1000
_PER_BLOCK = 4
_SHOWN = (2, 3, 5, 8, 10, 15, 20)


class Power(TypedDict):
    """What a gate of one size can see."""

    runs: int
    """On each side, or blocks."""
    unpaired: float | None
    """Smallest loss seen in four of five cases, by runs of both sides one after the other."""
    blocks: float | None
    """The same by so many blocks of A B B A, which are twice as many runs."""
    called: float | None
    """Smallest loss that a gate of so many blocks calls a regression in four of five cases: beyond the margin, surely."""


class SelfTest(TypedDict):
    """What `loadgen compare --self-test` finds."""

    format: int
    margin: float
    delivered_per_s: list[float]
    """One value per run, in their order."""
    spread: float
    """Relative standard deviation of a run."""
    block_spread: float
    """The same without what the four runs of a block have in common."""
    lag1: float
    """Correlation of a run with the next: above 0, the machine drifts."""
    blocks: int
    gates: int
    """Played."""
    blocks_per_gate: int
    false_alarms: int
    """Gates that said regression."""
    false_differences: int
    """Gates whose 95 % interval excludes that nothing has changed; one in twenty is what it promises."""
    undecided: int
    """Gates that said inconclusive."""
    power: list[Power]
    needed_runs: int | None
    """On each side for the margin; None: more than 200."""
    needed_blocks: int | None
    sentences: list[str]


def examine_bed(delivered_per_s: Sequence[float], margin: float, seed: int = 1) -> SelfTest:
    """Return what runs of one chain, taken one after the other, say about gates on this machine.

    Args:
        delivered_per_s: One positive value per run, in their order; at least three blocks of four.
        margin: Loss that a gate is to see.
        seed: Of the lots.

    Raises:
        ValueError: too few runs.
    """
    logs = np.log(np.asarray(delivered_per_s, float))
    count = len(logs) // _PER_BLOCK
    if count < 3:
        raise ValueError(f"got {len(logs)} runs, want at least {3 * _PER_BLOCK}")
    blocks = logs[: count * _PER_BLOCK].reshape(count, _PER_BLOCK)
    spread = float(logs.std(ddof=1))
    within = float(((blocks - blocks.mean(axis=1, keepdims=True)) ** 2).sum())
    block_spread = math.sqrt(within / (count * (_PER_BLOCK - 1)))
    gates = play_gates(delivered_per_s, margin, _GATES, seed)
    found = SelfTest(
        format=1, margin=margin, delivered_per_s=list(delivered_per_s), spread=spread, block_spread=block_spread,
        lag1=_lag1(logs), blocks=count, gates=len(gates), blocks_per_gate=count,
        false_alarms=sum(one.verdict == "regression" for one in gates),
        false_differences=sum(not _contains_none(one) for one in gates),
        undecided=sum(one.verdict == "inconclusive" for one in gates),
        power=[
            _power(n, spread, block_spread, margin)
            for n in _SHOWN
        ],
        needed_runs=needed_runs(spread, margin), needed_blocks=needed_runs(block_spread, margin, block=_PER_BLOCK // 2), sentences=[],
    )  # fmt: skip
    found["sentences"] = _say(found)
    return found


def _power(runs: int, spread: float, block_spread: float, margin: float) -> Power:
    by_blocks = detectable_change(block_spread, 2 * runs, 2 * runs, block=_PER_BLOCK // 2)
    return Power(
        runs=runs, unpaired=detectable_change(spread, runs, runs), blocks=by_blocks,
        called=1 - (1 - margin) * math.exp(-by_blocks) if by_blocks is not None else None,
    )  # fmt: skip


def play_gates(
    delivered_per_s: Sequence[float], margin: float, gates: int, seed: int = 1, loss: float = 0.0
) -> list[Difference]:
    """Return what *gates* gates say whose blocks are drawn from the recorded ones, letters given by lot.

    Args:
        delivered_per_s: One positive value per run of one chain, in their order.
        margin: Of the gates.
        gates: How many.
        seed: Of the lots.
        loss: Planted into every run that is called B, as a share.
    """
    count = len(delivered_per_s) // _PER_BLOCK
    blocks = [delivered_per_s[_PER_BLOCK * i : _PER_BLOCK * (i + 1)] for i in range(count)]
    lots = random.Random(seed)
    played = []
    for _ in range(gates):
        base: list[float] = []
        candidate: list[float] = []
        for block in lots.choices(blocks, k=count):
            outer, inner = [block[0], block[3]], [block[1], block[2]]
            a, b = (outer, inner) if lots.random() < 0.5 else (inner, outer)
            base += a
            candidate += [(1 - loss) * value for value in b]
        played.append(compare(base, candidate, margin=margin, higher_is_better=True, block=_PER_BLOCK // 2))
    return played


def _contains_none(one: Difference) -> bool:
    return one.interval is None or one.interval[0] <= 1 <= one.interval[1]


def _lag1(logs: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    centred = logs - logs.mean()
    total = float((centred**2).sum())
    return float((centred[1:] * centred[:-1]).sum()) / total if total > 0 else 0.0


def _say(found: SelfTest) -> list[str]:
    runs, gates = len(found["delivered_per_s"]), found["gates"]
    sentences = [
        (
            f"Runs of the same chain scatter by {found['spread']:.1%} (standard deviation of {runs}); within blocks of four "
            f"neighbours by {found['block_spread']:.1%}."
        ),
        (
            f"False alarms: {found['false_alarms']} of {gates} gates of {found['blocks_per_gate']} blocks said regression "
            f"({found['false_alarms'] / gates:.1%}; margin {found['margin']:.0%}), played with the recorded runs. Its interval "
            f'excluded "no change" in {found["false_differences"] / gates:.1%}; 5 % is what it promises.'
        ),
    ]
    if not found["false_alarms"]:
        sentences.append(
            f"The gates share {found['blocks']} blocks: as few independent ones exclude only a rate above "
            f"{1 - 0.05 ** (1 / found['blocks']):.0%} (95 %). More runs exclude more."
        )
    if found["lag1"] > 0.3:
        sentences.append(
            f"The machine drifts: a run resembles the one before it (correlation {found['lag1']:.2f}). Compare in turn "
            "(--ab), not one side after the other."
        )
    blocks, sides = found["needed_blocks"], found["needed_runs"]
    least = f"{blocks} blocks of A B B A (--ab)" if blocks is not None else "more than 200 blocks"
    other = f"{sides} runs on each side" if sides is not None else "more than 200 runs on each side"
    sentences.append(
        f"To see a loss of {found['margin']:.0%} in four of five cases: {least}, or {other} one after the other."
    )
    return sentences
