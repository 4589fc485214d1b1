"""Pressure on this machine for a test: a disk that is written to all the time, a program that has too little memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CGROUPS = Path("/sys/fs/cgroup")
LIMIT_BYTES, FILE_BYTES = 32 << 20, 300 << 20
READ_ROUND = """\
import mmap, sys
file = open(sys.argv[1], "rb")
pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
while True:
    sum(pages[place] for place in range(0, len(pages), 4096))
"""


@contextmanager
def disk_pressure(directory: Path, writers: int = 6) -> Iterator[None]:
    """Let *writers* programs sync small blocks to the disk of *directory* until the block ends."""
    files = [directory / f"pressure{number}" for number in range(writers)]
    processes = [
        subprocess.Popen(["dd", "if=/dev/zero", f"of={file}", "bs=4k", "oflag=dsync"], stderr=subprocess.DEVNULL) for file in files
    ]  # fmt: skip
    try:
        yield
    finally:
        _end(processes)
        for file in files:
            file.unlink(missing_ok=True)


@contextmanager
def memory_pressure(directory: Path) -> Iterator[None]:
    """Let a program read a file in *directory* that is ten times its memory, over and over, until the block ends."""
    is_v2 = (CGROUPS / "cgroup.controllers").exists()
    group = CGROUPS / ("" if is_v2 else "memory") / f"loadgen-test{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.high" if is_v2 else "memory.limit_in_bytes")).write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no program can be given little memory here: {error}")
    file = directory / "pressure-pages"
    processes = []
    try:
        with file.open("wb") as written:
            for _ in range(FILE_BYTES >> 20):
                written.write(bytes(1 << 20))
            written.flush()
            os.fsync(written.fileno())
            # pages that are in memory already would be nobody's to wait for
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        join = 'echo $$ >"$1" && shift && exec "$@"'
        command = ["sh", "-c", join, "join", str(group / "cgroup.procs"), sys.executable, "-c", READ_ROUND, str(file)]
        processes.append(subprocess.Popen(command))
        yield
    finally:
        _end(processes)
        file.unlink(missing_ok=True)
        group.rmdir()


def _end(processes: list["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
