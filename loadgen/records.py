"""The run directory: its format, its writer and its reader.

One directory per run, never overwritten, holding `run.sqlite` (WAL mode,
written as things happen), the profile and the chain as used, `summary.json`
and `report.html`. It is the only contract between the half that drives load
and the half that reports; plain `sqlite3` reads it during and after a run.

Every instant `at` (and every column ending in `_at`) is in seconds since the
run's origin on the monotonic clock; `meta.started_at` has the wall clock once.
The writer commits at least every 0.5 s, so a SIGKILL loses no more than that.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from loadgen.errors import RunFileError

__all__ = ["BEFORE_FIRST_STEP", "FORMAT", "TABLES", "RunReader", "RunWriter", "make_run_directory"]

FORMAT = 3
"""Version of the run directory; readers name the versions they accept."""

READABLE = (1, 2, 3)
"""Versions this release reads."""

BEFORE_FIRST_STEP = -1
"""Step number in the table `queued` of what was in the queue before the run."""

_COMMIT_EVERY_S = 0.5

TABLES: dict[str, tuple[str, ...]] = {
    # the plan: one row per step, and the instant at which each phase of it began
    # (phase: "settle", "ramp", "warm-up", "hold", "drain", "end")
    "step": ("step", "processes", "variant", "concurrency", "rate_per_s", "warm_up_s", "hold_s"),
    "phase": ("at", "step", "phase"),
    # where the messages of a step were put into the chain; a step without a row: at the front
    "entry": ("step", "entry"),
    # sweeps only: what was in force during a step. visit: number of the change of settings, shared by the steps
    # taken under it; purpose: "level", "confirm", "variant"; load: "saturated", "low"; changed_s: how long the
    # change took. `step.processes` is the level asked for, `filter_servers` may be more than it under a variant
    "setting": ("step", "visit", "purpose", "load", "feed_processes", "filter_servers", "changed_s"),
    # one row per SMTP connection; error is "" for a session that ended as intended
    "session": ("session", "step", "opened_at", "connect_s", "ehlo_s", "tls_s", "auth_s", "ended_at", "messages", "error"),
    # one row per message offered to the front. intended_at: when the pacing wanted it; started_at: first
    # byte of MAIL (NULL: never started); ended_at: last reply or failure; envelope_s: MAIL to 354;
    # data_s: first byte of the body to the reply after the final dot; outcome: "accepted", "refused",
    # "unknown" (connection lost or timed out after the final dot), "not_sent" (failed before the final dot),
    # "dropped" (rate pacing: no session was free before the step ended)
    "message": (
        "id", "step", "session", "size_bytes", "recipients", "intended_at", "started_at", "ended_at",
        "envelope_s", "data_s", "outcome", "code", "reply",
    ),
    # one row per copy that reached the sink; recipients: envelope recipients of that copy
    "arrival": ("id", "at", "recipients", "size_bytes"),
    # one reading of one gauge; names are listed in loadgen/collect/__init__.py
    "sample": ("at", "name", "value"),
    # from the log: queue id to message id; pass_number 1 before the filter, 2 after reinjection
    # (then origin is the queue id of pass 1)
    "queue_entry": ("queue_id", "message_id", "pass_number", "origin"),
    # one delivery attempt logged by Postfix; station: "feed" or "delivery"; a..d: the delays field, seconds
    "delivery": (
        "at", "station", "queue_id", "relay", "conn_use", "delay_s", "a_s", "b_s", "c_s", "d_s", "dsn",
        "status", "text", "queued_as",
    ),
    # one message seen by amavisd: verdict "Passed" or "Blocked"
    "scan": ("at", "am_id", "verdict", "category", "queue_id", "queued_as", "message_id", "hits", "size_bytes", "elapsed_s"),
    # one section of amavisd's TIMING line
    "timing": ("at", "am_id", "section", "seconds"),
    # a log line or an incident worth a finding; kind examples: "warning", "fatal", "dead-destination",
    # "deferred", "reload", "restart", "suppressed", "backlog-limit", "disk-limit", "front-unreachable",
    # "collector-gap", "interrupted", "exit"
    "remark": ("at", "source", "kind", "text"),
    # what was left in a queue when a step's drain ended; step -1: what was there before the first
    "queued": ("at", "step", "queue", "queue_id"),
}  # fmt: skip
"""Table to columns, in the order in which rows travel from the other processes."""

_PRIMARY = {"step": "step", "entry": "step", "setting": "step", "message": "id", "session": "session"}

_INDEXES = (
    "CREATE INDEX IF NOT EXISTS arrival_id ON arrival(id)",
    "CREATE INDEX IF NOT EXISTS sample_name ON sample(name, at)",
    "CREATE INDEX IF NOT EXISTS message_step ON message(step)",
    "CREATE INDEX IF NOT EXISTS timing_at ON timing(at)",
)


def make_run_directory(parent: Path, profile_name: str, now_s: float) -> Path:
    """Create and return `parent/<UTC time>-<profile>`, adding -2, -3, ... rather than reusing one.

    Raises:
        RunFileError: the directory cannot be created.
    """
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(now_s))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            suffix = "" if number == 1 else f"-{number}"
            path = parent / f"{stamp}-{profile_name}{suffix}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise RunFileError(f"{parent}: {error.strerror}; choose a writable place with --output") from error
    raise RunFileError(f"{parent}: a thousand runs of this second exist already; wait a second")


class RunWriter:
    """Appends rows to `run.sqlite`; one per run, used from one thread."""

    def __init__(self, directory: Path, *, new: bool = True) -> None:
        """Make the record of a run, or, not *new*, go on with the one that is there."""
        self.directory = directory
        try:
            self._db = sqlite3.connect(directory / "run.sqlite", isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # NORMAL: a killed process loses no commit, a power failure the last ones
            self._db.execute("PRAGMA synchronous=NORMAL")
            if new:
                self._create_tables()
        except sqlite3.Error as error:
            raise RunFileError(f"{directory}/run.sqlite: {error}; choose a writable place with --output") from error
        self._statements = {
            table: f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 (our own names)
            for table, columns in TABLES.items()
        }
        self._open_since_s: float | None = None
        self.write_meta("format", FORMAT)
        self.write_meta("status", "running")

    def _create_tables(self) -> None:
        self._db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        for table, columns in TABLES.items():
            primary = _PRIMARY.get(table)
            spec = ", ".join(f"{c} PRIMARY KEY" if c == primary else c for c in columns)
            self._db.execute(f"CREATE TABLE {table} ({spec})")
        for statement in _INDEXES:
            self._db.execute(statement)

    def write_meta(self, key: str, value: object) -> None:
        """Store one JSON value under *key* and commit at once."""
        self.commit()
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def write_rows(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Append *rows*, in the column order of TABLES; a repeated primary key replaces the row.

        Rows become durable at the next commit, which follows within 0.5 s as
        long as rows or `tick` calls keep coming.
        """
        if self._open_since_s is None:
            self._db.execute("BEGIN")
            self._open_since_s = time.monotonic()
        self._db.executemany(self._statements[table], rows)
        self.tick()

    def find_unrecorded(self, message_ids: Sequence[str]) -> list[str]:
        """Return those of *message_ids* that have no row in the table `message`."""
        sql = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM message)"
        return [value for (value,) in self._db.execute(sql, (json.dumps(list(message_ids)),))]

    def find_orphans(self) -> list[str]:
        """Return the ids that have arrived and have no row in the table `message`."""
        sql = "SELECT DISTINCT id FROM arrival WHERE id NOT IN (SELECT id FROM message)"
        return [value for (value,) in self._db.execute(sql)]

    def tick(self) -> None:
        """Commit if the oldest uncommitted row has waited long enough."""
        if self._open_since_s is not None and time.monotonic() - self._open_since_s >= _COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Make everything written so far durable against a kill of this process."""
        if self._open_since_s is not None:
            self._db.execute("COMMIT")
            self._open_since_s = None

    def close(self) -> None:
        """Commit, fold the write-ahead log into the file and close it."""
        self.commit()
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunReader:
    """Reads a run directory, finished or not, without changing it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / "run.sqlite"
        if not directory.is_dir():
            raise RunFileError(f"{directory}: no such directory; give a directory that 'loadgen run' made")
        if not path.is_file():
            raise RunFileError(f"{directory}: no run.sqlite in it; give a directory that 'loadgen run' made")
        try:
            # an unfinished run has a write-ahead log, which SQLite may only read where it may write
            self._db = sqlite3.connect(f"file:{path.absolute()}?mode=rw", uri=True)
            try:
                self._db.execute("SELECT count(*) FROM meta").fetchone()
            except sqlite3.OperationalError:
                self._db = sqlite3.connect(f"file:{path.absolute()}?immutable=1", uri=True)
            self._db.execute("PRAGMA query_only=1")
            self.meta: dict[str, Any] = {
                key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM meta")
            }
            self._tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except (sqlite3.Error, ValueError) as error:
            raise RunFileError(f"{path}: {error}; this is no run that loadgen wrote") from error
        found = self.meta.get("format")
        if found not in READABLE:
            raise RunFileError(
                f"{directory}: format {found}, this version reads {', '.join(map(str, READABLE))}; "
                f"use the loadgen that wrote it ({self.meta.get('version', 'unknown version')})"
            )

    def rows(self, table: str, where: str = "", parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows of *table* with its columns in the order of TABLES.

        *where* is an SQL tail such as "WHERE step = ? ORDER BY at".
        """
        if table not in self._tables:  # it came with a later format
            return
        columns = ", ".join(TABLES[table])
        sql = f"SELECT {columns} FROM {table} {where}"  # noqa: S608 (our own names)
        yield from self.query(sql, parameters)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of any SELECT, for questions that join tables."""
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise RunFileError(
                f"{self.directory}/run.sqlite: {error}; the file is damaged, 'sqlite3 run.sqlite .recover' may save it"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
