"""Go on with an earlier run: its record is copied, what was not finished in it is left out, and the rest counts.

The earlier directory stays as it is. Only the same workload on the same kind of
chain and the same machine may be continued: anything else would put
measurements of different things into one curve.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import UsageError
from loadgen.host import describe_host
from loadgen.profile import Profile
from loadgen.records import FORMAT, RunReader

__all__ = ["Earlier", "take_over"]

_PAUSE_S = 2.0
"""Between the last instant of the earlier record and the first of what follows."""


@dataclass(frozen=True)
class Earlier:
    """What a run that goes on needs to know of the one before."""

    name: str
    ended_at: float
    """Instant on its clock at which the new part begins."""
    sessions: int
    """Sessions it has; new ones are numbered from here."""
    messages: int
    """Messages it has that were started."""


def take_over(earlier: Path, directory: Path, profile: Profile) -> Earlier:
    """Copy the record of the run *earlier* into *directory*, without its unfinished steps.

    Raises:
        UsageError: it was another workload, or another machine.
        RunFileError: it is no run of this format.
    """
    with RunReader(earlier) as reader:
        meta = reader.meta
        if meta.get("format") != FORMAT:
            raise UsageError(
                f"{earlier}: format {meta.get('format')}, only format {FORMAT} can be continued; start the run anew"
            )
        if meta.get("workload_hash") != profile.workload_hash:
            raise UsageError(
                f"{earlier}: made with another profile (workload {meta.get('workload_hash')}, this one is "
                f"{profile.workload_hash}); continue it with its own {earlier / 'profile.toml'}"
            )
        here, there = describe_host(None), meta.get("host") or {}
        for what in ("hostname", "cpus", "memory_bytes"):
            if there.get(what) != here.get(what):
                raise UsageError(
                    f"{earlier}: made on another machine ({what} {there.get(what)}, here {here.get(what)}); start the run anew"
                )
        unfinished = [
            step
            for (step,) in reader.query(
                "SELECT step FROM step WHERE step NOT IN (SELECT step FROM phase WHERE phase = 'end')"
            )
        ]
    # the copy is made by SQLite itself: a run that was killed has part of its record beside the file
    with sqlite3.connect(earlier / "run.sqlite") as source, sqlite3.connect(directory / "run.sqlite") as copy:
        source.backup(copy)
    source.close()
    for step in unfinished:
        _drop_step(copy, step)
    ended_at = max(
        copy.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()[0]  # noqa: S608 (own names)
        for table, column in (
            ("phase", "at"),
            ("sample", "at"),
            ("arrival", "at"),
            ("remark", "at"),
            ("session", "ended_at"),
        )
    )
    sessions = copy.execute("SELECT coalesce(max(session), -1) + 1 FROM session").fetchone()[0]
    messages = copy.execute("SELECT count(*) FROM message WHERE outcome != 'dropped'").fetchone()[0]
    copy.commit()
    copy.close()
    return Earlier(earlier.name, ended_at + _PAUSE_S, sessions, messages)


def _drop_step(copy: sqlite3.Connection, step: int) -> None:
    copy.execute("DELETE FROM arrival WHERE id IN (SELECT id FROM message WHERE step = ?)", (step,))
    for table in ("message", "session", "phase", "setting", "entry", "queued", "step"):
        copy.execute(f"DELETE FROM {table} WHERE step = ?", (step,))  # noqa: S608 (own names)
