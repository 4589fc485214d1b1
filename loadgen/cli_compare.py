"""The command `loadgen compare`: is one set of runs better than another."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from loadgen.errors import ExitCode, UsageError
from loadgen.output import JsonOption, put, say

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
        list[Path], typer.Argument(metavar="BASE... -- CANDIDATE...", help="Run directories of both sides.")
    ],
    margin: Annotated[
        float, typer.Option(help="Loss of throughput that does not matter, as a share.", min=0.005, max=0.5)
    ] = 0.05,
    paired: Annotated[
        bool, typer.Option("--paired", help="The runs were taken in pairs, one of each side, in this order.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as a page with figures.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs of one profile: improved, equivalent, regression or inconclusive, with intervals."""
    from loadgen.progress import PatientConsole
    from loadgen.records import RunReader
    from reports.analyse import analyse
    from reports.comparisontext import print_comparison, render_markdown
    from reports.runcomparison import compare_runs

    candidate: list[Path] = ctx.meta.get(_SIDES, [])
    if not candidate:
        raise UsageError("compare: got one side, want two: loadgen compare BASE... -- CANDIDATE...")
    if twice := sorted({str(path) for path in [*base, *candidate] if [*base, *candidate].count(path) > 1}):
        raise UsageError(f"{twice[0]}: given twice; every run counts once")
    sides = []
    for paths in (base, candidate):
        summaries = []
        for path in paths:
            with RunReader(path) as reader:
                summaries.append(analyse(reader))
        sides.append(summaries)
    found = compare_runs(sides[0], sides[1], margin=margin, paired=paired)
    names = [[path.name for path in paths] for paths in (base, candidate)]
    if markdown is not None:
        _write(markdown, render_markdown(found, ", ".join(names[0]), ", ".join(names[1])))
    if html is not None:
        from reports.comparisonhtml import render_comparison_html  # lazily: only a page pays for the figures

        _write(html, render_comparison_html(found, names[0], names[1], time.time()))
    if as_json:
        put(json.dumps(found, indent=2))
    else:
        print_comparison(found, PatientConsole())
    raise typer.Exit(
        {
            "regression": ExitCode.EXPECTATION_MISSED,
            "inconclusive": ExitCode.INVALID_RESULT,
        }.get(found["verdict"], ExitCode.OK)
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    say(f"written: {path}")
