"""Two hosts for a test: network namespaces with a cable between them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

AHEAD_S = 5000
"""By so much the monotonic clock of the other host is ahead, where a test says so."""
WITH_ANOTHER_CLOCK = ["unshare", "--mount", "--time", "--monotonic", str(AHEAD_S), "--fork"]


def run(*command: str) -> None:
    """Run *command*, which must succeed."""
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def two_hosts(here: str, there: str) -> Iterator[tuple[str, str]]:
    """Make two network namespaces that reach each other by these addresses, and yield their names."""
    one, other = f"lg-one-{os.getpid()}", f"lg-other-{os.getpid()}"
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", one], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces may be made here")
    try:
        run("ip", "netns", "add", other)
        run("ip", "-n", one, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", other)
        for name, address in ((one, here), (other, there)):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield one, other
    finally:
        for name in (one, other):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
