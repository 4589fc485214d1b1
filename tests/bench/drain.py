"""The throughput of a chain without loadgen: a backlog from Postfix's smtp-source, drained into its smtp-sink."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil

from loadgen.chain import lab

BACKLOG = 640
FILES = 40
LIMIT_S = 180


def queued(queue_directory: Path) -> int:
    return sum(1 for name in ("incoming", "active") for _ in os.scandir(queue_directory / name))


def drain_slope_per_s(built: lab.Lab, files: list[Path], backlog: int = BACKLOG) -> tuple[float, float]:
    """Return msg/s, the slope of the queue depth between 75 % and 25 % of a backlog, and the children meanwhile."""
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
                    str(backlog // FILES),
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
        points: list[tuple[float, int, int]] = []
        amavisd = psutil.Process(int((built.directory / "amavis" / "amavisd.pid").read_text()))
        deadline = time.monotonic() + LIMIT_S
        while (depth := queued(spool)) > 0 and time.monotonic() < deadline:
            points.append((time.monotonic(), depth, len(amavisd.children())))
            time.sleep(0.05)
    finally:
        sink.kill()
        sink.wait()
    top = points[0][1]
    middle = np.array([point for point in points if 0.25 * top <= point[1] <= 0.75 * top])
    return float(-np.polyfit(middle[:, 0], middle[:, 1], 1)[0]), float(middle[:, 2].mean())
