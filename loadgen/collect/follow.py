"""Follow a log file while it is written, rotated or truncated, without losing or tearing a line.

Follows by inode: after a rename the old file is read on for a while, because
its writer keeps it open until told to reopen, and lines from it come before
those of the new file. A file that shrinks (copytruncate) is read again from
its start; what was written between our last look and the truncation is lost
to everybody. A line without its newline waits for the rest of it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["LogFollower"]

_CHUNK = 1 << 18
_LONGEST_LINE = 1 << 20
_KEEP_ROTATED_S = 60.0
"""How long a renamed file is still read; `postfix logrotate` and logrotate both signal within seconds."""


class LogFollower:
    """One log file, from its end at the first look; from its start when it appears later."""

    def __init__(self, path: Path, place: Sequence[int] | None = None) -> None:
        """Prepare; *place*: device, inode and offset up to which an earlier one had read; None: from the end."""
        self.path = path
        self._begin_at = tuple(place) if place is not None else None
        self._parts: list[_Part] = []
        self._looked = False

    @property
    def place(self) -> tuple[int, int, int] | None:
        """Device, inode and offset up to which the present file has been read in whole lines; None: there is none."""
        return self._parts[-1].place if self._parts else None

    @property
    def found(self) -> bool:
        """Whether there has been a file to follow."""
        return bool(self._parts)

    def poll(self, at: float) -> list[str]:
        """Return the lines completed since the last call, oldest first.

        Args:
            at: Now, in seconds on any clock that does not jump.

        Raises:
            OSError: the file is there and cannot be read.
        """
        first, self._looked = not self._looked, True
        self._open_current(at, at_end=first)
        lines = [line for part in self._parts for line in part.read()]
        for part in [p for p in self._parts if p.replaced_at is not None and at - p.replaced_at > _KEEP_ROTATED_S]:
            lines += part.close()
            self._parts.remove(part)
        return lines

    def close(self) -> None:
        """Close what is open."""
        for part in self._parts:
            part.close()
        self._parts.clear()

    def _open_current(self, at: float, *, at_end: bool) -> None:
        """Open the file that has the name now, unless it is open already."""
        try:
            state = os.stat(self.path)  # noqa: PTH116 (four times a second)
            identity = (state.st_dev, state.st_ino)
            if self._parts and self._parts[-1].identity == identity:
                return
            part = _Part(self.path, at_end=at_end and self._begin_at is None)
            if at_end and self._begin_at is not None:
                part.skip_to(self._begin_at)
        except FileNotFoundError:
            return  # not there yet, or just renamed
        for old in self._parts:
            if old.replaced_at is None:
                old.replaced_at = at
        self._parts.append(part)


class _Part:
    """One file that has, or had, the name."""

    def __init__(self, path: Path, *, at_end: bool) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        state = os.fstat(self._descriptor)
        self.identity = (state.st_dev, state.st_ino)
        self.replaced_at: float | None = None
        self._offset = state.st_size if at_end else 0
        self._torn = b""

    @property
    def place(self) -> tuple[int, int, int]:
        """Device, inode and offset of the first line that is not complete yet."""
        return *self.identity, self._offset - len(self._torn)

    def skip_to(self, place: tuple[int, ...]) -> None:
        """Go on where an earlier reader was, if this is the file it was in; else from the start of what is new."""
        if place[:2] == self.identity:
            self._offset = place[2]

    def read(self) -> list[str]:
        """Return the lines that are complete now."""
        if os.fstat(self._descriptor).st_size < self._offset:
            self._offset, self._torn = 0, b""
        lines: list[str] = []
        while chunk := os.pread(self._descriptor, _CHUNK, self._offset):
            self._offset += len(chunk)
            *whole, self._torn = (self._torn + chunk).split(b"\n")
            lines += [_text(line) for line in whole]
            if len(self._torn) > _LONGEST_LINE:
                self._torn = b""
        return lines

    def close(self) -> list[str]:
        """Close the file and return its last line, if it never got its newline."""
        os.close(self._descriptor)
        return [_text(self._torn)] if self._torn else []


def _text(line: bytes) -> str:
    # a writer without O_APPEND leaves a hole of NULs where the truncated text was
    return line.strip(b"\0\r").decode("utf-8", "replace")
