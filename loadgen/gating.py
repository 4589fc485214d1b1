"""What a gate leaves behind for a CI server: files that were asked for, and what the server asks for by its variables.

What is written, and how it is escaped, is worked out in `reports`.
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from loadgen.errors import LoadgenError, UsageError
from loadgen.output import put, say
from reports.gate import Gate

__all__ = [
    "AnnotationsOption",
    "GateFiles",
    "JUnitOption",
    "MarkdownOption",
    "check_writable",
    "publish",
    "publish_failure",
    "write_text",
]

JUnitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the expectations as JUnit XML.")
]
MarkdownOption = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Also write it as Markdown.")]
AnnotationsOption = Annotated[
    Path | None, typer.Option("--annotations", metavar="FILE", help="Write GitLab's job annotations (JSON).")
]

_MOST_BYTES = 1 << 20
"""Of a step's summary; GitHub drops a larger one as a whole."""


@dataclass(frozen=True)
class GateFiles:
    """Where to write what; None: nowhere."""

    junit: Path | None = None
    markdown: Path | None = None
    annotations: Path | None = None

    def check(self) -> None:
        """Raise while nothing has been measured yet, if one of them could not be written afterwards.

        Raises:
            UsageError: its directory is not there, or it is a directory itself.
        """
        for path in (self.junit, self.markdown, self.annotations):
            if path is not None:
                check_writable(path)


def check_writable(path: Path) -> None:
    """Raise if *path* cannot be written.

    Raises:
        UsageError: its directory is not there or may not be written, or it is a directory itself.
    """
    if path.is_dir():
        raise UsageError(f"{path}: a directory, want the name of a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: its directory is not there; make it first")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(f"{path}: may not be written")


def publish(
    gate: Gate, files: GateFiles, markdown: str, *, started_s: float, took_s: float, hostname: str, pages: Mapping[str, Path],
) -> None:  # fmt: skip
    """Write what was asked for, append to the step's summary of GitHub, and print annotations where GitHub listens.

    Args:
        gate: What was judged.
        files: Where to.
        markdown: What to say of it to people.
        started_s: Unix seconds at which the first run began.
        took_s: All runs together.
        hostname: Of the machine that was measured.
        pages: Label to page that is worth a link.

    Raises:
        UsageError: a file cannot be written.
    """
    from reports.gatetext import render_github_annotations, render_gitlab_annotations
    from reports.junit import render_junit

    if files.junit is not None:
        write_text(files.junit, render_junit(gate, started_s, took_s, hostname))
    if files.markdown is not None:
        write_text(files.markdown, markdown)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        _append(Path(summary), markdown)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        put(render_github_annotations(gate).removesuffix("\n"))
    if files.annotations is not None:
        if not os.environ.get("CI_JOB_URL"):
            say("warning: CI_JOB_URL is not set, so the annotations have no links; they are for a job of GitLab")
        below = Path(os.environ.get("CI_PROJECT_DIR") or Path.cwd())
        shown = {
            name: str(page.absolute().relative_to(below)) for name, page in pages.items() if page.absolute().is_relative_to(below)
        }  # fmt: skip
        write_text(files.annotations, render_gitlab_annotations(gate, shown, os.environ))


@contextmanager
def publish_failure(files: GateFiles, profile: str, started_s: float) -> Iterator[None]:
    """Let a CI server know, too, of an error for which there is no result; the error goes on to the caller.

    Args:
        files: Where to write what.
        profile: Whose gate it is.
        started_s: Unix seconds at which this began.
    """
    from reports.expecting import no_gate
    from reports.gatetext import render_gate_markdown

    try:
        yield
    except LoadgenError as error:
        gate = no_gate(profile)
        gate["outcome"], gate["reasons"] = "incomplete", [str(error)]
        publish(
            gate, files, render_gate_markdown(gate), started_s=started_s, took_s=time.time() - started_s,
            hostname=platform.node(), pages={},
        )  # fmt: skip
        raise


def write_text(path: Path, text: str) -> None:
    """Write *text* and say so.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    say(f"written: {path}")


def _append(path: Path, text: str) -> None:
    # never worth a gate: the server made the file, and the words stand in the log, too
    try:
        room = _MOST_BYTES - (path.stat().st_size if path.exists() else 0)
        if len(text.encode()) < room:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(f"{text}\n")
        else:
            say(f"warning: {path}: no room left for the summary of this gate")
    except OSError as error:
        say(f"warning: {path}: {error.strerror}")
