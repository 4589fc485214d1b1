"""What looking at a very long queue costs, beside Postfix's own qshape.

pytest -m bench -s tests/bench/test_collector.py
"""

import os
import random
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from loadgen.collect.queues import QueueDepth

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

FILES, ROUNDS = 100_000, 5
CONTENT = b"Subject: one line"
RECORDS = b"".join(
    kind + bytes([len(text)]) + text
    for kind, text in (
        (b"C", b"%15d %15d %15d" % (len(CONTENT) + 2, 0, 1)), (b"T", b"1764000000"), (b"S", b"from@sender.loadgen.test"),
        (b"R", b"to@loadgen.test"), (b"M", b""), (b"N", CONTENT), (b"X", b""), (b"E", b""),
    )
)  # fmt: skip
"""A queue file, as Postfix's cleanup writes it."""


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("queue")
    for name in ("incoming", "active", "deferred", "hold", "maildrop"):
        (directory / name).mkdir()
    rng = random.Random(1)
    for _ in range(FILES):
        name = f"{rng.getrandbits(44):011X}"
        descriptor = os.open(directory / "incoming" / name, os.O_WRONLY | os.O_CREAT, 0o700)
        os.write(descriptor, RECORDS)
        os.close(descriptor)
    return directory


def test_sample_of_a_long_queue_costs_a_fraction_of_qshape(queue: Path) -> None:
    if shutil.which("qshape") is None:
        pytest.skip("qshape is not installed (package postfix)")
    ours, again, theirs = [], [], []
    for _ in range(ROUNDS):
        depth = QueueDepth(queue)  # one that has not seen this queue yet
        before = time.process_time()
        got = depth.sample(0.0)
        ours.append(time.process_time() - before)
        assert got["queue.incoming"] == FILES
        before = time.process_time()
        assert depth.sample(3600.0) == got
        again.append(time.process_time() - before)

        before = time.monotonic()
        said = subprocess.run(
            ["qshape", "-n", "10", str(queue / "incoming")], capture_output=True, text=True, check=True
        )
        theirs.append(time.monotonic() - before)
        assert "loadgen.test" in said.stdout
    sample_s, again_s, qshape_s = (statistics.median(one) for one in (ours, again, theirs))
    print(
        f"\nsample {sample_s * 1000:.1f} ms of CPU, {again_s * 1e6:.0f} us where nothing has changed, "
        f"qshape {qshape_s * 1000:.0f} ms: {sample_s / qshape_s:.3f}"
    )

    assert sample_s <= 0.1 * qshape_s
    assert again_s <= 0.02, "2 % of a core at one sample a second"


def test_long_queue_that_changes_all_the_time_takes_two_per_cent_of_a_core(queue: Path) -> None:
    depth = QueueDepth(queue)
    seconds, readings = 60, 0
    before = time.process_time()
    for tick in range(4 * seconds):  # the grid of the collector, without its waits
        (queue / "incoming" / f"{tick:011X}").touch()
        readings += bool(depth.sample(tick / 4))
        (queue / "incoming" / f"{tick:011X}").unlink()
    share = (time.process_time() - before) / seconds
    print(
        f"\n{share:.1%} of a core with {FILES} files that change all the time, {readings / seconds:.2f} readings a second"
    )

    assert share < 0.02
    assert readings >= seconds / 5
