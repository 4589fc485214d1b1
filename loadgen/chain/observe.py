"""Wait until a change of settings can be seen in the processes: the new ones are there, the old ones are gone.

A command that succeeded proves nothing (`postfix reload` with a relative
directory fails and leaves the old settings in force); only processes do.
Postfix starts its own when there is mail, so of them only the old ones are
looked for: those of the feed, and the queue manager, which holds the
destination limits.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from loadgen.collect.daemons import AmavisDaemon, PostfixDaemon
from loadgen.collect.processes import child_state
from loadgen.collect.procfs import read_command_line, read_process
from loadgen.collect.queues import list_queue_ids
from loadgen.errors import ChainError, CollectorError

__all__ = ["Observer", "Sight", "check_nothing_queued", "list_queued"]

_LIMIT_S = 30.0
_TURN_S = 0.02
_PROC = "/proc"

Identity = tuple[int, int]
"""Process id and start, since numbers are used again."""


@dataclass(frozen=True)
class Sight:
    """The processes of feed and filter at one moment."""

    filter_: dict[Identity, str]
    """amavisd's children, with their titles."""
    feed: frozenset[Identity]
    """Processes of the feed's service and the queue manager."""


class Observer:
    """Looks at one Postfix and one amavisd."""

    def __init__(self, queue_directory: Path, feed: str, amavis_pid_file: Path) -> None:
        """Observe the service *feed* of the instance at *queue_directory*, and the amavisd with this pid file."""
        self._postfix = PostfixDaemon(queue_directory, _PROC, self._take_remark)
        self._amavis = AmavisDaemon(amavis_pid_file, _PROC, self._take_remark)
        self._feed = feed
        self._restart = ""

    def look(self) -> Sight:
        """Return the processes there are now.

        Raises:
            CollectorError: one of the daemons does not run.
        """
        now = time.monotonic()
        children = {}
        for pid in self._amavis.look(now).children:
            process, line = read_process(_PROC, pid), read_command_line(_PROC, pid)
            if process is not None:
                children[pid, process.started] = line[0] if line else ""
        services = self._postfix.services(now)
        feeding = [read_process(_PROC, pid) for name in (self._feed, "qmgr") for pid in services.get(name, ())]
        return Sight(children, frozenset((p.pid, p.started) for p in feeding if p is not None))

    async def wait_until_in_force(
        self, before: Sight, servers: int, *, at_rest: bool = True, limit_s: float = _LIMIT_S
    ) -> None:
        """Return once the filter has *servers* processes, all of them new, and of the feed no process is an old one.

        Args:
            before: What was seen before the change.
            servers: Filter processes wanted.
            at_rest: They must also wait for work, as they do when there is none.
            limit_s: Longest wait.

        Raises:
            ChainError: it did not come about in time, or amavisd was started anew; says what was seen.
        """
        deadline = time.monotonic() + limit_s
        while True:
            try:
                seen = self.look()
            except CollectorError as error:  # for a moment, while a daemon replaces itself
                problem = str(error)
            else:
                problem = _compare(before, seen, servers, at_rest)
            if self._restart:
                raise ChainError(f"not a reload but a restart: {self._restart}")
            if not problem:
                return
            if time.monotonic() > deadline:
                raise ChainError(f"the change is not in force after {limit_s:g} s: {problem}")
            await asyncio.sleep(_TURN_S)

    def _take_remark(self, source: str, kind: str, text: str) -> None:  # noqa: ARG002 (only restarts are remarked on)
        self._restart = f"{source}: {text}"


def _compare(before: Sight, seen: Sight, servers: int, at_rest: bool) -> str:
    """Return what is not yet as it should be, for people; empty when all is."""
    old = before.filter_.keys() & seen.filter_.keys()
    waiting = sum(child_state(title) == "free" for title in seen.filter_.values())
    old_feed = before.feed & seen.feed
    if len(seen.filter_) == servers and not old and not old_feed and (waiting == servers or not at_rest):
        return ""
    return (
        f"got {len(seen.filter_)} filter processes ({len(old)} of before, {waiting} waiting for work) and "
        f"{len(old_feed)} feed or queue manager processes of before, want {servers} new ones and 0"
    )


def list_queued(queue_directory: Path) -> dict[str, int]:
    """Return the queues that hold mail, with how many messages; mail that an administrator put on hold is left out.

    Raises:
        ChainError: no right to look, or no queue there.
    """
    try:
        queues = [queue for queue, _ in list_queue_ids(queue_directory) if queue != "hold"]
    except CollectorError as error:
        raise ChainError(str(error)) from error
    return {queue: queues.count(queue) for queue in dict.fromkeys(queues)}


def check_nothing_queued(queue_directory: Path) -> None:
    """Refuse to go on while there is mail that a changed chain would deliver.

    Raises:
        ChainError: it says what is where.
    """
    if queued := list_queued(queue_directory):
        found = ", ".join(f"{count} in {queue}" for queue, count in queued.items())
        raise ChainError(
            f"{queue_directory}: mail is queued ({found}), and settings are changed only while none is; let it drain first"
        )
