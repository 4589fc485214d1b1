"""Is the throughput that loadgen reports the throughput of the chain? Asked of the chain in another way.

On one lab, in alternation: `loadgen run` up to saturation, and a backlog that Postfix's own smtp-source puts
into the queue, drained into Postfix's own smtp-sink, where the slope of the queue depth over the middle half
of the drain is the chain's throughput. smtp-source sends the same messages that loadgen sends.

    pytest -m bench -s tests/bench/test_capacity.py
"""

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loadgen.chain import lab
from loadgen.profile import Message
from loadgen.traffic.message import MessageFactory
from tests.command import loadgen, read_summary, write_profile

pytestmark = [pytest.mark.chain, pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = int(os.environ.get("LOADGEN_BENCH_ROUNDS", "3"))
BACKLOG = 480
FILES = 40
LIMIT_S = 180


@pytest.fixture
def built() -> Iterator[lab.Lab]:
    one = lab.bring_up(processes=2, keep=True, name=f"bench{os.getpid()}")
    try:
        yield one
    finally:
        lab.take_down(one.directory)


def queued(queue_directory: Path) -> int:
    return sum(1 for name in ("incoming", "active") for _ in os.scandir(queue_directory / name))


def drain_slope_per_s(built: lab.Lab, files: list[Path]) -> float:
    """Return msg/s: the slope of the queue depth between 75 % and 25 % of a backlog."""
    chain = built.chain
    assert chain.postfix is not None
    spool = chain.postfix.queue_directory
    assert spool is not None
    sink = subprocess.Popen(["smtp-sink", "-u", "nobody", str(chain.sink), "1000"])
    try:
        for path in files:
            subprocess.run(
                [
                    "smtp-source",
                    "-d",
                    "-s",
                    "4",
                    "-m",
                    str(BACKLOG // FILES),
                    "-F",
                    str(path),
                    "-N",
                    "-f",
                    "bench@sender.loadgen.test",
                    "-t",
                    "bench@loadgen.test",
                    str(chain.front),
                ],
                check=True,
            )
        points: list[tuple[float, int]] = []
        deadline = time.monotonic() + LIMIT_S
        while (depth := queued(spool)) > 0 and time.monotonic() < deadline:
            points.append((time.monotonic(), depth))
            time.sleep(0.05)
    finally:
        sink.kill()
        sink.wait()
    top = points[0][1]
    middle = np.array([(at, depth) for at, depth in points if 0.25 * top <= depth <= 0.75 * top])
    return float(-np.polyfit(middle[:, 0], middle[:, 1], 1)[0])


def test_reported_throughput_is_the_slope_of_an_independent_drain(built: lab.Lab, tmp_path: Path) -> None:
    factory = MessageFactory(Message(), 1, "be0c4a11")
    files = []
    for number in range(FILES):
        message = factory.make_message(number)
        path = tmp_path / f"{number}.eml"
        path.write_bytes((message.head + message.body).replace(b"\r\n", b"\n"))
        files.append(path)
    profile = write_profile(tmp_path / "saturate.toml", [(8, "25s")], warm_up="4s")

    ratios = []
    print("\nround  loadgen msg/s  drain msg/s  ratio")
    for number in range(ROUNDS):
        said = loadgen("run", profile, "--chain", built.directory / "chain.toml", "--output", tmp_path / str(number))
        assert said.returncode == 0, said.stderr + said.stdout
        (directory,) = (tmp_path / str(number)).iterdir()
        reported = read_summary(directory)["steps"][-1]["delivered_per_s"]
        drained = drain_slope_per_s(built, files)
        ratios.append(reported / drained)
        print(f"{number + 1:>5}  {reported:>13.2f}  {drained:>11.2f}  {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")

    assert statistics.median(ratios) == pytest.approx(1.0, abs=0.05)
