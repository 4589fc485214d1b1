"""What a sampler is, and what it is given to look at.

A sampler reads a few gauges that are had, or not had, together. To add one:
write a file with a `make_samplers(target)` that returns those that make sense
for the target, and name it in `collector.REGISTRY`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from loadgen.chain.spec import Chain
from loadgen.collect.daemons import AmavisDaemon, PostfixDaemon

__all__ = ["Sampler", "Target"]


class Sampler(Protocol):
    """Reads some gauges at one instant."""

    reading: str
    """Its gauges in a word, such as "postfix.*": what is missing when it fails."""

    def sample(self, at: float) -> dict[str, float]:
        """Return gauge name to value.

        Raises:
            CollectorError: none of them can be had now. OSError, ValueError and LookupError mean the same.
        """


def _ignore(source: str, kind: str, text: str) -> None:
    """Take a remark nobody wants."""


@dataclass
class Target:
    """What to look at: the chain, our own processes, and where the kernel tells about them."""

    chain: Chain
    watch: dict[str, int] = field(default_factory=dict)
    """Our own processes: name to process id; changes during a run."""
    remark: Callable[[str, str, str], None] = _ignore
    proc: str = "/proc"
    own_only: bool = False
    """The chain is on another host, with a collector there."""
    postfix: PostfixDaemon | None = field(init=False, default=None)
    amavis: AmavisDaemon | None = field(init=False, default=None)

    @property
    def queue_directory(self) -> Path | None:
        """Where the chain's queue is, if it is on this host."""
        return self.chain.postfix.queue_directory if self.chain.postfix is not None else None

    def __post_init__(self) -> None:
        """Set up the daemons that the chain has."""
        if self.queue_directory is not None:
            self.postfix = PostfixDaemon(self.queue_directory, self.proc, self.remark)
        if (amavis := self.chain.amavis) is not None and amavis.pid_file is not None:
            self.amavis = AmavisDaemon(amavis.pid_file, self.proc, self.remark)
