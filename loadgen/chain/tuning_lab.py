"""Change the process counts and options of a lab, whose configuration is nobody else's."""

import asyncio

from loadgen.chain import amavis, postfix
from loadgen.chain.feed import FeedState, plan_feed
from loadgen.chain.lab import Lab
from loadgen.chain.observe import Observer, Sight, check_nothing_queued, list_queued
from loadgen.chain.spec import Chain
from loadgen.chain.tuning import Setting, chain_under
from loadgen.errors import ChainError, CollectorError

__all__ = ["LabTuner"]


class LabTuner:
    """The `Tuner` of a lab."""

    def __init__(self, built: Lab) -> None:
        """Take the lab as it is now for what is to be restored.

        Raises:
            ChainError: its settings cannot be read.
        """
        chain, parts = built.chain, built.chain.postfix
        assert parts is not None  # noqa: S101 (a lab has them)
        assert parts.config_directory is not None  # noqa: S101 (a lab has one)
        assert parts.queue_directory is not None  # noqa: S101 (a lab has one)
        assert chain.filter_servers is not None  # noqa: S101 (a lab has them)
        self._chain = chain
        self._etc, self._queue, self._feed = parts.config_directory, parts.queue_directory, parts.feed
        self._pid_file = built.directory / "amavis" / "amavisd.pid"
        self._amavisd_conf = built.directory / "amavisd.conf"
        self._observer = Observer(self._queue, self._feed, self._pid_file)
        self._found = self._read()
        self._texts = {
            path: path.read_text() for path in (self._etc / "main.cf", self._etc / "master.cf", self._amavisd_conf)
        }
        self._changed = False
        self.feed_command = self._found.command
        self.present = Setting(self._found.width or chain.filter_servers, chain.filter_servers)

    async def apply(self, setting: Setting) -> Chain:
        """Bring *setting* into force and return the chain as it then is; see `Tuner`."""
        check_nothing_queued(self._queue)
        before = self._look()
        # always from what was found, so that nothing of an earlier setting is left
        wanted = plan_feed(
            self._found, feed_processes=setting.feed_processes, filter_servers=setting.filter_servers,
            options=setting.feed_options,
        )  # fmt: skip
        settings = {**dict(setting.amavis), "max_servers": setting.filter_servers}
        self._changed = True
        await asyncio.to_thread(amavis.write_overrides, self._amavisd_conf, settings, self._amavisd_conf)
        present = await asyncio.to_thread(self._read)
        await asyncio.to_thread(postfix.write_feed, self._etc, wanted, present.text)
        await self._reload(before, setting.filter_servers)
        now = await asyncio.to_thread(self._read)
        if now.text != wanted:
            raise ChainError(f"{self._etc}: postconf shows {now.text}, want {wanted}; has somebody else changed it?")
        return chain_under(self._chain, setting, now)

    async def restore(self) -> None:
        """Bring back the configuration as it was found, to the byte; also while mail is queued.

        Raises:
            ChainError: a daemon does not run, or the old setting could not be seen to be in force in time.
        """
        if not self._changed:
            return
        before = self._look()
        for path, text in self._texts.items():
            amavis.replace_text(path, text)
        await self._reload(before, self.present.filter_servers)
        self._changed = False

    async def _reload(self, before: Sight, servers: int) -> None:
        """Reload both, whatever was changed: every visit then begins with new processes, in the same state."""
        # Postfix first: the sessions it keeps for later go with it, and no process of the filter is held by one
        await asyncio.to_thread(postfix.reload_postfix, self._etc)
        amavis.reload_amavisd(self._pid_file)
        await self._observer.wait_until_in_force(before, servers, at_rest=not list_queued(self._queue))

    def _read(self) -> FeedState:
        return postfix.read_feed(self._etc, self._feed, self._chain.reinjection)

    def _look(self) -> Sight:
        try:
            return self._observer.look()
        except CollectorError as error:
            raise ChainError(f"{self._chain.name}: its processes cannot be seen: {error}") from error
