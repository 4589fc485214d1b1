"""Several generators under one Locust master: complete records, and what a lost one means."""

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from loadgen.records import RunReader
from tests.command import loadgen, read_summary, read_until, run_directory, start_loadgen

CHAIN = '[reference]\nlaw = "constant"\nservice_s = 0.05\nfeed_processes = 4\nfilter_servers = 4\n'


def write(tmp_path: Path, hold: str = "3s", extra: str = "", concurrency: int = 6) -> list[str | Path]:
    profile, chain = tmp_path / "p.toml", tmp_path / "chain.toml"
    profile.write_text(
        f'about = "workers"\n{extra}\n[timing]\nwarm_up = "1s"\ndrain = "10s"\n'
        f'[[step]]\nconcurrency = {concurrency}\nhold = "{hold}"\n'
    )
    chain.write_text(CHAIN)
    return [profile, "--chain", chain, "--output", tmp_path / "runs"]


def start(arguments: list[str | Path]) -> subprocess.Popen[str]:
    """Start a run with two workers and return it once the hold has begun."""
    process = start_loadgen("run", *arguments, "--workers", "2")
    read_until(process, " hold ")
    return process


def family(process: subprocess.Popen[str], module: str) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if module in child.cmdline()]


def test_two_workers_share_the_sessions_and_their_records_are_complete(tmp_path: Path) -> None:
    said = loadgen("run", *write(tmp_path), "--workers", "2")

    assert said.returncode == 0, said.stderr + said.stdout
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    (step,) = summary["steps"]
    assert step["valid"], step["reasons"]
    assert step["delivered_per_s"] == pytest.approx(4 / 0.05, rel=0.06)
    assert summary["accounting"]["adds_up"]
    with RunReader(directory) as run:
        ids = [int(one.partition(".")[2]) for (one,) in run.query("SELECT id FROM message")]
        assert run.meta["locust"] == {"requests": len(ids), "failures": 0}
        assert {number // 10**9 for number in ids} == {0, 1}
        # without a gap: nothing that was sent is missing
        for first in (0, 10**9):
            mine = sorted(number for number in ids if first <= number < first + 10**9)
            assert mine == list(range(first, first + len(mine)))
        sessions = run.query("SELECT count(DISTINCT session) FROM session")
        assert sessions == [(6,)]


def test_rate_is_shared_out_among_the_workers(tmp_path: Path) -> None:
    arguments = write(tmp_path, "4s", '[pacing]\nkind = "rate"\narrivals = "constant"')
    profile = Path(arguments[0])
    profile.write_text(profile.read_text() + "rate = 40\n")

    said = loadgen("run", *arguments, "--workers", "2")

    (step,) = read_summary(run_directory(tmp_path / "runs"))["steps"]
    assert said.returncode in (0, 4), said.stderr
    assert step["delivered_per_s"] == pytest.approx(40, rel=0.08)


@pytest.mark.parametrize("loss", ["end", "go-on"])
def test_lost_worker_is_noticed_and_its_messages_accounted_for(tmp_path: Path, loss: str) -> None:
    process = start(write(tmp_path, "8s", f'[limits]\nworker_loss = "{loss}"'))
    victim = family(process, "loadgen.traffic.worker")[0]
    victim.kill()
    killed_at = time.monotonic()
    read_until(process, "was lost")
    noticed_s = time.monotonic() - killed_at
    process.communicate()

    assert noticed_s < 5
    assert process.returncode == 4
    summary = read_summary(run_directory(tmp_path / "runs"))
    (step,) = summary["steps"]
    assert not step["valid"]
    assert any("a worker was lost" in reason for reason in step["reasons"])
    assert summary["accounting"]["adds_up"]
    assert (summary["status"] == "incomplete") is (loss == "end")
    with RunReader(run_directory(tmp_path / "runs")) as run:
        orphans = run.query("SELECT count(*) FROM arrival WHERE id NOT IN (SELECT id FROM message)")
        assert orphans == [(0,)]


def wait_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return alive


def test_workers_of_a_dead_master_end_within_five_seconds(tmp_path: Path) -> None:
    process = start(write(tmp_path, "20s"))
    workers = family(process, "loadgen.traffic.worker")
    (master,) = family(process, "loadgen.traffic.master")

    master.kill()

    assert wait_gone(workers, 5.5) == []
    process.communicate()
    assert process.returncode == 4


def test_nothing_is_left_of_a_run_whose_conductor_was_killed(tmp_path: Path) -> None:
    process = start(write(tmp_path, "20s"))
    children = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGKILL)

    process.communicate()
    assert wait_gone(children, 8) == []


@pytest.mark.parametrize("master", ["nowhere", "127.0.0.1"])
def test_master_that_is_no_address_is_refused(master: str) -> None:
    said = loadgen("worker", "--master", master)

    assert said.returncode == 2
    assert "want host:port" in said.stderr


def test_place_to_listen_that_is_no_address_is_refused(tmp_path: Path) -> None:
    said = loadgen("run", *write(tmp_path), "--workers", "2", "--bind", "everywhere")

    assert said.returncode == 2
    assert "want an address of this machine" in said.stderr
    assert not (tmp_path / "runs").exists()
