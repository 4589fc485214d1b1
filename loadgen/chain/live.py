"""Change the process counts of a chain that runs already, and put everything back.

Every file is journalled before it is changed. What Postfix's files are to say
is worked out by postconf on a copy, so that their whole new content is known,
and noted, before it is put in place. A filter that is told to read a
configuration it cannot read ends, so amavisd's is tried first.
"""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from loadgen.chain import amavis, postfix
from loadgen.chain.feed import FeedState, FeedText, plan_feed
from loadgen.chain.journal import Journal
from loadgen.chain.observe import Observer, Sight, check_nothing_queued, list_queued
from loadgen.chain.spec import Chain
from loadgen.chain.tuning import Setting, chain_under
from loadgen.errors import ChainError, CollectorError

__all__ = ["LiveTuner", "put_back"]

_OWN_FILE = "99-loadgen"
"""Read last of Debian's conf.d, whose names are two digits and a dash."""
_EMPTY_LIMIT_S = 60.0
_EMPTY_TURN_S = 0.5
_POSTFIX_FILES = ("main.cf", "master.cf")


class LiveTuner:
    """The `Tuner` of a chain that was there before us."""

    def __init__(self, chain: Chain, journals: Path | None = None) -> None:
        """Look at the chain; nothing is changed or written before `apply`.

        Args:
            chain: With everything that is needed to change it.
            journals: Where the journal is kept, instead of `journal.JOURNALS`.

        Raises:
            ChainError: something is not known of it, or cannot be read.
        """
        parts, daemon = chain.postfix, chain.amavis
        etc = parts.config_directory if parts is not None else None
        queue = parts.queue_directory if parts is not None else None
        pid_file = daemon.pid_file if daemon is not None else None
        configuration = daemon.configuration if daemon is not None else None
        missing = [
            key for key, value in (
                ("postfix.config_directory", etc), ("postfix.queue_directory", queue), ("amavis.pid_file", pid_file),
                ("amavis.configuration", configuration),
            ) if value is None
        ]  # fmt: skip
        if missing:
            raise ChainError(f"{chain.name}: --apply needs {', '.join(missing)} in the chain file")
        assert parts is not None and etc is not None and queue is not None  # noqa: S101, PT018 (just checked)
        assert pid_file is not None and configuration is not None  # noqa: S101, PT018 (just checked)
        self._chain = chain
        self._etc, self._queue, self._feed = etc.absolute(), queue, parts.feed
        self._pid_file = pid_file
        self._is_directory = configuration.is_dir()
        self._file = configuration / _OWN_FILE if self._is_directory else configuration
        self._configuration = None if self._is_directory else configuration
        self._observer = Observer(queue, parts.feed, pid_file)
        self._found = self._read(self._etc)
        self._journals = journals
        self._journal: Journal | None = None
        servers = len(self._look().filter_)
        self.feed_command = self._found.command
        self.present = Setting(self._found.width or servers, servers)

    async def apply(self, setting: Setting) -> Chain:
        """Bring *setting* into force and return the chain as it then is; see `Tuner`."""
        await self._wait_until_empty()
        if self._journal is None:
            self._journal = Journal.begin(
                config_directory=self._etc, amavis_pid_file=self._pid_file, directory=self._journals
            )
        before = self._look()
        wanted = plan_feed(
            self._found, feed_processes=setting.feed_processes, filter_servers=setting.filter_servers,
            options=setting.feed_options,
        )  # fmt: skip
        texts = await asyncio.to_thread(self._work_out, wanted)
        await asyncio.to_thread(self._change_amavisd, {**dict(setting.amavis), "max_servers": setting.filter_servers})
        for name, content in texts.items():
            self._journal.change(self._etc / name, content)
        await self._reload(before, setting.filter_servers)
        now = await asyncio.to_thread(self._read, self._etc)
        if now.text != wanted:
            raise ChainError(f"{self._etc}: postconf shows {now.text}, want {wanted}; has somebody else changed it?")
        return chain_under(self._chain, setting, now)

    async def restore(self) -> None:
        """Put every file back as it was and let the daemons read them; also while mail is queued.

        Raises:
            ChainError: something could not be put back; the journal stays.
        """
        if self._journal is None:
            return
        journal, self._journal = self._journal, None
        before = self._look()
        problems = await asyncio.to_thread(put_back, journal)
        if problems:
            raise ChainError("\n".join(problems))
        await self._observer.wait_until_in_force(
            before, self.present.filter_servers, at_rest=not list_queued(self._queue)
        )

    def _work_out(self, wanted: FeedText) -> dict[str, bytes]:
        """Return what Postfix's two files must hold, by postconf itself on a copy of them."""
        with tempfile.TemporaryDirectory(prefix="loadgen-postfix-") as copy:
            for name in _POSTFIX_FILES:
                shutil.copy(self._etc / name, copy)
            present = postfix.read_feed(Path(copy), self._feed, self._chain.reinjection)
            postfix.write_feed(Path(copy), wanted, present.text)
            return {name: (Path(copy) / name).read_bytes() for name in _POSTFIX_FILES}

    def _change_amavisd(self, settings: dict[str, int | str]) -> None:
        journal = self._journal
        assert journal is not None  # noqa: S101 (begun in apply)
        present = self._file.read_bytes() if self._file.exists() else b""
        text = amavis.render_overrides((journal.original(self._file) or b"").decode(), settings)
        journal.change(self._file, text.encode())
        problem = amavis.find_problem(self._configuration)
        if problem:
            journal.change(self._file, present)
            raise ChainError(f"{self._file}: amavisd does not accept {', '.join(sorted(settings))}: {problem}")

    async def _wait_until_empty(self) -> None:
        """Return when no mail is queued; a live host has mail of its own.

        Raises:
            ChainError: the queue did not become empty in time.
        """
        deadline = time.monotonic() + _EMPTY_LIMIT_S
        while list_queued(self._queue):
            if time.monotonic() > deadline:
                check_nothing_queued(self._queue)
                return
            await asyncio.sleep(_EMPTY_TURN_S)

    async def _reload(self, before: Sight, servers: int) -> None:
        await asyncio.to_thread(postfix.reload_postfix, self._etc)
        amavis.reload_amavisd(self._pid_file)
        await self._observer.wait_until_in_force(before, servers, at_rest=not list_queued(self._queue))

    def _read(self, etc: Path) -> FeedState:
        return postfix.read_feed(etc, self._feed, self._chain.reinjection)

    def _look(self) -> Sight:
        try:
            return self._observer.look()
        except CollectorError as error:
            raise ChainError(f"{self._chain.name}: its processes cannot be seen: {error}") from error


def put_back(journal: Journal, *, force: bool = False) -> list[str]:
    """Put back what *journal* holds, let both daemons read it, and return what could not be done.

    The journal stays until the daemons have been told, so that a kill in between is made good by the next attempt.
    """
    problems = journal.restore(force=force)
    try:
        postfix.reload_postfix(journal.config_directory)
        amavis.reload_amavisd(journal.amavis_pid_file)
    except ChainError as error:
        problems.append(f"{error}; start it, and run 'loadgen restore' again")
    if not problems:
        journal.remove()
    return problems
