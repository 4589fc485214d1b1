"""How much a gate can be trusted on one machine: the same chain against itself, many times over.

Pure: the throughput of runs of one chain in, taken one after the other, what
follows for gates out. Gates of several sizes are played with the recorded runs:
blocks of four neighbours, drawn anew for every gate, given the letters A and B by
lot. What such a gate calls a regression is a false alarm; the same gates with a loss
planted into B show what they see. They share runs, so they are no independent
experiments: the rates are what they are for this machine at this time.
"""

import math
import random
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from reports.comparison import Difference, compare, detectable_change, needed_runs

__all__ = ["Played", "Power", "SelfTest", "examine_bed", "play_gates"]

_GATES = 1000
_SIZES = (3, 4, 6, 8, 12, 16, 24)
"""Blocks of the gates that are played."""
_PLANTED = 3
"""Times the margin: the loss that is planted."""
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


class Played(TypedDict):
    """What gates of one size said, played with the recorded runs."""

    blocks: int
    gates: int
    false_alarms: int
    """Gates of equals that said regression."""
    false_differences: int
    """Gates of equals whose 95 % interval excludes that nothing has changed; one in twenty is what it promises."""
    undecided: int
    """Gates of equals that said inconclusive."""
    found: int
    """Gates that said regression of the planted loss."""


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
    planted: float
    """Loss that was planted into the gates that are played, as a share."""
    played: list[Played]
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
    planted = min(_PLANTED * margin, 0.5)
    found = SelfTest(
        format=1, margin=margin, delivered_per_s=list(delivered_per_s), spread=spread, block_spread=block_spread,
        lag1=_lag1(logs), blocks=count, planted=planted,
        played=[_play(delivered_per_s, margin, planted, size, seed) for size in _SIZES if size <= count],
        power=[_power(n, spread, block_spread, margin) for n in _SHOWN],
        needed_runs=needed_runs(spread, margin), needed_blocks=needed_runs(block_spread, margin, block=_PER_BLOCK // 2),
        sentences=[],
    )  # fmt: skip
    found["sentences"] = _say(found)
    return found


def _play(delivered_per_s: Sequence[float], margin: float, planted: float, size: int, seed: int) -> Played:
    equals = play_gates(delivered_per_s, margin, size, _GATES, seed)
    slower = play_gates(delivered_per_s, margin, size, _GATES, seed, loss=planted)
    return Played(
        blocks=size, gates=len(equals), false_alarms=sum(one.verdict == "regression" for one in equals),
        false_differences=sum(not _contains_none(one) for one in equals),
        undecided=sum(one.verdict == "inconclusive" for one in equals),
        found=sum(one.verdict == "regression" for one in slower),
    )  # fmt: skip


def _power(runs: int, spread: float, block_spread: float, margin: float) -> Power:
    by_blocks = detectable_change(block_spread, 2 * runs, 2 * runs, block=_PER_BLOCK // 2)
    return Power(
        runs=runs, unpaired=detectable_change(spread, runs, runs), blocks=by_blocks,
        called=1 - (1 - margin) * math.exp(-by_blocks) if by_blocks is not None else None,
    )  # fmt: skip


def play_gates(
    delivered_per_s: Sequence[float], margin: float, size: int, gates: int, seed: int = 1, loss: float = 0.0
) -> list[Difference]:
    """Return what *gates* gates say whose blocks are drawn from the recorded ones, letters given by lot.

    Args:
        delivered_per_s: One positive value per run of one chain, in their order.
        margin: Of the gates.
        size: Blocks of a gate, no more than there are.
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
        for block in lots.sample(blocks, size):
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
    runs = len(found["delivered_per_s"])
    sentences = [
        (
            f"Runs of the same chain scatter by {found['spread']:.1%} (standard deviation of {runs}); within blocks of four "
            f"neighbours by {found['block_spread']:.1%}."
        ),
        (
            f"{found['blocks']} blocks were recorded. Gates of several sizes were played with them, letters by lot (margin "
            f'{found["margin"]:.0%}): how many raised a false alarm, excluded "no change" (5 % is what the interval promises), and called a planted '
            f"loss of {found['planted']:.0%} a regression."
        ),
    ]
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
