"""Change the process counts of a reference chain, and the options that its settings give an effect."""

from loadgen.chain.spec import Chain
from loadgen.chain.tuning import Setting, chain_under
from loadgen.child import Child
from loadgen.errors import ChainError

__all__ = ["ReferenceTuner"]

_LIMIT_S = 30.0


class ReferenceTuner:
    """The `Tuner` of a reference chain, which does what it is told by a line on its input."""

    def __init__(self, chain: Chain, child: Child) -> None:
        """Take the chain as it is for what is to be restored."""
        self._chain = chain
        self._child = child
        assert chain.feed_processes is not None  # noqa: S101 (a reference chain has them)
        assert chain.filter_servers is not None  # noqa: S101 (a reference chain has them)
        self.present = Setting(chain.feed_processes, chain.filter_servers)

    async def apply(self, setting: Setting) -> Chain:
        """Bring *setting* into force and return the chain as it then is; see `Tuner`."""
        self._child.expect("tuned")
        self._child.tell(
            {
                "feed_processes": setting.feed_processes, "filter_servers": setting.filter_servers,
                "options": [name for name, _ in (*setting.feed_options, *setting.amavis)],
            }
        )  # fmt: skip
        try:
            problem = (await self._child.receive("tuned", _LIMIT_S))["problem"]
        except TimeoutError as error:
            raise ChainError(str(error)) from error
        if problem:
            raise ChainError(f"reference chain: {problem}; settings are changed only when there is none")
        return chain_under(self._chain, setting)

    async def restore(self) -> None:
        """Do nothing: the chain ends with the run."""
