"""Every finding that a real machine can be made to show, planted on the real lab and found; and a healthy run.

Defects that do not mask each other share a run. Only what was planted is asserted: a busy machine may add more.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loadgen.chain import lab
from tests.chain.daemons import amavisd, postconf, reload_amavisd, reload_postfix, wait_until
from tests.chain.pressure import disk_pressure, memory_pressure
from tests.command import LOADGEN, read_summary, run_directory, write_profile
from tests.labs import lab_up

pytestmark = pytest.mark.chain

During = Callable[[psutil.Process, lab.Lab], None]
"""Does something while the first hold goes on; gets the conductor and the lab."""

ALL = {
    "pipelining-stall", "feed-exceeds-servers", "servers-exceed-feed", "destination-limit-caps", "reinjection-limit-low",
    "dead-destination", "amavisd-restarted", "sink-slow", "generator-saturated", "nothing-scanned", "network-tests-on",
    "messages-blocked", "messages-lost", "duplicates", "log-incomplete", "in-flow-delay", "held-children",
    "queue-not-drained", "not-steady", "retrograde", "memory-bound", "disk-bound", "host-busy", "steal",
}  # fmt: skip
MAY_COME_FROM_A_BUSY_MACHINE = {"not-steady", "host-busy", "steal", "generator-saturated", "memory-bound", "disk-bound"}


def child_of(conductor: psutil.Process, module: str) -> psutil.Process:
    return next(child for child in conductor.children() if module in child.cmdline())


def find(
    built: lab.Lab, tmp_path: Path, steps: list[tuple[int, str]], extra: str = "", during: During | None = None
) -> set[str]:
    """Run *steps* on the lab, with *during* in the first hold, and return the ids of what was found."""
    profile = write_profile(tmp_path / "p.toml", steps, extra)
    process = subprocess.Popen(
        [*LOADGEN, "run", str(profile), "--chain", str(built.directory / "chain.toml"), "--output", str(tmp_path / "runs")],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if " hold " in line and during is not None:
            during(psutil.Process(process.pid), built)
            during = None
    process.communicate()
    assert process.returncode in (0, 4), "".join(said)
    return {finding["id"] for finding in read_summary(run_directory(tmp_path / "runs"))["findings"]}


def change_chain_file(built: lab.Lab, **values: int) -> None:
    path = built.directory / "chain.toml"
    lines = [line for line in path.read_text().splitlines() if line.partition(" =")[0] not in values]
    place = lines.index("") if "" in lines else len(lines)
    lines[place:place] = [f"{name} = {value}" for name, value in values.items()]
    path.write_text("\n".join(lines) + "\n")


# -- runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    options = {"lmtp_discard_lhlo_keywords": "pipelining", "lmtp_connection_cache_on_demand": "no"}
    with lab_up("mended", options=options) as built:
        return find(built, tmp_path_factory.mktemp("mended"), [(1, "7s"), (4, "7s")])


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """More feeds than filters, limits lower than both, and nothing scanned."""
    with lab_up("narrow", processes=6, servers=4) as built:
        assert built.chain.reinjection is not None
        postconf(built, "-e", "amavisfeed_destination_concurrency_limit=3")
        postconf(built, "-F", f"{built.chain.reinjection}/inet/process_limit=2")
        reload_postfix(built)
        reload_amavisd(built, "@bypass_spam_checks_maps = (1);")
        change_chain_file(built, destination_concurrency_limit=3, reinjection_processes=2)
        return find(built, tmp_path_factory.mktemp("narrow"), [(8, "5s")])


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """More filters than feeds; one message in ten is blocked, one thrown away, one held; all come twice."""
    with lab_up("lossy", processes=2, servers=4) as built:
        checks = built.directory / "etc" / "header_checks"
        checks.write_text("/^Message-ID: .*3@/ DISCARD\n/^Message-ID: .*7@/ HOLD\n")
        postconf(built, "-e", f"header_checks=regexp:{checks}", "always_bcc=copy@loadgen.test")
        postconf(built, "-e", "smtp_destination_recipient_limit=1")
        reload_postfix(built)
        rule = "header LOADGEN_FIVE Message-ID =~ /5@/\nscore LOADGEN_FIVE 2000\n"
        rules = built.directory / "spamassassin" / "local.cf"
        rules.write_text(rules.read_text() + rule)
        reload_amavisd(built, "$final_spam_destiny = D_DISCARD;")
        return find(
            built, tmp_path_factory.mktemp("lossy"), [(6, "6s")], '[pacing]\nkind = "delivered"\ndelivery_timeout = "1s"\n'
        )  # fmt: skip


def restart_amavisd(_: psutil.Process, built: lab.Lab) -> None:
    log = built.directory / "log" / "maillog"
    master = amavisd(built)
    family = [master, *master.children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=10)
    wait_until(lambda: "temporarily suspended" in log.read_text(), 60)
    subprocess.run(
        ["amavisd", "-c", str(built.directory / "amavisd.conf"), "start"], check=True, capture_output=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with lab_up("restart") as built:
        postconf(built, "-X", "amavisfeed_initial_destination_concurrency")
        reload_postfix(built)
        extra = '[pacing]\nkind = "delivered"\ndelivery_timeout = "1s"\n'
        return find(built, tmp_path_factory.mktemp("restart"), [(12, "10s")], extra, restart_amavisd)


def stutter_sink(conductor: psutil.Process, _: lab.Lab) -> None:
    sink = child_of(conductor, "loadgen.traffic.sink")
    for _turn in range(9):
        sink.suspend()
        time.sleep(0.6)
        sink.resume()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The guide's own settings; in the first step the sink stutters, in the second there is little load."""
    with lab_up("stock") as built:
        return find(built, tmp_path_factory.mktemp("stock"), [(4, "6s"), (1, "6s")], during=stutter_sink)


