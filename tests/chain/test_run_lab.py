"""Whole runs on the real lab, from outside."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loadgen.chain import lab
from loadgen.records import RunReader
from tests.command import LOADGEN, loadgen, read_summary, run_directory, write_profile
from tests.labs import lab_up

pytestmark = pytest.mark.chain


def test_run_follows_every_message_through_the_real_chain(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(1, "4s"), (4, "6s")], "[message]\nattachments = 0.2\n")

    said = loadgen("run", profile, "--chain", "lab", "--output", tmp_path / "runs")

    assert said.returncode in (0, 4), said.stderr
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    accounting = summary["accounting"]
    assert accounting["delivered"] == accounting["messages"] > 40
    assert accounting["duplicates"] == 0
    with RunReader(directory) as reader:
        assert reader.meta["status"] == "complete"
        # the join through both passes: message id -> first queue id -> second queue id
        joined = reader.query(
            "SELECT count(DISTINCT m.id) FROM message m"
            " JOIN queue_entry one ON one.pass_number = 1 AND one.message_id = m.id"
            " JOIN queue_entry two ON two.origin = one.queue_id"
            " JOIN delivery d ON d.queue_id = one.queue_id AND d.station = 'feed' AND d.queued_as = two.queue_id"
        )
        assert joined == [(accounting["messages"],)]
        names = {name for (name,) in reader.query("SELECT DISTINCT name FROM sample")}
        assert {
            "queue.active", "queue.pass1", "postfix.amavisfeed", "amavis.busy", "amavis.held", "amavis.pss_bytes",
            "filter.accept_queue", "host.cpu_busy", "host.psi_cpu_some", "chain.cpu_s", "own.generator_cpu_s",
        } <= names  # fmt: skip
        sections = {section for (section,) in reader.query("SELECT DISTINCT section FROM timing")}
        assert {"total", "SA check", "SMTP DATA"} <= sections
    assert summary["cost"]["own_share"] < 0.2
    assert (directory / "report.html").stat().st_size < 3_000_000
    assert not lab.list_labs() or all(one.owner != os.getpid() for one in lab.list_labs())


def start_run(tmp_path: Path, profile: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a run in the background; return it and its directory once its first hold has begun."""
    process = subprocess.Popen(
        [*LOADGEN, "run", str(profile), "--chain", "lab", "--output", str(tmp_path / "runs"), *arguments],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if " hold " in line:
            return process, run_directory(tmp_path / "runs")
    raise AssertionError(f"the run ended before its first hold: exit {process.wait()}")


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_killed_run_leaves_a_readable_record_and_nothing_that_runs_on(tmp_path: Path) -> None:
    process, directory = start_run(tmp_path, write_profile(tmp_path / "p.toml", [(4, "60s")]))
    children = psutil.Process(process.pid).children()
    time.sleep(2)  # the moment of the kill is arbitrary; the record must hold what was committed before it
    process.kill()
    process.communicate()

    # no load goes on without its conductor
    assert len(psutil.wait_procs(children, timeout=5)[1]) == 0
    said = loadgen("report", directory)
    assert said.returncode == 4
    summary = read_summary(directory)
    assert summary["status"] == "incomplete"
    assert summary["accounting"]["messages"] > 0
    assert "incomplete" in (directory / "report.html").read_text().lower()
    # its lab is found and removed by the next command
    abandoned = [one.name for one in lab.list_labs() if one.abandoned]
    assert abandoned
    assert set(abandoned) <= set(loadgen("lab", "down").stdout.replace(" is down", "").split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_interrupted_run_drains_reports_and_takes_its_lab_down(tmp_path: Path, number: signal.Signals) -> None:
    before = {one.name for one in lab.list_labs()}
    process, directory = start_run(tmp_path, write_profile(tmp_path / "p.toml", [(2, "60s"), (4, "60s")]))
    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == 130
    summary = read_summary(directory)
    assert summary["status"] == "incomplete"
    assert summary["accounting"]["delivered"] == summary["accounting"]["messages"] > 0
    assert {one.name for one in lab.list_labs()} <= before


def test_backlog_limit_stops_the_flood_before_it_fills_the_queue(tmp_path: Path) -> None:
    extra = '[pacing]\nkind = "accepted"\n[limits]\nbacklog = 60\n'
    profile = write_profile(tmp_path / "p.toml", [(4, "30s")], extra)

    said = loadgen("run", profile, "--chain", "lab", "--output", tmp_path / "runs")

    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    assert "backlog-limit" in {finding["id"] for finding in summary["findings"]}, said.stderr
    with RunReader(directory) as reader:
        ((deepest,),) = reader.query(
            "SELECT max(depth) FROM (SELECT sum(value) depth FROM sample"
            " WHERE name IN ('queue.active', 'queue.incoming', 'queue.deferred') GROUP BY at)"
        )
    assert deepest <= 64
    assert summary["accounting"]["delivered"] == summary["accounting"]["messages"]


def test_rate_pacing_counts_response_from_the_intended_instant(tmp_path: Path) -> None:
    extra = '[pacing]\nkind = "rate"\narrivals = "constant"\n'
    profile = tmp_path / "p.toml"
    write_profile(profile, [(4, "6s")], extra)
    profile.write_text(profile.read_text() + "rate = 3\n")

    said = loadgen("run", profile, "--chain", "lab", "--output", tmp_path / "runs")

    assert said.returncode in (0, 4), said.stderr
    (step,) = read_summary(run_directory(tmp_path / "runs"))["steps"]
    assert step["offered_per_s"] == pytest.approx(3.0, rel=0.1)


def test_mail_in_the_queue_is_noticed_before_anything_is_sent(tmp_path: Path) -> None:
    built = lab.bring_up(processes=2, keep=True, name=f"busy{os.getpid()}")
    try:
        # nobody listens at the sink, so this mail stays
        subprocess.run(
            ["smtp-source", "-m", "3", "-f", "a@sender.loadgen.test", "-t", "b@loadgen.test", str(built.chain.front)],
            check=True,
        )
        said = loadgen("run", "quick", "--chain", built.directory / "chain.toml", "--output", tmp_path / "runs")
    finally:
        lab.take_down(built.directory)

    assert said.returncode == 2
    assert "already holds" in said.stderr
    assert "--allow-backlog" in said.stderr


def test_mail_of_others_in_the_queue_is_left_alone_and_told_apart(tmp_path: Path) -> None:
    built = lab.bring_up(processes=2, keep=True, name=f"shared{os.getpid()}")
    assert built.chain.postfix is not None
    held = built.chain.postfix.queue_directory / "hold"  # type: ignore[operator]
    try:
        subprocess.run(
            ["smtp-source", "-m", "2", "-f", "a@sender.loadgen.test", "-t", "b@loadgen.test", str(built.chain.front)],
            check=True,
        )
        # nobody listens at the sink: amavisd passes them on, and they are deferred
        deferred = held.parent / "deferred"
        assert wait_until(lambda: sum(1 for f in deferred.rglob("*") if f.is_file()) == 2, 30)
        profile = write_profile(tmp_path / "p.toml", [(2, "3s"), (4, "3s")])
        said = loadgen(
            "run", profile, "--chain", built.directory / "chain.toml", "--output", tmp_path / "runs", "--allow-backlog"
        )
    finally:
        lab.take_down(built.directory)

    summary = read_summary(run_directory(tmp_path / "runs"))
    assert len(summary["steps"]) == 2, said.stderr
    assert summary["accounting"]["delivered"] == summary["accounting"]["messages"] > 20
    assert not any("drain did not empty" in reason for step in summary["steps"] for reason in step["reasons"])


@pytest.mark.parametrize("protocol", ["lmtp", "smtp"])
def test_load_put_straight_on_amavisd_is_answered_for_recipient_by_recipient(tmp_path: Path, protocol: str) -> None:
    profile = write_profile(
        tmp_path / "p.toml", [(2, "4s")], f'[message]\nrecipients = 3\n[session]\nprotocol = "{protocol}"\n'
    )
    with lab_up(protocol) as built:
        said = loadgen(
            "run",
            profile,
            "--chain",
            built.directory / "chain.toml",
            "--entry",
            "filter",
            "--output",
            tmp_path / "runs",
            "--json",
        )

    assert said.returncode in (0, 4), said.stderr
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    assert json.loads(said.stdout) == summary
    assert summary["accounting"]["delivered"] == summary["accounting"]["messages"] > 10
    with RunReader(directory) as reader:
        # amavisd answers when the message is back in Postfix's queue: its words tell under which id
        assert all("queued as" in reply for (reply,) in reader.query("SELECT reply FROM message"))
        assert reader.query("SELECT DISTINCT recipients FROM message") == [(3,)]


def test_two_workers_load_the_real_chain_and_every_message_of_both_is_followed(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(6, "5s")])
    said = loadgen("run", profile, "--chain", "lab", "--workers", "2", "--output", tmp_path / "runs")

    assert said.returncode in (0, 4), said.stderr
    directory = run_directory(tmp_path / "runs")
    accounting = read_summary(directory)["accounting"]
    assert accounting["delivered"] == accounting["messages"] > 20
    with RunReader(directory) as reader:
        shares = reader.query(
            "SELECT CAST(substr(id, instr(id, '.') + 1) AS INTEGER) / 1000000000, count(*), "
            "sum(EXISTS(SELECT 1 FROM scan WHERE scan.message_id = message.id)) FROM message GROUP BY 1"
        )
    assert [worker for worker, *_ in shares] == [0, 1]
    assert all(sent == scanned > 5 for _, sent, scanned in shares), shares
