"""Plain reads of `/proc`, as cheap as Python gets: one open, one read, one close per file.

A process may end between any two reads; then a reading is None or leaves it
out. Every function takes the root of the tree, so that tests bring their own.
"""

import os
from typing import NamedTuple

from loadgen.errors import CollectorError

__all__ = [
    "ProcessStat",
    "read_children",
    "read_command_line",
    "read_file",
    "read_process",
    "read_pss_bytes",
]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_CHUNK = 1 << 16
_NEARLY_A_PAGE = 2048


class ProcessStat(NamedTuple):
    """What one process had used at one moment."""

    pid: int
    parent: int
    started: int
    """Clock ticks from boot to its start; with *pid* its identity, since numbers are used again."""
    own_cpu_s: float
    reaped_cpu_s: float
    """Of its children that have ended and been waited for."""

    @property
    def cpu_s(self) -> float:
        """Everything that is accounted to it."""
        return self.own_cpu_s + self.reaped_cpu_s


def read_file(path: str) -> bytes:
    """Return the content of a file that may be generated while it is read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = chunk = os.read(descriptor, _CHUNK)
        # /proc hands out whole records, a page or so at a time; what leaves that much room was all
        while len(chunk) > _NEARLY_A_PAGE:
            chunk = os.read(descriptor, _CHUNK)
            data += chunk
        return data
    finally:
        os.close(descriptor)


def read_process(root: str, pid: int) -> ProcessStat | None:
    """Return the accounting of one process, or None when it is gone."""
    try:
        data = read_file(f"{root}/{pid}/stat")
        # the name, in parentheses, may hold anything, parentheses and spaces included
        fields = data[data.rindex(b")") + 2 :].split()
        return ProcessStat(
            pid,
            int(fields[1]),
            int(fields[19]),
            (int(fields[11]) + int(fields[12])) * _TICK_S,
            (int(fields[13]) + int(fields[14])) * _TICK_S,
        )
    except (OSError, ValueError, IndexError):
        return None


def read_children(root: str, pid: int) -> list[int]:
    """Return the processes whose parent is *pid*.

    Kernels built without the `children` file make it necessary to look at
    every process there is.
    """
    try:
        return [int(word) for word in read_file(f"{root}/{pid}/task/{pid}/children").split()]
    except OSError:
        pids = [int(name) for name in os.listdir(root) if name.isdigit()]  # noqa: PTH208 (four times a second)
        return [p.pid for p in (read_process(root, pid) for pid in pids) if p is not None and p.parent == pid]


def read_command_line(root: str, pid: int) -> list[str]:
    """Return the arguments of one process; empty when it is gone or about to be."""
    try:
        data = read_file(f"{root}/{pid}/cmdline")
    except OSError:
        return []
    return data.rstrip(b"\0").decode("utf-8", "replace").split("\0") if data.strip(b"\0") else []


def read_pss_bytes(root: str, pid: int) -> int | None:
    """Return the memory of one process, shared pages divided among those who share them; None when it is gone.

    Raises:
        CollectorError: another user's process, or a kernel older than 4.14.
    """
    try:
        data = read_file(f"{root}/{pid}/smaps_rollup")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError as error:
        raise CollectorError(f"{root}/{pid}/smaps_rollup: {error.strerror}; run as root") from error
    for line in data.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None
