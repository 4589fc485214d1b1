"""A chain on another host: real daemons in a network namespace, sampled by a collector there whose clock is another one."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from loadgen.chain import lab
from loadgen.records import RunReader
from tests.command import LOADGEN, read_summary, read_until, run_directory
from tests.hosts import AHEAD_S, WITH_ANOTHER_CLOCK, two_hosts

pytestmark = pytest.mark.chain

HERE, THERE = "10.213.8.1", "10.213.8.2"
FRONT, SINK = f"{THERE}:2525", f"{HERE}:2526"


@dataclass(frozen=True)
class Elsewhere:
    """A chain on a host of its own, and the file that describes it to a run on this one."""

    here: str
    built: lab.Lab
    chain_file: Path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    with two_hosts(HERE, THERE) as (one, other):
        name = f"elsewhere{os.getpid()}"
        subprocess.run(
            ["ip", "netns", "exec", other, *LOADGEN, "lab", "up", "--name", name], check=True, capture_output=True
        )
        built = next(each for each in lab.list_labs() if each.name == name)
        try:
            etc = str(built.directory / "etc")
            for arguments in (
                ("-M", f"{FRONT}/inet={FRONT} inet n - n - - smtpd"),
                ("-e", "mynetworks=127.0.0.0/8 10.213.8.0/24", f"relayhost=[{HERE}]:2526"),
            ):
                subprocess.run(["postconf", "-c", etc, *arguments], check=True)
            subprocess.run(
                ["ip", "netns", "exec", other, "postfix", "-c", etc, "reload"], check=True, capture_output=True
            )  # fmt: skip
            command = [
                "ip",
                "netns",
                "exec",
                other,
                *WITH_ANOTHER_CLOCK,
                sys.executable,
                "-P",
                "-m",
                "loadgen",
                "collect",
            ]
            path = tmp_path / "chain.toml"
            lines = (built.directory / "chain.toml").read_text().splitlines()
            kept = [line for line in lines if line.partition(" =")[0] not in ("front", "sink", "submission")]
            login = kept.index("[login]") if "[login]" in kept else len(kept)
            path.write_text(
                "\n".join(
                    [f'front = "{FRONT}"', f'sink = "{SINK}"', f"collector = {json.dumps(command)}", *kept[:login], ""]
                )
            )
            yield Elsewhere(one, built, path)
        finally:
            lab.take_down(built.directory)


def test_collector_on_the_chains_host_sees_it_on_our_clock_and_comes_back_when_it_dies(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text(
        'about = "elsewhere"\n[timing]\nwarm_up = "1s"\ndrain = "20s"\n[[step]]\nconcurrency = 4\nhold = "8s"\n'
    )
    run = subprocess.Popen(
        ["ip", "netns", "exec", elsewhere.here, *LOADGEN, "run", str(profile), "--chain", str(elsewhere.chain_file),
         "--output", str(tmp_path / "runs")],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    read_until(run, " hold ")
    collecting = [
        one for one in psutil.Process(run.pid).children(recursive=True) if one.cmdline()[-2:] == ["loadgen", "collect"]
    ]
    collecting[-1].kill()  # the innermost: ip and unshare stand before it
    _, said = run.communicate(timeout=120)

    assert run.returncode in (0, 4), said
    assert "started again" in said
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    assert summary["accounting"]["delivered"] == summary["accounting"]["messages"] > 20
    assert any(finding["id"] == "collector-gap" for finding in summary["findings"])
    assert "amavisfeed" in summary["settings"]["master.cf"], "read there, told here"
    with RunReader(directory) as record:
        clock = record.meta["collector_clock"]
        assert abs(clock["ahead_s"] - AHEAD_S) < 1
        assert 0 < clock["error_s"] < 0.05
        assert abs(clock["drift_s"]) < 0.05
        (messages, scanned) = record.query(
            "SELECT count(*), sum(EXISTS(SELECT 1 FROM scan WHERE scan.message_id = message.id)) FROM message"
        )[0]
        assert scanned == messages, "log lines of the time without a collector were lost"
        (early, late) = record.query(
            "SELECT min(s.at - m.started_at), max(s.at - a.at) FROM message m JOIN scan s ON s.message_id = m.id JOIN arrival a "
            "ON a.id = m.id"
        )[0]
        assert early > 0, "scanned before it was sent: the clocks were not brought together"
        assert late < 10
        own = [
            value
            for (value,) in record.query("SELECT value FROM sample WHERE name = 'own.collector_cpu_s' ORDER BY at")
        ]
        assert sum(after < before for before, after in itertools.pairwise(own)) <= 1, "only its restart sets it back"
        names = {name for (name,) in record.query("SELECT DISTINCT name FROM sample")}
    assert {"queue.active", "amavis.busy", "chain.cpu_s", "host.cpu_busy", "own.generator_cpu_s"} <= names


def test_command_that_does_not_start_is_named(elsewhere: Elsewhere, tmp_path: Path) -> None:
    text = elsewhere.chain_file.read_text()
    begin = text.index("collector =")
    elsewhere.chain_file.write_text(
        text[:begin] + 'collector = ["sh", "-c", "echo no such host >&2; exit 255"]' + text[text.index("\n", begin) :]
    )
    said = subprocess.run(
        ["ip", "netns", "exec", elsewhere.here, *LOADGEN, "run", "quick", "--chain", str(elsewhere.chain_file),
         "--output", str(tmp_path / "runs")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert said.returncode == 2
    assert "collector ended by itself with exit code 255: no such host" in said.stderr
