import os
from pathlib import Path

import pytest

from loadgen.chain.spec import Chain, PostfixParts, parse_address
from loadgen.collect.host import make_samplers
from loadgen.collect.sampler import Target
from loadgen.errors import CollectorError

TICKS = os.sysconf("SC_CLK_TCK")


class FakeProc:
    """The host-wide files of /proc."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        (directory / "pressure").mkdir()
        (directory / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    2000 kB\n")
        self.set()

    def set(
        self, *, busy_s: float = 0, iowait_s: float = 0, sectors: int = 0, io_ms: int = 0, stall_us: int = 0
    ) -> None:
        busy, iowait = round(busy_s * TICKS), round(iowait_s * TICKS)
        (self.root / "stat").write_text(f"cpu  {busy} 0 0 9999 {iowait} 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
        major, minor = os.major(self.root.stat().st_dev), os.minor(self.root.stat().st_dev)
        (self.root / "diskstats").write_text(
            f"   {major} {minor + 1} other 1 1 1 1 1 1 777 1 0 777 1\n"
            f"   {major} {minor} vda 1 1 1 1 1 1 {sectors} 1 0 {io_ms} 1 0 0 0 0\n"
        )
        for resource in ("cpu", "io", "memory"):
            (self.root / "pressure" / resource).write_text(
                f"some avg10=9.00 avg60=9.00 avg300=9.00 total={stall_us}\n"
                f"full avg10=9.00 avg60=9.00 avg300=9.00 total={stall_us // 2}\n"
            )


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def sample_twice(proc: FakeProc, elapsed_s: float, **later: float) -> dict[str, float]:
    address = parse_address("127.0.0.1:25")
    chain = Chain(kind="file", name="c", front=address, sink=address, postfix=PostfixParts(queue_directory=proc.root))
    samplers = make_samplers(Target(chain, proc=str(proc.root)))
    for sampler in samplers:
        sampler.sample(10.0)
    proc.set(**later)  # type: ignore[arg-type]
    return {name: value for s in samplers for name, value in s.sample(10.0 + elapsed_s).items()}


def test_cpu_is_told_in_cores(proc: FakeProc) -> None:
    got = sample_twice(proc, 2.0, busy_s=3.0, iowait_s=0.5)

    assert got["host.cpu_busy"] == pytest.approx(1.5)
    assert got["host.cpu_iowait"] == pytest.approx(0.25)
    assert got["host.cpu_steal"] == 0


def test_the_disk_of_the_queue_is_told_apart_from_others(proc: FakeProc) -> None:
    if os.major(proc.root.stat().st_dev) == 0:
        pytest.skip("the temporary directory is on no disk of its own here")
    got = sample_twice(proc, 2.0, sectors=4000, io_ms=500)

    assert got["host.disk_write_bytes_per_s"] == pytest.approx(4000 * 512 / 2)
    assert got["host.disk_busy"] == pytest.approx(0.25)


def test_pressure_is_a_share_of_the_time_since_the_last_sample(proc: FakeProc) -> None:
    got = sample_twice(proc, 2.0, stall_us=1_000_000)

    assert got["host.psi_cpu_some"] == pytest.approx(0.5)
    assert got["host.psi_io_full"] == pytest.approx(0.25)
    assert "host.psi_cpu_full" not in got


def test_memory_needs_no_second_sample(proc: FakeProc) -> None:
    address = parse_address("127.0.0.1:25")
    target = Target(Chain(kind="reference", name="r", front=address, sink=address), proc=str(proc.root))

    got = {name: value for s in make_samplers(target) for name, value in s.sample(1.0).items()}

    assert got == {"host.memory_available_bytes": 2000 * 1024}


def test_a_kernel_without_pressure_information_has_no_such_reading(proc: FakeProc) -> None:
    (proc.root / "pressure" / "io").unlink()

    with pytest.raises(FileNotFoundError):
        sample_twice(proc, 1.0)


def test_a_queue_on_no_disk_is_named_in_the_reason(proc: FakeProc) -> None:
    (proc.root / "diskstats").write_text("   1 0 ram0 0 0 0 0 0 0 0 0 0 0 0\n")
    address = parse_address("127.0.0.1:25")
    chain = Chain(kind="file", name="c", front=address, sink=address, postfix=PostfixParts(queue_directory=proc.root))
    disk = make_samplers(Target(chain, proc=str(proc.root)))[-1]

    with pytest.raises((CollectorError, FileNotFoundError), match=r"no disk|No such file"):
        disk.sample(1.0)
