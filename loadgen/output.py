"""Where a command's words go: results to standard output, everything else to standard error."""

import sys
from typing import Annotated, TextIO

import typer

__all__ = ["JsonOption", "put", "say"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


def put(text: str, stream: TextIO | None = None) -> None:
    """Print a result; a reader that has gone away, as in "| head -1", changes nothing but the output."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        from loadgen.progress import silence

        silence(stream)


def say(text: str) -> None:
    """Print something that is no result."""
    put(text, sys.stderr)
