"""`loadgen compare` once its words are understood: of recorded runs, or of two chains in turn."""

import asyncio
import json
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.abba import RUNS_PER_BLOCK, Blocks, take_blocks
from loadgen.errors import ExitCode, UnusableRunError, UsageError
from loadgen.expectations import Expect, WorseMax, read_expect
from loadgen.gating import GateFiles, publish, publish_failure, write_text
from loadgen.output import put, say
from loadgen.progress import PatientConsole, Progress
from loadgen.run import RunRequest
from loadgen.running import DEFAULT_MARGIN
from loadgen.series import make_request
from reports.comparison import is_enough
from reports.comparisontext import print_comparison, render_markdown
from reports.expecting import exit_code_of, expects_something, judge_gate
from reports.gatetext import print_gate, render_chart, render_gate_markdown
from reports.runcomparison import METRICS, compare_runs, read_metric
from reports.runvalues import RunValues

__all__ = ["Sides", "compare_in_turn", "report_comparison"]


@dataclass(frozen=True)
class Sides:
    """What is compared."""

    base: Sequence[RunValues]
    candidate: Sequence[RunValues]
    base_names: Sequence[str]
    candidate_names: Sequence[str]
    block: int | None
    """As in `reports.comparison.compare`."""
    expect: dict[str, Any]
    """The table [expect] of the candidate's profile."""
    notes: Sequence[str] = ()
    ended: ExitCode = ExitCode.OK
    """Other than OK: of what ended the runs before their time."""
    problem: str = ""
    """The same in words."""


def report_comparison(
    sides: Sides, margin: float | None, files: GateFiles, html: Path | None, started_s: float, *, as_json: bool
) -> ExitCode:
    """Compare, print, write what was asked for, and return what the command ends with.

    Args:
        sides: What is compared.
        margin: Loss of throughput that does not matter; None: as the profile says.
        files: What to write for a CI server.
        html: Where to write the page; None: nowhere.
        started_s: Unix seconds at which this began.
        as_json: Print JSON.

    Raises:
        UnusableRunError: the runs cannot be compared.
        UsageError: pairs of different number, or a file cannot be written.
    """
    expect, gates = _expect(sides.expect, margin)
    margins = expect.worse_max.model_dump(exclude_none=True)
    found = compare_runs(
        sides.base, sides.candidate, margin=margins.get("delivered_per_s", DEFAULT_MARGIN), margins=margins, block=sides.block
    )  # fmt: skip
    found["notes"] += sides.notes
    gate = judge_gate(expect, sides.candidate, comparison=found, problem=sides.problem)
    if html is not None:
        from reports.comparisonhtml import render_comparison_html  # lazily: only a page pays for the figures

        write_text(html, render_comparison_html(found, sides.base_names, sides.candidate_names, time.time()))
    if as_json:
        put(json.dumps({**found, "gate": gate}, indent=2))
    else:
        console = PatientConsole()
        print_comparison(found, console)
        if gates:
            print_gate(gate, console)
    text = render_markdown(found, ", ".join(sides.base_names), ", ".join(sides.candidate_names))
    text = f"{render_gate_markdown(gate)}\n{text}" if gates else f"{text}\n{render_chart(gate)}"
    publish(
        gate, files, text, started_s=started_s, took_s=time.time() - started_s, hostname=platform.node(),
        pages={"comparison": html} if html is not None else {},
    )  # fmt: skip
    return sides.ended if sides.ended is not ExitCode.OK else exit_code_of(gate)


def _expect(table: dict[str, Any], margin: float | None) -> tuple[Expect, bool]:
    """Return what is expected, and whether the profile expects anything itself; else only that there is no loss."""
    expect = read_expect(table, "candidate")
    wanted = expect.worse_max.model_dump(exclude_none=True)
    gates = expects_something(expect) or bool(wanted)
    if margin is not None or "delivered_per_s" not in wanted:
        wanted["delivered_per_s"] = margin or DEFAULT_MARGIN
    return expect.model_copy(update={"worse_max": WorseMax(**wanted)}), gates


def compare_in_turn(
    chain_a: str, chain_b: str, profile: str, margin: float | None, time_limit_s: float, seed: int | None, output: Path,
    files: GateFiles, html: Path | None, *, as_json: bool,
) -> ExitCode:  # fmt: skip
    """Run two chains in turn, compare them, and return what the command ends with.

    Raises:
        LoadgenError: something given cannot be used, a chain cannot be brought up, or too little was measured.
    """
    started_s = time.time()
    requests = {side: make_request(profile, chain, output) for side, chain in (("A", chain_a), ("B", chain_b))}
    loaded = requests["A"].profile
    if loaded.processes is not None:
        raise UsageError(f"{profile}: a sweep over process counts; --ab compares chains at one count, with steps")
    for side, request in requests.items():
        say(f"{side}: {request.choice.why}")
    expect, _ = _expect(loaded.expect.model_dump(mode="json"), margin)
    allowed = expect.worse_max.delivered_per_s or DEFAULT_MARGIN
    seed = seed if seed is not None else random.SystemRandom().randrange(1 << 31)

    def enough(base: Sequence[RunValues], candidate: Sequence[RunValues]) -> bool:
        values = [read_metric(METRICS[0], side) for side in (base, candidate)]
        return len(values[0]) == len(values[1]) and is_enough(
            values[0], values[1], margin=allowed, block=RUNS_PER_BLOCK
        )

    with publish_failure(files, requests["A"].profile_name, started_s):
        with Progress(PatientConsole(stderr=True), brief=True) as progress:
            found = asyncio.run(
                take_blocks(requests, f"ab-{requests['A'].profile_name}", time_limit_s, seed, progress, enough)
            )
        _check_usable(found)
        page = html or found.directory / "comparison.html"
        sides = Sides(
            found.read("A"), found.read("B"), [chain_a], [chain_b], block=RUNS_PER_BLOCK,
            expect=loaded.expect.model_dump(mode="json"), notes=_describe_blocks(found, requests, seed),
            ended=found.exit_code, problem=found.why_ended if found.exit_code is not ExitCode.OK else "",
        )  # fmt: skip
        code = report_comparison(sides, margin, files, page, started_s, as_json=as_json)
        if not as_json:
            put(f"report: {page.absolute()}")
    return code


def _check_usable(found: Blocks) -> None:
    if not found.whole and found.exit_code is ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if not found.whole:
        raise UnusableRunError(f"{found.directory}: no block was completed: {found.why_ended}; the runs in it say more")


def _describe_blocks(found: Blocks, requests: dict[str, RunRequest], seed: int) -> list[str]:
    spoilt = sum(len(block.spoilt) for block in found.blocks)
    orders = " ".join(block.order for block in found.whole)
    notes = [
        f"{len(found.whole)} blocks ({orders}, seed {seed}) in {found.took_s:.0f} s; ended because {found.why_ended}."
    ]
    if kept := [side for side in "AB" if requests[side].choice.chain is not None]:
        notes.append(f"What runs already is not restarted between runs: {' and '.join(kept)}.")
    if spoilt:
        notes.append(f"{spoilt} runs were not steady enough and were taken again.")
    if len(found.blocks) > len(found.whole):
        notes.append(f"{len(found.blocks) - len(found.whole)} blocks were not completed and do not count.")
    return notes
