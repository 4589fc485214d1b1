"""The command `loadgen collect`: the collector where the chain is, for a run that is conducted on another host."""

import sys

from loadgen.errors import UsageError

__all__ = ["collect"]


def collect() -> None:
    """Sample a chain here for a run elsewhere: started by that run, over ssh, as its chain file says ('collector')."""
    if sys.stdin.isatty():
        raise UsageError(
            'collect: started by hand; a run on another host starts it, with collector = ["ssh", "this-host", "loadgen", '
            '"collect"] in its chain file'
        )
    from loadgen.collect.collector import main
    from loadgen.host import describe_chain_host

    main(describe_chain_host)
