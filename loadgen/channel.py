"""Rows and events from the other processes of a run to its conductor, as JSON lines.

The generator, the sink, the collector and the reference chain are processes
of their own. Each reads its settings as one JSON line from standard input,
writes `{"table": ..., "rows": [...]}` and `{"event": ..., ...}` lines to
standard output, takes further commands from standard input, and stops when
that reaches its end: a conductor that died, however, closes it, so nothing
is left running behind it. The same lines travel over ssh for another host.
"""

import os
import resource
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from loadgen.errors import UsageError

__all__ = ["Outlet", "check_file_limit", "parse_line", "raise_file_limit", "read_settings"]

_OTHER_FILES = 200
"""Open files of a process besides its sessions, with room."""


class Outlet:
    """Writes lines to a file descriptor, whole and in order; for one thread."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor

    def write_rows(self, table: str, rows: Sequence[Sequence[Any]] | Iterable[Sequence[Any]]) -> None:
        """Send rows of one table, in the column order of `records.TABLES`."""
        self._write({"table": table, "rows": list(rows)})

    def write_event(self, event: str, **details: Any) -> None:
        """Send something the conductor should act on."""
        self._write({"event": event, **details})

    def pass_on(self, line: bytes) -> None:
        """Send a line of another process as it is."""
        self._write_whole(line + b"\n")

    def _write(self, value: dict[str, Any]) -> None:
        self._write_whole(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))

    def _write_whole(self, line: bytes) -> None:
        data = memoryview(line)
        while data:
            data = data[os.write(self._descriptor, data) :]


def parse_line(line: bytes | str) -> dict[str, Any]:
    """Return the object on one line.

    Raises:
        ValueError: not a JSON object; the process at the other end is not ours.
    """
    value = orjson.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"got {line[:80]!r}, want a JSON object")
    return value


def check_file_limit(sessions: int) -> None:
    """Make sure that a process may hold that many sessions.

    Raises:
        UsageError: it may not; says what to raise, and how.
    """
    needed = sessions + _OTHER_FILES
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < needed:
        raise UsageError(
            f"{sessions} sessions need {needed} open files, and a process may have {most} here; raise it "
            f"with 'ulimit -n {needed}' as root in this shell, or LimitNOFILE={needed} in a systemd unit"
        )


def raise_file_limit() -> None:
    """Allow this process as many open files as it may have: every session is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def read_settings(descriptor: int = 0) -> dict[str, Any]:
    """Return the settings line of this process, leaving the commands that follow it unread.

    Raises:
        SystemExit: there is none; such a process is started by `loadgen run`, not by hand.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise SystemExit("no settings on standard input; 'loadgen run' starts this process")
        line += byte
    return parse_line(bytes(line))
