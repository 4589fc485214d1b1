"""Rows and events from the other processes of a run to its conductor, as JSON lines.

The generator, the sink, the collector and the reference chain are processes
of their own. Each reads its settings as one JSON line from standard input,
writes `{"table": ..., "rows": [...]}` and `{"event": ..., ...}` lines to
standard output, takes further commands from standard input, and stops when
that reaches its end: a conductor that died, however, closes it, so nothing
is left running behind it. The same lines travel over ssh for another host.
"""

import json
import os
import resource
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Outlet", "parse_line", "raise_file_limit", "read_settings"]


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

    def _write(self, value: dict[str, Any]) -> None:
        data = memoryview(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]


def parse_line(line: bytes | str) -> dict[str, Any]:
    """Return the object on one line.

    Raises:
        ValueError: not a JSON object; the process at the other end is not ours.
    """
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"got {line[:80]!r}, want a JSON object")
    return value


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
