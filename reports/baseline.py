"""A baseline: what some runs gave, in a small JSON file that is made to be committed beside the code it guards.

Holds the value of every run, not only means, with the load, the machine and
the software they belong to. Settings are kept as digests, so that a difference
is seen and nothing that a configuration says leaves the host.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadgen.errors import UnusableRunError, UsageError
from reports.runvalues import RunValues, digest_settings

__all__ = ["FORMAT", "is_baseline", "load_baseline", "save_baseline"]

FORMAT = 1
"""Version of the file; readers name the versions they accept."""
_KIND = "loadgen baseline"


def is_baseline(path: Path) -> bool:
    """Return whether *path* is meant as a baseline, not as a run directory."""
    return path.suffix == ".json" and not path.is_dir()


def load_baseline(path: Path, workload_hash: str | None = None) -> list[RunValues]:
    """Return the runs of the baseline *path*.

    Args:
        path: A file that `save_baseline` wrote.
        workload_hash: Of the load that it is to be compared with; None: whichever it is.

    Raises:
        UsageError: it cannot be read, or is no baseline of a format known here.
        UnusableRunError: it is of another load.
    """
    content = _read(path)
    if content.get("format") != FORMAT:
        raise UsageError(
            f"{path}: format {content.get('format')}, this version reads {FORMAT}; use the loadgen that wrote it"
        )
    runs: list[RunValues] = content.get("runs") or []
    names = RunValues.__annotations__.keys()
    if not runs or any(not isinstance(run, dict) or not names <= run.keys() for run in runs):
        raise UsageError(f"{path}: has no runs, or parts of them are missing; make it again with --save-baseline")
    found = content.get("workload_hash")
    if workload_hash is not None and found != workload_hash:
        raise UnusableRunError(
            f"{path}: of another load (profile {content.get('profile')}, workload {found}; this one is {workload_hash}); "
            "make one of this load with --save-baseline"
        )
    return runs


def save_baseline(path: Path, runs: Sequence[RunValues]) -> None:
    """Write *runs* to *path*; an earlier baseline there is replaced, anything else is left alone.

    Raises:
        UsageError: something else is there, or it cannot be written.
        UnusableRunError: a run is not complete.
    """
    for run in runs:
        if run["status"] != "complete":
            raise UnusableRunError(
                f"{run['directory']}: {run['status']}; a baseline is made of complete runs, nothing was saved"
            )
    if path.exists():
        _read(path)
    kept = [{**run, "settings": digest_settings(run["settings"])} for run in runs]
    first = runs[0]
    content = {
        "kind": _KIND, "format": FORMAT, "profile": first["profile"], "workload_hash": first["workload_hash"],
        "machine": first["machine"], "software": first["software"], "runs": kept,
    }  # fmt: skip
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(f"{path}: {error.strerror}; the baseline was not saved") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; make a baseline with 'loadgen run PROFILE --save-baseline FILE'"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}), so no baseline; it was left as it is") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise UsageError(f"{path}: no baseline that loadgen wrote; it was left as it is")
    return content