def burn_in_the_second_half(_: psutil.Process, __: lab.Lab) -> None:
    time.sleep(6)
    burn = "import time\nend = time.monotonic() + 7\nwhile time.monotonic() < end: pass"
    burners = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2 * (os.cpu_count() or 1))]
    for burner in burners:
        burner.wait()


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with lab_up("busy") as built:
        return find(built, tmp_path_factory.mktemp("busy"), [(6, "12s")], during=burn_in_the_second_half)


def lose_log_lines(conductor: psutil.Process, built: lab.Lab) -> None:
    """Let the log be emptied while nobody reads it, as a rotation that copies and truncates does."""
    collector = child_of(conductor, "loadgen.collect.collector")
    collector.suspend()
    time.sleep(2)
    os.truncate(built.directory / "log" / "maillog", 0)
    collector.resume()


@pytest.fixture(scope="module")
def outward(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """SpamAssassin asks the network, and part of the log is lost."""
    with lab_up("outward") as built:
        reload_amavisd(built, "$sa_local_tests_only = 0;")
        return find(built, tmp_path_factory.mktemp("outward"), [(4, "6s")], during=lose_log_lines)


@pytest.fixture(scope="module")
def braked(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with lab_up("flow") as built:
        postconf(built, "-e", "qmgr_message_active_limit=2", "default_process_limit=20")
        reload_postfix(built)
        return find(built, tmp_path_factory.mktemp("flow"), [(8, "8s")], '[pacing]\nkind = "accepted"\n')


def press(_: psutil.Process, built: lab.Lab) -> None:
    with disk_pressure(built.directory), memory_pressure(built.directory):
        time.sleep(7)


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Little load, and a machine whose disk and memory somebody else uses up."""
    with lab_up("pressed") as built:
        return find(built, tmp_path_factory.mktemp("pressed"), [(1, "7s")], during=press)


CROWDED = r"""
package Amavis::Custom;
sub new {
  my $class = shift;
  open(my $mark, '>', "$Amavis::Conf::TEMPBASE/at-work.$$"); close $mark;
  bless {}, $class;
}
sub checks {
  my @at_work = glob("$Amavis::Conf::TEMPBASE/at-work.*");
  select(undef, undef, undef, 0.04 * @at_work * @at_work);
  unlink("$Amavis::Conf::TEMPBASE/at-work.$$");
  1;
}
package Amavis::Conf;
"""
"""A scan that takes the longer, the more of its kind are at work: throughput falls beyond two. It waits more than
it works, so that what else the machine does shows little."""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with lab_up("crowd", processes=6, options={"lmtp_discard_lhlo_keywords": "pipelining"}) as built:
        reload_amavisd(built, CROWDED)
        return find(built, tmp_path_factory.mktemp("crowd"), [(2, "6s"), (6, "13s"), (2, "6s")])


# -- what was planted is found ----------------------------------------------------------------------------

PLANTED = [
    ("pipelining-stall", "stock"),
    ("held-children", "stock"),
    ("feed-exceeds-servers", "narrow"),
    ("destination-limit-caps", "narrow"),
    ("reinjection-limit-low", "narrow"),
    ("nothing-scanned", "narrow"),
    ("servers-exceed-feed", "lossy"),
    ("messages-blocked", "lossy"),
    ("messages-lost", "lossy"),
    ("duplicates", "lossy"),
    ("queue-not-drained", "lossy"),
    ("amavisd-restarted", "restarted"),
    ("dead-destination", "restarted"),
    ("sink-slow", "stock"),
    ("host-busy", "disturbed"),
    ("not-steady", "disturbed"),
    ("network-tests-on", "outward"),
    ("log-incomplete", "outward"),
    ("in-flow-delay", "braked"),
    ("retrograde", "crowded"),
    ("disk-bound", "pressed"),
    ("memory-bound", "pressed"),
]


@pytest.mark.parametrize(("finding", "run"), PLANTED, ids=[finding for finding, _ in PLANTED])
def test_planted_defect_is_found(finding: str, run: str, request: pytest.FixtureRequest) -> None:
    assert finding in request.getfixturevalue(run)


def test_every_finding_is_planted_here_or_cannot_be(mended: set[str]) -> None:
    only_recorded = {"generator-saturated", "steal"}

    assert {finding for finding, _ in PLANTED} == ALL - only_recorded


def test_healthy_run_shows_none_of_them(mended: set[str]) -> None:
    assert mended & ALL <= MAY_COME_FROM_A_BUSY_MACHINE
