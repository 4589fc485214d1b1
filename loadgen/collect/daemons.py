"""The two daemons of a chain as families of processes: Postfix's master and amavisd, with their children.

Scoped by the parent in the daemon's own pid file, never by name: several
instances may run on one host. A family is looked at once per
instant, however many samplers ask.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from loadgen.collect.procfs import (
    ProcessStat,
    read_children,
    read_command_line,
    read_file,
    read_process,
)
from loadgen.errors import CollectorError

__all__ = ["AmavisDaemon", "Daemon", "Family", "PostfixDaemon", "service_name"]

Remark = Callable[[str, str, str], None]
"""Takes the source, the kind and the text of a remark."""

_FORGET_AFTER_S = 2.0
"""Between two looks this far apart a process id may have got another process."""


class Family(NamedTuple):
    """A master process and its children at one moment."""

    master: ProcessStat
    """Read before the children: one that ends in between is missed, never counted twice."""
    children: list[int]


class Daemon:
    """One master process, found by its pid file, and its children."""

    source = "daemon"
    marker = ""
    """Text that the master's command line contains; a stale pid file may name somebody else's process."""

    def __init__(self, pid_file: Path, proc: str, remark: Remark) -> None:
        self._pid_file = str(pid_file)
        self._proc = proc
        self._remark = remark
        self._identity: tuple[int, int] | None = None
        self._looked_at: float | None = None
        self._found: Family | CollectorError = CollectorError(f"{pid_file}: not looked at yet")

    def look(self, at: float) -> Family:
        """Return the family as it was found at the instant *at*; the same for everybody who asks.

        Raises:
            CollectorError: the daemon does not run, or its pid file cannot be read.
        """
        if at != self._looked_at:
            self._looked_at = at
            try:
                self._found = self._find()
            except CollectorError as error:
                self._found = error
        if isinstance(self._found, CollectorError):
            raise self._found
        return self._found

    def _find(self) -> Family:
        try:
            pid = int(read_file(self._pid_file).split()[0])
        except OSError as error:
            raise CollectorError(f"{self._pid_file}: {error.strerror}") from error
        except (ValueError, IndexError) as error:
            raise CollectorError(f"{self._pid_file}: no process id in it") from error
        master = read_process(self._proc, pid)
        if master is None:
            raise CollectorError(f"{self._pid_file}: process {pid} does not run")
        if (identity := (pid, master.started)) != self._identity:
            if not any(self.marker in word for word in read_command_line(self._proc, pid)):
                raise CollectorError(f"{self._pid_file}: process {pid} is not {self.source}")
            if self._identity is not None:
                self._remark(self.source, "restart", f"process {pid} has taken the place of {self._identity[0]}")
            self._identity = identity
        return Family(master, read_children(self._proc, pid))


class PostfixDaemon(Daemon):
    """One Postfix instance."""

    source = "postfix"
    marker = "master"

    def __init__(self, queue_directory: Path, proc: str, remark: Remark) -> None:
        super().__init__(queue_directory / "pid" / "master.pid", proc, remark)
        self._names: dict[int, str] = {}
        self._named_at = 0.0

    def services(self, at: float) -> dict[str, list[int]]:
        """Return the process ids of each service that has any.

        What a process serves is asked once, as long as it is there at every look.

        Raises:
            CollectorError: as for `look`.
        """
        children = self.look(at).children
        if at - self._named_at > _FORGET_AFTER_S:
            self._names.clear()
        self._named_at = at
        names = {pid: self._names.get(pid) or service_name(read_command_line(self._proc, pid)) for pid in children}
        self._names = {pid: name for pid, name in names.items() if name is not None}
        found: dict[str, list[int]] = {}
        for pid, name in self._names.items():
            found.setdefault(name, []).append(pid)
        return found


class AmavisDaemon(Daemon):
    """One amavisd."""

    source = "amavisd"
    marker = "amavis"

    def titles(self, at: float) -> list[str]:
        """Return the titles of its children, such as "/usr/sbin/amavisd (ch4-avail)".

        Raises:
            CollectorError: as for `look`.
        """
        lines = (read_command_line(self._proc, pid) for pid in self.look(at).children)
        return [line[0] for line in lines if line]


def service_name(arguments: list[str]) -> str | None:
    """Return the master.cf service that a process with these arguments serves; None when it is not (yet) one.

    master(8) passes `-n service` only where the service is not named like its
    command, behind `-l` or `-z` at most.
    """
    if not arguments:
        return None
    command = arguments[0].rpartition("/")[2]
    for flag, value in pairwise(arguments[1:]):
        if flag == "-n":
            return value
        if flag not in ("-l", "-z"):
            break
    # a child that has forked but not yet become its command
    return None if command == "master" else command
