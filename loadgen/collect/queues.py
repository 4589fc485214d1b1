"""Queue depth by listing Postfix's queue directories, and the room left on their file system.

Listing opens no queue file and costs microseconds where `postqueue` forks and
reads every message. The directories are listed in the order in
which a message moves through them, so one on its way may be counted twice but
is never missed. One that has not changed is not listed again, and where a very long queue does change
all the time it is listed less often, so that looking never takes more than a sixtieth of a core.
Needs root or Postfix's own user.
"""

import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadgen.collect.sampler import Sampler, Target
from loadgen.errors import CollectorError

__all__ = ["QUEUES", "list_queue_ids", "make_samplers"]

QUEUES = ("incoming", "active", "deferred", "hold", "maildrop")
"""In the order of a message's way, as far as it has one."""

_HASHES = frozenset("0123456789ABCDEF")
"""Names of the directories that a queue is hashed into (hash_queue_names)."""
_QUEUE_ID = re.compile(r"[0-9A-Za-z]{6,}")
_COARSE_NS = 50_000_000
_MOST_CPU_DIVISOR = 60
"""One part in so many of a core is what listing may take: the kernel alone needs 0.3 us a name."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a directory held at its last change."""

    changed_ns: int
    files: int
    hashed: tuple[str, ...]
    """Directories that it is hashed into."""


class QueueDepth:
    """Messages in each queue directory."""

    reading = "queue depth"

    def __init__(self, queue_directory: Path) -> None:
        self._directory = str(queue_directory)
        self._listings: dict[str, _Listing] = {}
        self._next_at = -math.inf

    def sample(self, at: float) -> dict[str, float]:
        """Return the number of messages in each queue; nothing where it would cost too much to look again so soon."""
        if at < self._next_at:
            return {}
        before = time.thread_time()
        found = {f"queue.{queue}": float(self._count(f"{self._directory}/{queue}")) for queue in QUEUES}
        self._next_at = at + _MOST_CPU_DIVISOR * (time.thread_time() - before)
        return found

    def _count(self, directory: str) -> int:
        """Return the number of queue files in *directory* and in the directories it may be hashed into."""
        try:
            changed_ns, now_ns = os.stat(directory).st_mtime_ns, time.time_ns()  # noqa: PTH116 (four times a second)
            known = self._listings.get(directory)
            if known is None or known.changed_ns != changed_ns:
                known = self._listings[directory] = _list(directory, changed_ns)
                # the clock of the file system is coarse: another change may have the same time
                if now_ns - changed_ns < _COARSE_NS:
                    del self._listings[directory]
        except OSError as error:
            hint = "; run as root or as Postfix's own user" if isinstance(error, PermissionError) else ""
            raise CollectorError(f"{directory}: {error.strerror}{hint}") from error
        return known.files + sum(self._count(f"{directory}/{name}") for name in known.hashed)


class QueueSpace:
    """Room on the queue's file system."""

    reading = "queue.free_bytes"

    def __init__(self, queue_directory: Path) -> None:
        self._directory = str(queue_directory)

    def sample(self, at: float) -> dict[str, float]:  # noqa: ARG002 (a sampler)
        """Return the bytes that are free to everybody."""
        state = os.statvfs(self._directory)
        return {"queue.free_bytes": float(state.f_bavail * state.f_frsize)}


def list_queue_ids(queue_directory: Path) -> list[tuple[str, str]]:
    """Return queue and queue id of every message there is; one that moves meanwhile is named once.

    Raises:
        CollectorError: no right to read the queue, or no queue there.
    """
    found: dict[str, str] = {}
    for queue in QUEUES:
        # keep the later queue: it is where the message is now
        found.update((queue_id, queue) for queue_id in _walk(f"{queue_directory}/{queue}"))
    return [(queue, queue_id) for queue_id, queue in found.items()]


def make_samplers(target: Target) -> list[Sampler]:
    """Return the samplers of a chain whose queue is on this host."""
    directory = target.queue_directory
    return [QueueDepth(directory), QueueSpace(directory)] if directory is not None else []


def _list(directory: str, changed_ns: int) -> _Listing:
    """Return what is in *directory*; nothing is looked at but the names as a whole, a hundred thousand of them in a moment."""
    names = os.listdir(directory)  # noqa: PTH208 (pathlib would make an object of each)
    hashed = _HASHES.intersection(names)
    return _Listing(changed_ns, sum(map(str.isalnum, names)) - len(hashed), tuple(sorted(hashed)))


def _walk(directory: str) -> Iterator[str]:
    """Yield the names of the queue files in *directory* and in the directories it may be hashed into."""
    try:
        entries = os.scandir(directory)
    except OSError as error:
        hint = "; run as root or as Postfix's own user" if isinstance(error, PermissionError) else ""
        raise CollectorError(f"{directory}: {error.strerror}{hint}") from error
    with entries:
        for entry in entries:
            if len(entry.name) == 1 and entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif _QUEUE_ID.fullmatch(entry.name):
                yield entry.name
