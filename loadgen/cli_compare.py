"""The command `loadgen compare`: is one set of runs better than another; of recorded runs, or of two chains in turn."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from loadgen.errors import UsageError
from loadgen.gating import AnnotationsOption, GateFiles, JUnitOption, MarkdownOption, check_writable, publish_failure
from loadgen.output import JsonOption

if TYPE_CHECKING:
    from reports.runvalues import RunValues

__all__ = ["CompareCommand", "compare"]

_SIDES = "loadgen.candidate"


class CompareCommand(TyperCommand):
    """Keeps what stands behind "--" apart, which the parser would throw together with the rest."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the candidate's directories out before the parser sees them."""
        if "--" in args:
            place = args.index("--")
            ctx.meta[_SIDES] = [Path(word) for word in args[place + 1 :]]
            args = args[:place]
        return super().parse_args(ctx, args)


def compare(
    ctx: typer.Context,
    base: Annotated[
        list[str],
        typer.Argument(
            metavar="BASE... -- CANDIDATE...",
            help="Run directories or baseline files of both sides. With --ab: two chains and a profile. With --self-test: "
            "a profile, or recorded runs of one chain in their order.",
        ),
    ],
    margin: Annotated[
        float | None,
        typer.Option(
            help="Loss of throughput that does not matter, as a share. Default: [expect.worse_max] of the profile, else 0.05.",
            min=0.005, max=0.5,
        ),
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="The runs were taken in pairs, one of each side, in this order.")
    ] = False,
    in_turn: Annotated[
        bool, typer.Option("--ab", help="Run CHAIN_A and CHAIN_B with PROFILE in turn, until the answer is known.")
    ] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="One chain against itself: what can a gate see on this machine?")
    ] = False,
    chain: Annotated[str | None, typer.Option(help="Of --self-test, as for 'run'.")] = None,
    time_limit: Annotated[str, typer.Option(help="Longest time for --ab and --self-test, such as 5min.")] = "15min",
    seed: Annotated[int | None, typer.Option(help="Of the lots of --ab. Default: another one each time.", min=0)] = None,
    output: Annotated[Path, typer.Option(help="Where --ab and --self-test make run directories.")] = Path("runs"),
    markdown: MarkdownOption = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as a page with figures.")] = None,
    junit: JUnitOption = None,
    annotations: AnnotationsOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Compare runs of one profile: improved, equivalent, regression or inconclusive, with intervals."""
    from loadgen.units import parse_duration
    from reports.baseline import is_baseline

    files = GateFiles(junit, markdown, annotations)
    files.check()
    if html is not None:
        check_writable(html)
    candidate: list[Path] = ctx.meta.get(_SIDES, [])
    if (in_turn or self_test) and (candidate or paired):
        raise UsageError("compare: --ab and --self-test take their runs themselves; leave -- and --paired out")
    if in_turn and self_test:
        raise UsageError("compare: got --ab and --self-test, want one of them")
    if not in_turn and not self_test and (chain is not None or seed is not None):
        raise UsageError("compare: --chain and --seed are for runs still to be made; add --self-test or --ab")
    try:
        limit_s = parse_duration(time_limit)
    except ValueError as error:
        raise UsageError(f"--time-limit: {error}") from None
    if self_test:
        from loadgen.selftesting import examine_machine

        if html is not None or files != GateFiles():
            raise UsageError("compare --self-test: is no gate; leave --html, --markdown, --junit and --annotations out")
        raise typer.Exit(examine_machine(base, chain, margin, limit_s, output, as_json=as_json))
    from loadgen.comparing import Sides, compare_in_turn, report_comparison

    if in_turn:
        if len(base) != 3:
            raise UsageError(f"--ab: got {len(base)} words, want CHAIN_A CHAIN_B PROFILE")
        raise typer.Exit(
            compare_in_turn(base[0], base[1], base[2], margin, limit_s, seed, output, files, html, as_json=as_json)
        )
    paths = [Path(word) for word in base]
    if not candidate:
        raise UsageError("compare: got one side, want two: loadgen compare BASE... -- CANDIDATE...")
    if twice := sorted({str(path) for path in [*paths, *candidate] if [*paths, *candidate].count(path) > 1}):
        raise UsageError(f"{twice[0]}: given twice; every run counts once")
    read = [_read_side(side) for side in (paths, candidate)]
    sides = Sides(
        read[0][0], read[1][0], [run["directory"] for run in read[0][0]], [run["directory"] for run in read[1][0]],
        block=1 if paired else None, expect=read[1][1],
    )  # fmt: skip
    if any(is_baseline(path) for path in [*paths, *candidate]):
        _check_machines([*sides.base, *sides.candidate])
    started_s = time.time()
    with publish_failure(files, sides.candidate[0]["profile"], started_s):
        code = report_comparison(sides, margin, files, html, started_s, as_json=as_json)
    raise typer.Exit(code)


def _read_side(paths: list[Path]) -> "tuple[list[RunValues], dict[str, Any]]":
    """Return the values of runs and baselines, and what the profile of the last run expects."""
    from loadgen.series import read_summary
    from reports.baseline import is_baseline, load_baseline
    from reports.runvalues import read_values

    found: list[RunValues] = []
    expect: dict[str, Any] = {}
    for path in paths:
        if is_baseline(path):
            found += load_baseline(path)
            continue
        summary = read_summary(path)
        found.append(read_values(summary))
        expect = summary["run"]["expect"]
    return found, expect


def _check_machines(runs: "list[RunValues]") -> None:
    """Raise where a baseline is of another kind of machine, and nothing tells how fast the two are."""
    from loadgen.errors import UnusableRunError
    from reports.runvalues import is_same_machine

    others = any(not is_same_machine(run, runs[0]) for run in runs)
    unknown = [run["directory"] for run in runs if run["generator_per_s"] is None]
    if others and unknown:
        raise UnusableRunError(
            f"{unknown[0]}: on another kind of machine than the baseline, and not known how fast; make it with "
            "'loadgen run --baseline FILE', which measures that"
        )
