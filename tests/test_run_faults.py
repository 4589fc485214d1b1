"""Whole runs against fronts that misbehave, and with processes of ours that die: every run ends, and says why."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from loadgen.chain.ports import find_passing_port
from loadgen.records import RunReader
from tests.command import LOADGEN, loadgen, read_summary, read_until, run_directory, start_loadgen, write_profile
from tests.relaying_front import Answer, relaying_front


def run_against(
    tmp_path: Path, answer: Answer, profile: Path, *, split: bool = False, relay: bool = True, stop_after_s: float = 0.0
) -> subprocess.CompletedProcess[str]:
    """Run *profile* against a front that answers with *answer*; interrupt it after *stop_after_s*, if that is not 0."""
    sink_port = find_passing_port()

    async def main() -> subprocess.CompletedProcess[str]:
        async with relaying_front(sink_port, answer, split=split, relay=relay) as port:
            chain = tmp_path / "chain.toml"
            chain.write_text(f'front = "127.0.0.1:{port}"\nsink = "127.0.0.1:{sink_port}"\n')
            arguments = [*LOADGEN, "run", str(profile), "--chain", str(chain), "--output", str(tmp_path / "runs")]
            process = await asyncio.create_subprocess_exec(
                *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            assert process.stderr is not None
            assert process.stdout is not None
            errors = b""
            if stop_after_s:
                errors = await process.stderr.readuntil(b"run directory")  # our own processes are up, the probe is on
                await asyncio.sleep(stop_after_s)
                process.send_signal(signal.SIGINT)
            output, more = await asyncio.gather(process.stdout.read(), process.stderr.read())
            code = await process.wait()
            return subprocess.CompletedProcess(arguments, code, output.decode(), (errors + more).decode())

    return asyncio.run(main())


def accept(taken: int, verb: str) -> bytes | None:
    return None


def test_front_that_refuses_everything_is_not_hammered(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(4, "20s")])

    said = run_against(tmp_path, lambda n, verb: b"554 no\r\n" if n >= 1 and verb == "MAIL" else None, profile)

    assert said.returncode == 4, said.stderr
    summary = read_summary(run_directory(tmp_path / "runs"))
    assert 10 < summary["accounting"]["refused"] < 100
    assert "front-refuses" in summary["run"]["end_reason"]


def test_message_is_delivered_with_the_last_of_its_copies(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(1, "4s")], "[message]\nrecipients = 3\n")

    run_against(tmp_path, accept, profile, split=True)

    directory = run_directory(tmp_path / "runs")
    with RunReader(directory) as reader:
        spans = reader.query(
            "SELECT m.started_at, max(a.at), count(*) FROM message m JOIN arrival a ON a.id = m.id GROUP BY m.id ORDER BY 1"
        )
    assert len(spans) > 10
    assert {copies for _, _, copies in spans} == {3}
    # a session sends its next message only when every copy of the last one has come out
    assert all(following[0] >= last[1] for last, following in pairwise(spans))
    accounting = read_summary(directory)["accounting"]
    assert accounting["delivered"] == accounting["messages"]
    assert accounting["duplicates"] == 0


def test_interrupt_is_obeyed_while_the_probe_is_on_its_way(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(1, "4s")])

    said = run_against(tmp_path, accept, profile, relay=False, stop_after_s=1.0)

    # once the probe's own time is up it would be 6
    assert said.returncode == 130, said.stderr


def test_words_of_a_server_do_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(1, "4s")])

    said = run_against(
        tmp_path, lambda n, verb: b"554 \x1b]0;title\x07\x1b[31mred\r\n" if verb == "MAIL" else None, profile
    )

    assert said.returncode == 6
    assert "red" in said.stderr
    assert "\x1b" not in said.stderr
    assert "\x07" not in said.stderr


def start_reference_run(tmp_path: Path, *, until: str) -> tuple[subprocess.Popen[str], Path]:
    profile = write_profile(tmp_path / "p.toml", [(4, "30s"), (8, "30s")])
    process = start_loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")
    read_until(process, until)
    return process, run_directory(tmp_path / "runs")


@pytest.mark.parametrize("victim", ["generator", "sink", "reference"])
def test_run_ends_when_one_of_its_processes_is_killed(tmp_path: Path, victim: str) -> None:
    process, directory = start_reference_run(tmp_path, until=" hold ")
    child = next(c for c in psutil.Process(process.pid).children() if victim in " ".join(c.cmdline()))
    child.kill()
    process.communicate(timeout=90)

    assert process.returncode == 4
    summary = read_summary(directory)
    assert summary["status"] == "incomplete"
    assert victim in summary["run"]["end_reason"]
    assert summary["accounting"]["lost"] == 0  # the record ends before their fate was seen: unknown at most
    assert len(summary["steps"]) == 1
    if victim in ("sink", "reference"):
        with RunReader(directory) as reader:
            phases = {phase: at for at, _, phase in reader.rows("phase")}
        assert phases["end"] - phases["drain"] < 20, "a drain in which nothing can come out any more was sat out"


def test_collector_that_is_killed_is_started_again_and_the_gap_is_shown(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(4, "6s")])
    process = start_loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")
    read_until(process, " hold ")
    next(c for c in psutil.Process(process.pid).children() if "collector" in " ".join(c.cmdline())).kill()
    _, said = process.communicate(timeout=90)

    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    assert process.returncode in (0, 4), said
    assert summary["run"]["end_reason"] == ""
    assert "started again" in said
    assert any(one["id"] == "collector-gap" and "no reading for" in one["evidence"] for one in summary["findings"])
    with RunReader(directory) as reader:
        phases = {phase: at for at, _, phase in reader.rows("phase")}
        readings = [at for (at,) in reader.query("SELECT DISTINCT at FROM sample WHERE at > ?", (phases["hold"],))]
    assert readings[-1] > phases["drain"], "nothing was sampled after the new start"


def test_interrupt_during_the_ramp_ends_the_run_at_once(tmp_path: Path) -> None:
    process, directory = start_reference_run(tmp_path, until=" ramp ")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert read_summary(directory)["status"] == "incomplete"
    with RunReader(directory) as reader:
        # it did not sit out the time that a drain is given
        assert list(reader.rows("remark", "WHERE kind = 'not-drained'")) == []


@pytest.mark.parametrize("arguments", [["profiles"], ["run", "quick", "--chain", "reference", "--dry-run"]])
def test_reader_that_goes_away_changes_no_exit_code(arguments: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)

    result = subprocess.run([*LOADGEN, *arguments], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)

    assert (result.returncode, result.stderr) == (0, "")


def test_run_goes_on_when_nobody_reads_its_progress(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(4, "3s")])
    read_end, write_end = os.pipe()
    os.close(read_end)

    result = subprocess.run(
        [*LOADGEN, "run", str(profile), "--chain", "reference", "--output", str(tmp_path / "runs")],
        stdout=write_end, stderr=write_end, check=False,
    )  # fmt: skip
    os.close(write_end)

    directory = run_directory(tmp_path / "runs")
    assert result.returncode == 0
    assert (directory / "report.html").is_file()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8192:-4096] = b"\xff" * (len(data) - 8192 - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda d: damage(d / "run.sqlite"), id="damaged-pages"),
        pytest.param(lambda d: (d / "report.html").unlink() or (d / "report.html").mkdir(), id="cannot-be-written"),
    ],
)
def test_report_that_cannot_be_made_says_so(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    profile = write_profile(tmp_path / "p.toml", [(4, "2s")])
    loadgen("run", profile, "--chain", "reference", "--output", tmp_path / "runs")
    directory = run_directory(tmp_path / "runs")
    spoil(directory)

    said = loadgen("report", directory)

    assert said.returncode == 2, said.stderr
    assert "Traceback" not in said.stderr
    assert str(directory) in said.stderr
