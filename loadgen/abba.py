"""Two chains in turn: blocks of four runs, A B B A or B A A B by lot, until the answer is known or the time is over.

A machine that grows slower over minutes does so for both sides alike, and within a
block such a drift cancels.
"""

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadgen.errors import ExitCode
from loadgen.progress import Progress
from loadgen.run import RunRequest
from loadgen.series import Series, Taken, make_series_directory, open_series, read_summary
from reports.runvalues import RunValues, read_values

__all__ = ["RUNS_PER_BLOCK", "Block", "Blocks", "take_blocks"]

RUNS_PER_BLOCK = 2
"""Of each side."""

_ORDERS = ("ABBA", "BAAB")
_ATTEMPTS = 3
"""At one run, where noise alone has spoilt it."""
_MOST_DROPPED = 3
"""Blocks in which a run was spoilt that often; more of them, and the machine is too noisy for any answer."""


@dataclass
class Block:
    """Four runs in turn."""

    order: str
    """ABBA or BAAB."""
    taken: dict[str, list[Taken]] = field(default_factory=lambda: {"A": [], "B": []})
    """Those that count, by side."""
    spoilt: list[Taken] = field(default_factory=list)
    """Those that noise has made unusable, and that were taken again."""

    @property
    def is_whole(self) -> bool:
        """Whether it counts."""
        return all(len(runs) == self.order.count(side) for side, runs in self.taken.items())


@dataclass
class Blocks:
    """What was taken."""

    directory: Path
    blocks: list[Block]
    exit_code: ExitCode
    """Other than OK: of the run that ended the series."""
    why_ended: str
    took_s: float

    @property
    def whole(self) -> list[Block]:
        """Those that count."""
        return [block for block in self.blocks if block.is_whole]

    def read(self, side: str) -> list[RunValues]:
        """Return the runs of a side that count, block by block."""
        return [read_values(one.summary) for block in self.whole for one in block.taken[side]]


async def take_blocks(
    requests: dict[str, RunRequest], name: str, time_limit_s: float, seed: int, progress: Progress,
    is_enough: Callable[[Sequence[RunValues], Sequence[RunValues]], bool],
) -> Blocks:  # fmt: skip
    """Take blocks until *is_enough* says so, no further one fits into the time, or a run fails.

    Args:
        requests: What to run on the sides "A" and "B".
        name: Of the directory that holds the runs.
        time_limit_s: In which the last block is to end; the first one is taken in any case.
        seed: Of the lots.
        progress: Is told what happens.
        is_enough: Gets the runs of A and of B, block by block.

    Raises:
        LoadgenError: a chain cannot be brought up, or the first run could not be begun.
    """
    lots = random.Random(seed)
    directory = make_series_directory(requests["A"].output, name)
    sides = {side: replace(request, output=directory / side) for side, request in requests.items()}
    found = Blocks(directory, [], ExitCode.OK, "", 0.0)
    begun = time.monotonic()
    longest_s = 0.0
    async with open_series(sides, progress, read_summary) as series:
        while not found.why_ended:
            block_begun = time.monotonic()
            block = Block(lots.choice(_ORDERS))
            found.blocks.append(block)
            try:
                failed = await _take_block(series, block, len(found.blocks))
            except KeyboardInterrupt:  # between two runs
                found.exit_code, found.why_ended = ExitCode.INTERRUPTED, "interrupted by the user"
                break
            _write_down(found, seed)
            longest_s = max(longest_s, time.monotonic() - block_begun)
            found.took_s = time.monotonic() - begun
            whole = found.whole
            if failed is not None:
                found.exit_code = failed.exit_code if failed.exit_code is not ExitCode.OK else ExitCode.INVALID_RESULT
                found.why_ended = (
                    f"{failed.directory.name}: {failed.summary['status']}: {failed.summary['run']['end_reason']}"
                )
            elif len(found.blocks) - len(whole) > _MOST_DROPPED:
                found.why_ended = "too many runs were not steady enough"
            elif whole and is_enough(found.read("A"), found.read("B")):
                found.why_ended = "the answer is known"
            elif found.took_s + longest_s > time_limit_s:
                found.why_ended = "the time is over"
            if not found.why_ended:
                left = math.floor((time_limit_s - found.took_s) / longest_s)
                progress.say(f"block {len(found.blocks)} took {longest_s:.0f} s; {left} more fit into the time")
    return found


async def _take_block(series: Series, block: Block, number: int) -> Taken | None:
    """Take the runs of *block*; return the one that failed for another reason than noise."""
    for place, side in enumerate(block.order):
        for _ in range(_ATTEMPTS):
            one = await series.take(side, f"block {number} ({block.order[: place + 1]}): {side}")
            if one.is_complete:
                block.taken[side].append(one)
                break
            if not one.is_spoilt:
                return one
            block.spoilt.append(one)
        else:
            return None
    return None


def _write_down(found: Blocks, seed: int) -> None:
    """Write which runs belong together, so that they can be compared again."""
    rows = [
        {
            "order": block.order,
            **{side: [f"{side}/{one.directory.name}" for one in runs] for side, runs in block.taken.items()},
            "spoilt": [one.directory.name for one in block.spoilt],
        }
        for block in found.blocks
    ]
    (found.directory / "blocks.json").write_text(
        json.dumps({"format": 1, "seed": seed, "blocks": rows}, indent=1) + "\n"
    )
