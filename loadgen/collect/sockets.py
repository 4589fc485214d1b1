"""The filter's port: how many connections wait to be accepted, and how many sessions the feed holds.

The feed's sessions are the established connections to that port that belong
to Postfix's user, without those parked with scache(8): they are cached, and no
feed process holds them.
"""

import contextlib
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from loadgen.chain.spec import Address
from loadgen.collect.daemons import PostfixDaemon
from loadgen.collect.sampler import Sampler, Target
from loadgen.collect.sockdiag import PortSockets, ask_kernel, read_tables
from loadgen.errors import CollectorError

__all__ = ["make_samplers"]


class FilterSockets:
    """The accept queue of the filter's port, and the connections to it."""

    reading = "filter.accept_queue, feed.sessions"

    def __init__(self, address: Address, daemon: PostfixDaemon | None, queue_directory: Path | None, proc: str) -> None:
        self._port = address.port
        self._families = _families(address.host)
        self._daemon = daemon
        self._queue_directory = queue_directory
        self._proc = proc
        self._by_netlink = proc == "/proc"

    def sample(self, at: float) -> dict[str, float]:
        """Return what can be seen from this host; a filter elsewhere has no accept queue here."""
        found = self._look()
        values = {}
        if found.waiting:
            values["filter.accept_queue"] = float(sum(found.waiting))
        if self._daemon is not None and self._queue_directory is not None:
            user = (self._queue_directory / "active").stat().st_uid
            held = {inode for owner, inode in found.connected if owner == user}
            if held:
                held -= self._parked(self._daemon, at)
            values["feed.sessions"] = float(len(held))
        if not values:
            raise CollectorError(f"nobody on this host listens on port {self._port}; is amavisd running?")
        return values

    def _look(self) -> PortSockets:
        if self._by_netlink:
            try:
                return ask_kernel(self._port, self._families)
            except OSError:
                self._by_netlink = False
        return read_tables(self._proc, self._port)

    def _parked(self, daemon: PostfixDaemon, at: float) -> set[int]:
        """Return the inodes of the sockets that Postfix's session cache has open."""
        found = set()
        for pid in daemon.services(at).get("scache", ()):
            directory = f"{self._proc}/{pid}/fd"
            # a descriptor, or the process, may be gone before it is looked at
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(directory):  # noqa: PTH208 (four times a second)
                    with contextlib.suppress(FileNotFoundError):
                        link = os.readlink(f"{directory}/{name}")  # noqa: PTH115
                        if link.startswith("socket:["):
                            found.add(int(link[8:-1]))
        return found


def _families(host: str) -> tuple[int, ...]:
    """Return the address families in which a connection to *host* may be; both for a name."""
    try:
        return (socket.AF_INET,) if ip_address(host).version == 4 else (socket.AF_INET6,)
    except ValueError:
        return (socket.AF_INET, socket.AF_INET6)


def make_samplers(target: Target) -> list[Sampler]:
    """Return the sampler of a chain whose filter listens on TCP."""
    chain = target.chain
    if chain.filter is None or (target.postfix is None and target.amavis is None):
        return []
    return [FilterSockets(chain.filter, target.postfix, target.queue_directory, target.proc)]
