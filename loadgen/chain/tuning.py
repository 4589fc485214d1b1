"""Change the process counts and options of a chain between steps, and see to it that they are in force.

What a tuner promises, and the one value it is given: a `Setting`. How each
kind of chain is changed is decided in the files that open it. A setting
counts as in force only when it has been observed: the new processes are
there, the old ones are gone. Nothing is ever restarted, because a filter that
refuses once is held for dead for five minutes, and nothing is changed while
mail is queued.
"""

from dataclasses import dataclass
from typing import Protocol

from loadgen.chain.feed import FeedState
from loadgen.chain.spec import Chain

__all__ = ["Setting", "Tuner", "chain_under"]


@dataclass(frozen=True)
class Setting:
    """What a sweep varies."""

    feed_processes: int
    """maxproc of the feed."""
    filter_servers: int
    """$max_servers."""
    feed_options: tuple[tuple[str, str], ...] = ()
    """`-o name=value` on the feed's service, in addition to those it has; sorted by name."""
    amavis: tuple[tuple[str, int | str], ...] = ()
    """Settings of amavisd: name without the sigil, and value; sorted by name."""


class Tuner(Protocol):
    """Changes one chain."""

    present: Setting
    """As it was found."""

    async def apply(self, setting: Setting) -> Chain:
        """Bring *setting* into force, whatever was in force before, and return the chain as it then is.

        The destination concurrency limit of the feed and its initial value are
        no lower than the feed's processes afterwards, and the reinjection
        service is no narrower than the filter.

        Raises:
            ChainError: mail is queued, or the setting could not be seen to be in force in time.
        """

    async def restore(self) -> None:
        """Bring back what was found; nothing happens when nothing was changed."""


def chain_under(chain: Chain, setting: Setting, feed: FeedState | None = None) -> Chain:
    """Return *chain* as it is under *setting*; *feed*: as Postfix then has it, None where there is no Postfix."""
    same = setting.feed_processes == setting.filter_servers
    return chain.model_copy(
        update={
            "processes": setting.feed_processes if same else None,
            "feed_processes": setting.feed_processes,
            "filter_servers": setting.filter_servers,
            "destination_concurrency_limit": feed.destination_concurrency if feed else setting.feed_processes,
            "reinjection_processes": feed.reinjection_processes if feed else chain.reinjection_processes,
        }
    )
