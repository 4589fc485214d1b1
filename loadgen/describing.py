"""What is written down about the host that a chain is on, its software and its settings."""

from typing import Any

from loadgen.chain.opening import read_settings
from loadgen.chain.spec import Chain
from loadgen.host import describe_host, describe_software

__all__ = ["describe_here"]


def describe_here(chain: Chain) -> dict[str, Any]:
    """Return `host`, `software`, `settings` and `unread` (why settings could not be read) of *chain*, which is on this host."""
    settings, unread = read_settings(chain)
    queue = chain.postfix.queue_directory if chain.postfix is not None else None
    return {
        "host": describe_host(queue), "software": describe_software(real_chain=chain.kind != "reference"),
        "settings": settings, "unread": unread,
    }  # fmt: skip
