"""A worker on another host: a network namespace, with a clock of its own, stands in for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadgen.records import RunReader
from tests.command import LOADGEN, read_summary, run_directory

HERE, THERE = "10.213.7.1", "10.213.7.2"
SINK_PORT = 2526
FRONT = f"""
import asyncio
from tests.relaying_front import relaying_front

async def main():
    async with relaying_front({SINK_PORT}, lambda taken, verb: None, host="{HERE}") as port:
        print(port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
AHEAD_S = 5000
"""The other host's monotonic clock is so far ahead."""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Make two network namespaces with a cable between them."""
    one, other = f"lg-one-{os.getpid()}", f"lg-other-{os.getpid()}"
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", one], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces may be made here")
    try:
        run("ip", "netns", "add", other)
        run("ip", "-n", one, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", other)
        for name, address in ((one, HERE), (other, THERE)):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield one, other
    finally:
        for name in (one, other):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_worker_on_another_host_sends_and_is_recorded_on_one_clock(hosts: tuple[str, str], tmp_path: Path) -> None:
    one, other = hosts
    profile, chain, boot = tmp_path / "p.toml", tmp_path / "chain.toml", tmp_path / "boot_id"
    profile.write_text(
        'about = "two hosts"\n[timing]\nwarm_up = "1s"\ndrain = "5s"\n[[step]]\nconcurrency = 4\nhold = "3s"\n'
    )
    front = subprocess.Popen(
        ["ip", "netns", "exec", one, sys.executable, "-c", FRONT], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert front.stdout is not None
    chain.write_text(
        f'about = "no chain"\nfront = "{HERE}:{front.stdout.readline().strip()}"\nsink = "127.0.0.1:{SINK_PORT}"\n'
    )
    boot.write_text("11111111-2222-3333-4444-555555555555\n")
    conductor = subprocess.Popen(
        ["ip", "netns", "exec", one, *LOADGEN, "run", str(profile), "--chain", str(chain), "--output", str(tmp_path / "runs"),
         "--workers", "1", "--remote-workers", "1", "--bind", f"{HERE}:5557"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert conductor.stderr is not None
    said = []
    for line in conductor.stderr:
        said.append(line)
        if "loadgen worker --master" in line:
            break
    else:
        raise AssertionError("".join(said))

    worker = subprocess.run(
        ["ip", "netns", "exec", other, "unshare", "--mount", "--time", "--monotonic", str(AHEAD_S), "--fork", "sh", "-c",
         f'mount --bind {boot} /proc/sys/kernel/random/boot_id && exec "$@"', "worker",
         *LOADGEN, "worker", "--master", f"{HERE}:5557"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    said.append(conductor.communicate()[1])
    front.kill()
    front.communicate()

    assert worker.returncode == 0, worker.stderr
    assert conductor.returncode in (0, 4), "".join(said)
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
        errors_s = record.meta["workers"]
        assert errors_s["1"] != errors_s["2"] or errors_s["1"] > 0
        assert max(errors_s.values()) < 0.05
