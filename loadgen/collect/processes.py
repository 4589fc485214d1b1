"""Gauges of processes: Postfix's services, amavisd's children by their titles, CPU time, memory.

A listed Postfix process may be idle: their number is an upper bound of the
concurrency, not the concurrency (`sockets` has that). amavisd
writes what a child does into its title.
"""

import re
import time
from collections.abc import Mapping

from loadgen.collect.daemons import AmavisDaemon, Daemon, PostfixDaemon
from loadgen.collect.procfs import read_process, read_pss_bytes
from loadgen.collect.sampler import Sampler, Target
from loadgen.errors import CollectorError

__all__ = ["child_state", "make_samplers"]

_PSS_EVERY_S = 5.0
_CPU_EVERY_S = 0.9  # a little less than a second, so that a late tick does not make it two

# held before free: "(ch2-05926-01-idle)" has a session open, "(ch2-avail)" has none
_HELD = re.compile(r"\(ch\d+-(?:.*-)?idle\)$|\(ch\d+-accept\)$")
_BUSY = re.compile(r"\((?:ch\d+-)?\d+-\d+(?:-\d+)?\)$|\(ch\d+-P\)$")
_FREE = re.compile(r"\(ch\d+-avail\)$|\(virgin child\)$|\(ch\d+\)$")


def child_state(title: str) -> str | None:
    """Return what an amavisd child does: "busy", "held", "free", or None for one that exits or is no worker.

    Held is a child with a session open but no command in it: also "accept",
    since its connection is taken although nothing has been asked yet. Free
    is also a child whose session has just ended and that will wait again.
    """
    if _HELD.search(title):
        return "held"
    if _BUSY.search(title):
        return "busy"
    if _FREE.search(title):
        return "free"
    return None


class PostfixServices:
    """Processes of each service."""

    reading = "postfix.*"

    def __init__(self, daemon: PostfixDaemon, feed: str) -> None:
        self._daemon = daemon
        self._seen = {feed}

    def sample(self, at: float) -> dict[str, float]:
        """Return the number of processes per service; 0 for one whose processes have all ended."""
        services = self._daemon.services(at)
        self._seen |= services.keys()
        return {f"postfix.{name}": float(len(services.get(name, ()))) for name in self._seen}


class AmavisChildren:
    """amavisd's children by state."""

    reading = "amavis.*"

    def __init__(self, daemon: AmavisDaemon) -> None:
        self._daemon = daemon

    def sample(self, at: float) -> dict[str, float]:
        """Return how many children are busy, held and free, and how many there are."""
        titles = self._daemon.titles(at)
        states = [child_state(title) for title in titles]
        counts = {f"amavis.{state}": float(states.count(state)) for state in ("busy", "held", "free")}
        return {**counts, "amavis.children": float(len(titles))}


class AmavisMemory:
    """Memory of amavisd's children; read seldom, because the kernel walks every page of theirs for it."""

    reading = "amavis.pss_bytes"

    def __init__(self, daemon: AmavisDaemon, proc: str) -> None:
        self._daemon = daemon
        self._proc = proc
        self._due_at = 0.0

    def sample(self, at: float) -> dict[str, float]:
        """Return the sum and the number of summands when it is due, else nothing."""
        if at < self._due_at:
            return {}
        self._due_at = at + _PSS_EVERY_S
        sizes = [read_pss_bytes(self._proc, pid) for pid in self._daemon.look(at).children]
        known = [size for size in sizes if size is not None]
        return {"amavis.pss_bytes": float(sum(known)), "amavis.pss_children": float(len(known))} if known else {}


class ChainCpu:
    """CPU time of the daemons and everything they have started; once a second, since every process is asked."""

    reading = "chain.cpu_s"

    def __init__(self, daemons: list[Daemon], proc: str) -> None:
        self._meters = [(daemon, _Meter()) for daemon in daemons]
        self._proc = proc
        self._due_at = 0.0

    def sample(self, at: float) -> dict[str, float]:
        """Return the CPU seconds of all daemons together when it is due; absent until each has been seen."""
        if at < self._due_at:
            return {}
        for daemon, meter in self._meters:
            try:
                family = daemon.look(at)
            except CollectorError:
                if not meter.started:
                    raise
                continue  # stopped for the moment: what it has used stays used
            children = (read_process(self._proc, pid) for pid in family.children)
            used = family.master.cpu_s + sum(child.cpu_s for child in children if child is not None)
            meter.read((family.master.pid, family.master.started), used)
        self._due_at = at + _CPU_EVERY_S
        return {"chain.cpu_s": sum(meter.total_s for _, meter in self._meters)}


class _Meter:
    """Keeps a sum over a family from falling.

    It would, when a child has ended but is not yet accounted to its parent,
    and when the daemon is started anew.
    """

    def __init__(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._before_s = 0.0
        self._highest_s = 0.0

    @property
    def started(self) -> bool:
        return self._identity is not None

    @property
    def total_s(self) -> float:
        return self._before_s + self._highest_s

    def read(self, identity: tuple[int, int], used_s: float) -> None:
        if identity != self._identity:
            self._identity = identity
            self._before_s += self._highest_s
            self._highest_s = 0.0
        self._highest_s = max(self._highest_s, used_s)


class OwnCpu:
    """CPU time of our own processes, each without its children (they are handed over by themselves)."""

    reading = "own.*"

    def __init__(self, watch: Mapping[str, int], proc: str, *, alone: bool) -> None:
        self._watch = watch
        self._proc = proc
        self._alone = alone

    def sample(self, at: float) -> dict[str, float]:  # noqa: ARG002 (a sampler)
        """Return the CPU seconds of each process that still runs."""
        # beside a collector on the chain's host, that one's are what is called the collector's
        values = {} if self._alone else {"own.collector_cpu_s": time.process_time()}
        for name, pid in self._watch.items():
            if name != "collector" and (process := read_process(self._proc, pid)) is not None:
                values[f"own.{name}_cpu_s"] = process.own_cpu_s
        return values


def make_samplers(target: Target) -> list[Sampler]:
    """Return the samplers for those daemons that the target has, and for our own processes."""
    samplers: list[Sampler] = [OwnCpu(target.watch, target.proc, alone=target.own_only)]
    daemons: list[Daemon] = []
    if target.postfix is not None and target.chain.postfix is not None:
        samplers.append(PostfixServices(target.postfix, target.chain.postfix.feed))
        daemons.append(target.postfix)
    if target.amavis is not None:
        samplers += [AmavisChildren(target.amavis), AmavisMemory(target.amavis, target.proc)]
        daemons.append(target.amavis)
    if daemons:
        samplers.append(ChainCpu(daemons, target.proc))
    return samplers
