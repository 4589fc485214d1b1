"""A lab for a test: up with the options it needs, down whatever happens; and a sweep for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from loadgen.chain import lab
from loadgen.chain.layout import Layout

SHORT_SWEEP = """\
about = "a short sweep"
[timing]
warm_up = "1s"
drain = "30s"
[processes]
levels = [1, 3]
repeats = 1
hold = "3s"
hold_limit = "3s"
"""
"""A profile that tries two levels, neither of them a lab's own."""


@contextmanager
def lab_up(
    name: str,
    processes: int = 2,
    servers: int | None = None,
    options: dict[str, str] | None = None,
    wait_s: float = 0.0,
    layout: Layout | None = None,
) -> Iterator[lab.Lab]:
    """Bring a lab up that stays up until the block ends; *options* are of the feed's service, *wait_s* of every scan."""
    one = lab.bring_up(
        processes=processes,
        filter_servers=servers,
        feed_options=options,
        wait_s=wait_s,
        layout=layout,
        keep=True,
        name=f"{name}{os.getpid()}",
    )
    try:
        yield one
    finally:
        lab.take_down(one.directory)
