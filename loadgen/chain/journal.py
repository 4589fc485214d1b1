"""What a live host looked like before we changed it, on disk before the change, so that every end can put it back.

One file per run below `JOURNALS`. For each configuration file it holds the
original and the digest of everything we are about to write there, both
synced to the disk first: whatever is found later is the original, ours, or
somebody else's, and somebody else's is never overwritten unasked. Written for
the case that the process is killed at any point in between.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from loadgen.errors import ChainError

__all__ = ["JOURNALS", "Journal", "forget_below", "list_journals"]

JOURNALS = Path("/var/lib/loadgen/journal")


@dataclass
class _Kept:
    """One file as it was."""

    content: bytes | None
    """None: there was no such file."""
    mode: int
    owner: int
    group: int
    ours: list[str]
    """Digests of what we have written there."""


class Journal:
    """Of one run that changes a host."""

    def __init__(self, path: Path, *, config_directory: Path, amavis_pid_file: Path) -> None:
        """Describe a journal at *path*; nothing is written before `change` is called."""
        self.path = path
        self.config_directory = config_directory
        """Of the Postfix instance that is to read its configuration again after a restoration."""
        self.amavis_pid_file = amavis_pid_file
        """Of the amavisd that is to do the same."""
        self.owner = os.getpid()
        self.owner_started_at = psutil.Process().create_time()
        self._kept: dict[Path, _Kept] = {}

    @classmethod
    def begin(cls, *, config_directory: Path, amavis_pid_file: Path, directory: Path | None = None) -> Self:
        """Return a new, empty journal of this process below *directory*."""
        directory = directory or JOURNALS
        try:
            directory.mkdir(parents=True, exist_ok=True)  # anybody may see that there is one, not what is in it
        except OSError as error:
            raise ChainError(f"{directory}: {error.strerror}; changing a host needs root") from error
        path = directory / f"{os.getpid()}-{time.time_ns()}.json"
        return cls(path, config_directory=config_directory, amavis_pid_file=amavis_pid_file)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the journal that an earlier run left at *path*.

        Raises:
            ChainError: it cannot be read.
        """
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            journal = cls(
                path, config_directory=Path(data["config_directory"]), amavis_pid_file=Path(data["amavis_pid_file"])
            )
            journal.owner, journal.owner_started_at = data["owner"], data["owner_started_at"]
            for name, kept in data["files"].items():
                content = None if kept["content"] is None else base64.b64decode(kept["content"])
                journal._kept[Path(name)] = _Kept(content, kept["mode"], kept["owner"], kept["group"], kept["ours"])
        except PermissionError as error:
            raise ChainError(
                f"{path}: a run with --apply changed settings of this host; only root can read how they were"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ChainError(
                f"{path}: this journal cannot be read: {error}; compare the settings of the host by hand"
            ) from error
        return journal

    @property
    def is_abandoned(self) -> bool:
        """Whether the process that wrote it is gone."""
        try:
            return abs(psutil.Process(self.owner).create_time() - self.owner_started_at) >= 1.0
        except psutil.NoSuchProcess:
            return True

    @property
    def host_is_gone(self) -> bool:
        """Whether the configuration that was changed is no longer there, as a whole: nobody to put it back for."""
        return not self.config_directory.is_dir()

    @property
    def files(self) -> list[Path]:
        """The files that were changed."""
        return list(self._kept)

    def original(self, file: Path) -> bytes | None:
        """Return the content of *file* before any change of this run; None: there was no such file."""
        kept = self._kept.get(file)
        if kept is not None:
            return kept.content
        return file.read_bytes() if file.exists() else None

    def change(self, file: Path, content: bytes) -> None:
        """Replace the content of *file*, after the journal on the disk says how it was.

        Raises:
            ChainError: somebody else has changed the file since.
        """
        if file not in self._kept:
            self._kept[file] = _keep(file)
        kept = self._kept[file]
        present = file.read_bytes() if file.exists() else None
        if not _is_known(kept, present):
            raise ChainError(f"{file}: somebody else has changed it since this run began; nothing more is changed")
        if present == content:
            return
        kept.ours.append(_digest(content))
        self._write()
        _replace(file, content, kept)

    def restore(self, *, force: bool = False) -> list[str]:
        """Put every file back as it was and return a line for each that could not be.

        The journal stays until `remove`. *force*: also where somebody else has changed the file since; their
        version is kept beside it.
        """
        problems = []
        for file, kept in list(self._kept.items()):
            present = file.read_bytes() if file.exists() else None
            if not _is_known(kept, present):
                if not force:
                    what = "removed" if present is None else "changed"
                    problems.append(
                        f"{file}: {what} by somebody else since; not touched. Put back what is wanted by hand, or "
                        "'loadgen restore --force' puts the original there and keeps theirs beside it"
                    )
                    continue
                if present is not None:
                    _replace(file.with_name(f"{file.name}.loadgen-{time.time_ns()}"), present, kept)
            if kept.content is None:
                file.unlink(missing_ok=True)
                _sync(file.parent)
            elif present != kept.content:
                _replace(file, kept.content, kept)
        return problems

    def remove(self) -> None:
        """Forget the journal: everything is as it was."""
        self.path.unlink(missing_ok=True)
        _sync(self.path.parent)

    def set_aside(self) -> Path:
        """Keep what it holds where no run looks for it, and return the place."""
        place = self.path.with_suffix(".gone")
        self.path.replace(place)
        _sync(place.parent)
        return place

    def _write(self) -> None:
        data = {
            "owner": self.owner,
            "owner_started_at": self.owner_started_at,
            "config_directory": str(self.config_directory),
            "amavis_pid_file": str(self.amavis_pid_file),
            "files": {
                str(file): {
                    "content": None if kept.content is None else base64.b64encode(kept.content).decode(),
                    "mode": kept.mode, "owner": kept.owner, "group": kept.group, "ours": kept.ours,
                }
                for file, kept in self._kept.items()
            },
        }  # fmt: skip
        _replace(self.path, json.dumps(data).encode(), _Kept(None, 0o600, os.geteuid(), os.getegid(), []))


def list_journals(directory: Path | None = None) -> Sequence[Journal]:
    """Return the journals whose owners are gone: what they changed was not put back.

    Raises:
        ChainError: there is one that cannot be read.
    """
    directory = directory or JOURNALS
    if not directory.is_dir():
        return []
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".json")
    except PermissionError as error:
        raise ChainError(f"{directory}: only root can see whether an earlier run left settings changed") from error
    return [journal for journal in map(Journal.load, paths) if journal.is_abandoned]


def forget_below(place: Path, directory: Path | None = None) -> None:
    """Remove the abandoned journals of a configuration below *place*, which is about to be removed itself."""
    for path in (directory or JOURNALS).glob("*.json"):  # what is not there has none
        with suppress(ChainError):  # one that cannot be read is nobody's to remove
            journal = Journal.load(path)
            if journal.is_abandoned and journal.config_directory.is_relative_to(place):
                journal.remove()


def _keep(file: Path) -> _Kept:
    if not file.exists():
        return _Kept(None, 0o644, os.geteuid(), os.getegid(), [])
    state = file.stat()
    return _Kept(file.read_bytes(), state.st_mode & 0o7777, state.st_uid, state.st_gid, [])


def _is_known(kept: _Kept, present: bytes | None) -> bool:
    """Return whether what is there now is the original or ours; a file of ours that is gone is no loss."""
    if present is None:
        return kept.content is None
    return present == kept.content or _digest(present) in kept.ours


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(file: Path, content: bytes, like: _Kept) -> None:
    """Replace *file* at once, on the disk before it is in its place."""
    new = file.with_name(f".{file.name}.loadgen-new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchown(descriptor, like.owner, like.group)
        os.fchmod(descriptor, like.mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(file)
    _sync(file.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
