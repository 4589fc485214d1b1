"""Runs the `loadgen` command as a user would, for tests from outside."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LOADGEN = [sys.executable, "-P", "-m", "loadgen"]


def loadgen(
    *arguments: str | Path, cwd: Path | None = None, timeout_s: float = 200, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `loadgen` with *arguments* and return what it said; *environment* is in addition."""
    command = [*LOADGEN, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip


def start_loadgen(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start `loadgen` with *arguments*; read its standard error with `read_until`."""
    return subprocess.Popen(
        [*LOADGEN, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Return the first line on standard error with *words* in it."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if words in line:
            return line
        said.append(line)
    process.communicate()
    raise AssertionError(f"it ended, exit {process.returncode}, without {words!r}: {''.join(said)}")


def write_profile(path: Path, steps: list[tuple[int, str]], extra: str = "", warm_up: str = "1s") -> Path:
    """Write a profile with (concurrency, hold) *steps* and return its path."""
    text = f'about = "a test"\n{extra}\n[timing]\nwarm_up = "{warm_up}"\ndrain = "20s"\n'
    text += "".join(f'[[step]]\nconcurrency = {n}\nhold = "{hold}"\n' for n, hold in steps)
    path.write_text(text)
    return path


def run_directory(parent: Path) -> Path:
    """Return the only run directory below *parent*."""
    (directory,) = parent.iterdir()
    return directory


def read_summary(directory: Path) -> dict[str, Any]:
    """Return a run's summary.json."""
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary
