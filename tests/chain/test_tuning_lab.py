"""The process counts of a real lab, changed between steps by reload and seen to be in force."""

import asyncio
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadgen.chain import lab
from loadgen.chain.tuning import Setting
from loadgen.chain.tuning_lab import LabTuner
from loadgen.errors import ChainError
from tests.command import loadgen, read_summary, run_directory
from tests.labs import lab_up

pytestmark = pytest.mark.chain


@pytest.fixture
def built() -> Iterator[lab.Lab]:
    with lab_up("tune") as one:
        yield one


def postconf(built: lab.Lab, *arguments: str) -> str:
    command = ["postconf", "-c", str(built.directory / "etc"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def master(built: lab.Lab) -> psutil.Process:
    return psutil.Process(int((built.directory / "amavis" / "amavisd.pid").read_text()))


def test_counts_and_options_change_without_a_restart_and_come_back_to_the_byte(built: lab.Lab) -> None:
    files = [
        built.directory / "etc" / "main.cf",
        built.directory / "etc" / "master.cf",
        built.directory / "amavisd.conf",
    ]
    before = [file.read_bytes() for file in files]
    tuner = LabTuner(built)
    first = master(built).pid
    mended = (("lmtp_connection_cache_on_demand", "no"), ("lmtp_data_done_timeout", "900"))
    for setting in (Setting(5, 5), Setting(1, 1, mended), Setting(30, 3, (), (("max_requests", 100),)), Setting(3, 3)):
        old = {child.pid for child in master(built).children()}

        chain = asyncio.run(tuner.apply(setting))

        children = {child.pid for child in master(built).children()}
        assert len(children) == setting.filter_servers
        assert not children & old
        assert master(built).pid == first
        assert (chain.feed_processes, chain.filter_servers) == (setting.feed_processes, setting.filter_servers)
        assert f"process_limit = {setting.feed_processes}\n" in postconf(built, "-F", "amavisfeed/unix/process_limit")
        limit, initial = postconf(
            built, "-xh", "amavisfeed_destination_concurrency_limit", "amavisfeed_initial_destination_concurrency"
        ).split()  # fmt: skip
        assert int(limit) >= setting.feed_processes
        assert int(initial) >= setting.feed_processes
        options = postconf(built, "-P", "amavisfeed/unix/*")
        assert ("connection_cache_on_demand = no" in options) == bool(setting.feed_options)
        assert ("data_done_timeout = 900" if setting.feed_options else "data_done_timeout = 1200") in options

    asyncio.run(tuner.restore())

    assert [file.read_bytes() for file in files] == before
    assert len(master(built).children()) == 2


def test_nothing_is_changed_while_mail_is_queued(built: lab.Lab) -> None:
    tuner = LabTuner(built)
    before = (built.directory / "etc" / "master.cf").read_bytes()
    with smtplib.SMTP(built.chain.front.host, built.chain.front.port) as front:  # nobody listens at the sink
        front.sendmail("a@sender.loadgen.test", ["b@loadgen.test"], "Subject: stays\r\n\r\n")

    with pytest.raises(ChainError, match="mail is queued"):
        asyncio.run(tuner.apply(Setting(5, 5)))

    assert (built.directory / "etc" / "master.cf").read_bytes() == before
    assert len(master(built).children()) == 2


def test_option_that_postfix_does_not_know_is_refused(built: lab.Lab) -> None:
    tuner = LabTuner(built)

    with pytest.raises(ChainError, match="no_such_option"):
        asyncio.run(tuner.apply(Setting(2, 2, (("no_such_option", "1"),))))


def test_waiting_scans_take_longer_without_using_the_cpu(tmp_path: Path) -> None:
    """The optimum then lies beyond the number of cores: four times as many processes carry nearly four times as much."""
    chain = tmp_path / "chain.toml"
    chain.write_text(
        '[lab]\nprocesses = 2\nwait = "900ms"\nfeed_options = { lmtp_discard_lhlo_keywords = "pipelining" }\n'
    )
    profile = tmp_path / "two.toml"
    profile.write_text(
        'about = "two levels"\n[timing]\nwarm_up = "2s"\n[processes]\nlevels = [2, 8]\nrepeats = 1\nhold = "10s"\nhold_limit = "10s"\n'
    )

    said = loadgen("run", profile, "--chain", chain, "--output", tmp_path / "runs")

    assert said.returncode in (0, 4), said.stderr
    steps = {step["level"]: step for step in read_summary(run_directory(tmp_path / "runs"))["steps"]}
    assert steps[2]["delivered_per_s"] < 2 / 0.9
    assert steps[8]["delivered_per_s"] > 3 * steps[2]["delivered_per_s"]
    assert steps[2]["utilisation"] > 0.9, "a child that waits is at work"
    assert steps[2]["host"]["cpu_busy"] < 1.0
