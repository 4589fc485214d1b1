"""A worker on another host: a network namespace, with a clock of its own, stands in for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadgen.records import RunReader
from tests.command import LOADGEN, read_summary, read_until, run_directory
from tests.hosts import WITH_ANOTHER_CLOCK, two_hosts

HERE, THERE = "10.213.7.1", "10.213.7.2"
SINK_PORT = 2526
FRONT = f"""
import asyncio
import sys
from tests.relaying_front import relaying_front

async def main():
    async with relaying_front({SINK_PORT}, lambda taken, verb: None, host=sys.argv[1]) as port:
        print(port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    with two_hosts(HERE, THERE) as both:
        yield both


@contextmanager
def front_at(address: str, host: str) -> Iterator[str]:
    """Serve a front at *address* of *host* and yield address and port."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, "-c", FRONT, address], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield f"{address}:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


def start_conductor(host: str, tmp_path: Path, front: str) -> subprocess.Popen[str]:
    """Start a run on *host* with a worker of its own, and return it once it waits for another."""
    profile, chain = tmp_path / "p.toml", tmp_path / "chain.toml"
    profile.write_text(
        'about = "two hosts"\n[timing]\nwarm_up = "1s"\ndrain = "5s"\n[[step]]\nconcurrency = 4\nhold = "3s"\n'
    )
    # what is tried is the way of the load, not a chain
    chain.write_text(f'about = "no chain"\nfront = "{front}"\nsink = "127.0.0.1:{SINK_PORT}"\n')
    process = subprocess.Popen(
        ["ip", "netns", "exec", host, *LOADGEN, "run", str(profile), "--chain", str(chain), "--output", str(tmp_path / "runs"),
         "--workers", "1", "--remote-workers", "1", "--bind", f"{HERE}:5557"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    read_until(process, "loadgen worker --master")
    return process


def run_worker(host: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Be a worker on *host*, which has booted at another time and whose clock says so."""
    boot = tmp_path / "boot_id"
    boot.write_text("11111111-2222-3333-4444-555555555555\n")
    return subprocess.run(
        ["ip", "netns", "exec", host, *WITH_ANOTHER_CLOCK, "sh", "-c",
         f'mount --bind {boot} /proc/sys/kernel/random/boot_id && exec "$@"', "worker",
         *LOADGEN, "worker", "--master", f"{HERE}:5557"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_worker_on_another_host_sends_and_is_recorded_on_one_clock(hosts: tuple[str, str], tmp_path: Path) -> None:
    with front_at(HERE, hosts[0]) as front:
        conductor = start_conductor(hosts[0], tmp_path, front)
        worker = run_worker(hosts[1], tmp_path)
        _, said = conductor.communicate()

    assert worker.returncode == 0, worker.stderr
    assert conductor.returncode in (0, 4), said
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    assert summary["accounting"]["adds_up"]
    assert summary["accounting"]["delivered"] == summary["accounting"]["messages"]
    with RunReader(directory) as record:
        shares = record.query(
            "SELECT CAST(substr(m.id, instr(m.id, '.') + 1) AS INTEGER) / 1000000000, count(*), "
            "min(a.at - m.started_at), avg(a.at - m.started_at) FROM message m JOIN arrival a USING (id) GROUP BY 1"
        )
        assert [index for index, *_ in shares] == [0, 1]
        for _, count, least_s, mean_s in shares:
            assert count > 50
            # an arrival before its message was sent, or long after: the clocks were not brought together
            assert -0.002 < least_s < 0.1
            assert mean_s < 0.1
        own, other = sorted(record.meta["workers"].values())
        assert own == 0.0
        assert 0.0 < other < 0.05


def test_front_that_only_its_own_host_can_reach_is_named(hosts: tuple[str, str], tmp_path: Path) -> None:
    with front_at("127.0.0.1", hosts[0]) as front:
        conductor = start_conductor(hosts[0], tmp_path, front)
        run_worker(hosts[1], tmp_path)
        _, said = conductor.communicate()

    assert conductor.returncode == 2
    assert "another machine cannot reach" in said
