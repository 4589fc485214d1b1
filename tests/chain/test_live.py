"""A chain that runs already, changed and put back: a lab stands in for the live host."""

import asyncio
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadgen.chain import lab
from loadgen.chain.journal import JOURNALS
from loadgen.chain.live import LiveTuner
from loadgen.chain.tuning import Setting
from loadgen.errors import ChainError
from tests.command import loadgen, read_summary, read_until, run_directory, start_loadgen
from tests.labs import SHORT_SWEEP, lab_up

pytestmark = pytest.mark.chain


@pytest.fixture
def host() -> Iterator[lab.Lab]:
    """A host of its own for each test: what a killed sweep leaves on its way comes back into the queue at any time."""
    with lab_up("live") as one:
        yield one


def digests(host: lab.Lab) -> dict[str, str]:
    files = [*(path for path in (host.directory / "etc").rglob("*") if path.is_file()), host.directory / "amavisd.conf"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def children(host: lab.Lab) -> int:
    return len(psutil.Process(int((host.directory / "amavis" / "amavisd.pid").read_text())).children())


def journals() -> set[Path]:
    return set(JOURNALS.glob("*.json")) if JOURNALS.is_dir() else set()


def test_settings_are_in_force_while_they_are_and_back_to_the_byte_afterwards(host: lab.Lab, tmp_path: Path) -> None:
    before = digests(host)
    tuner = LiveTuner(host.chain, tmp_path / "journal")
    assert tuner.present == Setting(2, 2)

    chain = asyncio.run(
        tuner.apply(Setting(5, 6, (("lmtp_discard_lhlo_keywords", "pipelining"),), (("max_requests", 50),)))
    )

    assert (chain.feed_processes, chain.filter_servers) == (5, 6)
    assert children(host) == 6
    assert "$max_requests = 50;" in (host.directory / "amavisd.conf").read_text()
    asyncio.run(tuner.restore())
    assert digests(host) == before
    assert children(host) == 2
    assert list((tmp_path / "journal").iterdir()) == []


def test_setting_that_amavisd_does_not_accept_never_reaches_the_running_daemon(host: lab.Lab, tmp_path: Path) -> None:
    before = digests(host)
    tuner = LiveTuner(host.chain, tmp_path / "journal")

    with pytest.raises(ChainError, match="amavisd does not accept"):
        asyncio.run(tuner.apply(Setting(2, 2, (), (("no_such_setting_at_all", 1),))))

    assert children(host) == 2
    asyncio.run(tuner.restore())
    assert digests(host) == before


def test_sweep_with_apply_measures_every_level_and_leaves_the_host_as_it_was(host: lab.Lab, tmp_path: Path) -> None:
    before, left = digests(host), journals()
    profile = tmp_path / "sweep.toml"
    profile.write_text(SHORT_SWEEP)

    said = loadgen("run", profile, "--chain", host.directory / "chain.toml", "--apply", "--output", tmp_path / "runs")

    assert said.returncode in (0, 4), said.stderr
    steps = read_summary(run_directory(tmp_path / "runs"))["steps"]
    assert {(step["feed_processes"], step["filter_servers"]) for step in steps} == {(1, 1), (3, 3)}
    assert digests(host) == before
    assert children(host) == 2
    assert journals() <= left


def test_sweep_without_apply_changes_nothing_and_measures_what_is_there(host: lab.Lab, tmp_path: Path) -> None:
    before = digests(host)
    changed_at = {path: path.stat().st_mtime_ns for path in (host.directory / "etc").iterdir()}
    profile = tmp_path / "sweep.toml"
    profile.write_text(SHORT_SWEEP)

    said = loadgen("run", profile, "--chain", host.directory / "chain.toml", "--output", tmp_path / "runs")

    assert "measured as it is" in said.stderr
    steps = read_summary(run_directory(tmp_path / "runs"))["steps"]
    assert {(step["feed_processes"], step["filter_servers"]) for step in steps} == {(2, 2)}
    assert digests(host) == before
    assert {path: path.stat().st_mtime_ns for path in changed_at} == changed_at


def start_sweep(host: lab.Lab, tmp_path: Path) -> subprocess.Popen[str]:
    """Start a sweep and return it once a level other than the present one is being measured."""
    profile = tmp_path / "sweep.toml"
    profile.write_text(SHORT_SWEEP.replace('"3s"', '"60s"'))
    process = start_loadgen(
        "run", profile, "--chain", host.directory / "chain.toml", "--apply", "--output", tmp_path / "runs"
    )  # fmt: skip
    read_until(process, " warm-up ")
    assert children(host) != 2
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_puts_everything_back(host: lab.Lab, tmp_path: Path, how: signal.Signals) -> None:
    before, left = digests(host), journals()
    process = start_sweep(host, tmp_path)

    process.send_signal(how)
    _, said = process.communicate()

    assert process.returncode == 130, said
    assert digests(host) == before
    assert children(host) == 2
    assert journals() <= left


def test_restore_puts_back_what_a_killed_sweep_left(host: lab.Lab, tmp_path: Path) -> None:
    before, left = digests(host), journals()
    process = start_sweep(host, tmp_path)
    process.kill()
    process.communicate()
    assert digests(host) != before
    assert len(journals() - left) == 1

    said = loadgen("restore")

    assert said.returncode == 0, said.stderr
    assert "put back" in said.stdout
    assert digests(host) == before
    assert journals() <= left
    deadline = time.monotonic() + 30
    while children(host) != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert children(host) == 2
    assert "nothing to put back" in loadgen("restore").stdout


def test_next_run_puts_back_what_a_killed_one_left(host: lab.Lab, tmp_path: Path) -> None:
    before = digests(host)
    process = start_sweep(host, tmp_path)
    process.kill()
    process.communicate()

    brief = tmp_path / "brief.toml"
    brief.write_text('about = "brief"\n[[step]]\nconcurrency = 1\nhold = "1s"\n[timing]\nwarm_up = "1s"\n')
    assert "putting them back" not in loadgen("run", brief, "--chain", "reference", "--dry-run").stderr

    said = loadgen("run", brief, "--chain", "reference", "--output", tmp_path / "next")

    assert "left settings changed; putting them back" in said.stderr
    assert digests(host) == before


def leave_a_journal(etc: Path, file: Path, content: bytes) -> Path:
    """Have a killed process say that it changed *file* of the Postfix configured in *etc*."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom loadgen.chain.journal import Journal\n"
        "etc, file = map(Path, sys.argv[1:3])\n"
        "journal = Journal.begin(config_directory=etc, amavis_pid_file=etc / 'none')\n"
        "journal.change(file, sys.argv[3].encode())\nprint(journal.path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    said = subprocess.run([sys.executable, "-c", script, etc, file, content], stdout=subprocess.PIPE, check=False)
    return Path(said.stdout.decode().strip())


def test_what_is_left_changed_of_another_host_is_named_and_in_nobodys_way(host: lab.Lab, tmp_path: Path) -> None:
    stopped, gone = tmp_path / "stopped", tmp_path / "gone"
    for etc in (stopped, gone):
        etc.mkdir()
        (etc / "main.cf").write_text("theirs = yes\n")
    stuck, lost = (leave_a_journal(etc, etc / "main.cf", b"ours = yes") for etc in (stopped, gone))
    shutil.rmtree(gone)
    (stopped / "main.cf").write_text("somebody = else\n")
    brief = tmp_path / "brief.toml"
    brief.write_text(SHORT_SWEEP.replace("[1, 3]", "[3]").replace('"3s"', '"1s"'))

    try:
        said = loadgen("run", brief, "--chain", host.directory / "chain.toml", "--apply", "--output", tmp_path / "runs")

        assert said.returncode in (0, 4), said.stderr
        assert read_summary(run_directory(tmp_path / "runs"))["steps"][0]["feed_processes"] == 3
        assert f"{stopped}/main.cf: changed by somebody else since" in said.stderr
        assert f"{gone} is no longer there; what it held is kept in {lost.with_suffix('.gone')}" in said.stderr
        assert (stopped / "main.cf").read_text() == "somebody = else\n"
        assert stuck.exists()
    finally:
        stuck.unlink(missing_ok=True)
        lost.with_suffix(".gone").unlink(missing_ok=True)
