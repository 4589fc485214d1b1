"""The host's own gauges: CPU, memory, the disk of the queue, pressure.

The kernel counts upwards; each sampler keeps its last reading and returns
what happened since, so the first sample of a run has none of these. A kernel
without pressure information, or a queue on a file system without a disk of
its own (tmpfs, ZFS), leaves the reading out.
"""

import os
from pathlib import Path

from loadgen.collect.procfs import read_file
from loadgen.collect.sampler import Sampler, Target
from loadgen.errors import CollectorError

__all__ = ["make_samplers"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SECTOR_BYTES = 512  # the unit of /proc/diskstats, whatever the disk's own is
_PRESSURE = {
    "cpu": ("some",),  # "full" is meaningless for the CPU of a whole host
    "io": ("some", "full"),
    "memory": ("some",),
}


class _Rates:
    """Turns counters that grow into growth per second."""

    def __init__(self) -> None:
        self._at = 0.0
        self._last: dict[str, float] = {}

    def update(self, at: float, counters: dict[str, float]) -> dict[str, float]:
        """Return the growth per second of each counter that was there last time, too."""
        elapsed = at - self._at
        rates = {
            name: max(0.0, value - self._last[name]) / elapsed
            for name, value in counters.items()
            if elapsed > 0 and name in self._last
        }
        self._at, self._last = at, counters
        return rates


class HostCpu:
    """Cores in use, waiting for a disk, and taken away by the hypervisor."""

    reading = "host.cpu_*"

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._rates = _Rates()

    def sample(self, at: float) -> dict[str, float]:
        """Return cores, 0 to as many as there are."""
        line = read_file(f"{self._proc}/stat").split(b"\n", 1)[0]
        user, nice, system, _idle, iowait, irq, softirq, steal = (int(word) for word in line.split()[1:9])
        # guests are in user already
        ticks = {"busy": user + nice + system + irq + softirq, "iowait": iowait, "steal": steal}
        seconds = {f"host.cpu_{name}": value / _TICKS_PER_S for name, value in ticks.items()}
        return self._rates.update(at, seconds)


class HostMemory:
    """Memory that programs could still get without swapping."""

    reading = "host.memory_available_bytes"

    def __init__(self, proc: str) -> None:
        self._proc = proc

    def sample(self, at: float) -> dict[str, float]:  # noqa: ARG002 (a sampler)
        """Return the kernel's estimate."""
        for line in read_file(f"{self._proc}/meminfo").splitlines():
            if line.startswith(b"MemAvailable:"):
                return {"host.memory_available_bytes": float(int(line.split()[1]) * 1024)}
        raise CollectorError(f"{self._proc}/meminfo: no MemAvailable; this kernel is older than 3.14")


class QueueDisk:
    """The disk that the queue is on."""

    reading = "host.disk_*"

    def __init__(self, queue_directory: Path, proc: str) -> None:
        self._directory = queue_directory
        self._proc = proc
        self._device: tuple[bytes, bytes] | None = None
        self._rates = _Rates()

    def sample(self, at: float) -> dict[str, float]:
        """Return bytes written per second, and the share of the time with something to do."""
        if self._device is None:
            self._device = self._find_device()
        for line in read_file(f"{self._proc}/diskstats").splitlines():
            fields = line.split()
            if (fields[0], fields[1]) == self._device:
                counters = {
                    "host.disk_write_bytes_per_s": float(int(fields[9]) * _SECTOR_BYTES),
                    "host.disk_busy": int(fields[12]) / 1000,
                }
                rates = self._rates.update(at, counters)
                if "host.disk_busy" in rates:
                    rates["host.disk_busy"] = min(1.0, rates["host.disk_busy"])
                return rates
        raise CollectorError(f"{self._directory}: its file system is on no disk that the kernel keeps statistics of")

    def _find_device(self) -> tuple[bytes, bytes]:
        number = self._directory.stat().st_dev
        if os.major(number) == 0:
            # btrfs and overlays have numbers of their own; the mount table may name the disk behind
            own = f"{os.major(number)}:{os.minor(number)}"
            for line in read_file(f"{self._proc}/self/mountinfo").decode("utf-8", "replace").splitlines():
                fields = line.split()
                if fields[2] == own and (source := Path(fields[fields.index("-") + 2])).is_block_device():
                    number = source.stat().st_rdev
                    break
        return str(os.major(number)).encode(), str(os.minor(number)).encode()


class Pressure:
    """Share of the time in which something had to wait for one resource."""

    def __init__(self, resource: str, proc: str) -> None:
        self.reading = f"host.psi_{resource}_*"
        self._resource = resource
        self._proc = proc
        self._rates = _Rates()

    def sample(self, at: float) -> dict[str, float]:
        """Return shares, 0 to 1."""
        counters = {}
        for line in read_file(f"{self._proc}/pressure/{self._resource}").decode("ascii", "replace").splitlines():
            kind, _, rest = line.partition(" ")
            if kind in _PRESSURE[self._resource]:
                counters[f"host.psi_{self._resource}_{kind}"] = int(rest.rpartition("total=")[2]) / 1e6
        return {name: min(1.0, share) for name, share in self._rates.update(at, counters).items()}


def make_samplers(target: Target) -> list[Sampler]:
    """Return the samplers of this host."""
    samplers: list[Sampler] = [HostCpu(target.proc), HostMemory(target.proc)]
    samplers += [Pressure(resource, target.proc) for resource in _PRESSURE]
    if target.queue_directory is not None:
        samplers.append(QueueDisk(target.queue_directory, target.proc))
    return samplers
