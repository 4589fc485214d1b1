"""The lab, for real: a private Postfix and amavisd."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loadgen.chain import lab
from loadgen.errors import ChainError
from tests.command import loadgen

pytestmark = pytest.mark.chain


def daemons() -> set[int]:
    names = {"master", "qmgr", "smtpd", "lmtp", "/usr/sbin/amavi"}
    return {p.pid for p in psutil.process_iter(["name"]) if p.info["name"] in names}


def system_configuration() -> dict[str, str]:
    files = [p for top in ("/etc/postfix", "/etc/amavis") for p in Path(top).rglob("*") if p.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_two_labs_run_side_by_side_and_leave_no_trace() -> None:
    before, configuration = daemons(), system_configuration()
    first = lab.bring_up(processes=2)
    second = lab.bring_up(processes=3)
    try:
        ports = [address.port for one in (first, second) for address in (one.chain.front, one.chain.sink)]
        assert len(set(ports)) == 4
        assert first.running
        assert second.running
        children = psutil.Process(int((second.directory / "amavis" / "amavisd.pid").read_text())).children()
        assert len(children) == 3
    finally:
        lab.take_down(first.directory)
        lab.take_down(second.directory)

    assert not first.directory.exists()
    assert not second.directory.exists()
    assert daemons() <= before
    assert system_configuration() == configuration


def test_lab_of_a_killed_process_is_found_and_removed_by_the_next_one() -> None:
    program = """
import os, signal
from loadgen.chain import lab
print(lab.bring_up(processes=2).directory, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL
    left = Path(process.stdout.strip())
    assert left.exists()

    said = loadgen("lab", "down")

    assert f"{left.name} is down" in said.stdout
    assert not left.exists()
    assert not lab._processes_using(left)


def test_lab_up_stays_until_lab_down_and_names_its_chain_file() -> None:
    up = loadgen("lab", "up", "--processes", "3", "--name", "kept-by-test", "--json")
    assert up.returncode == 0, up.stderr
    try:
        state = json.loads(up.stdout)
        status = json.loads(loadgen("lab", "status", "--json").stdout)
        mine = next(one for one in status if one["name"] == "kept-by-test")
        assert mine["running"]
        assert mine["owner"] is None
        assert (Path(state["directory"]) / "chain.toml").is_file()
        taken = loadgen("lab", "up", "--name", "kept-by-test")
        assert taken.returncode == 2
        assert 'lab "kept-by-test" exists already' in taken.stderr
        plan = loadgen("run", "quick", "--chain", Path(state["directory"]) / "chain.toml", "--dry-run")
        assert plan.returncode == 0, plan.stderr
    finally:
        down = loadgen("lab", "down", "kept-by-test")
    assert "kept-by-test is down" in down.stdout


def test_lab_whose_daemon_died_is_left_behind() -> None:
    built = lab.bring_up(processes=2, keep=True, name="dead-by-test")
    try:
        master = psutil.Process(int((built.directory / "amavis" / "amavisd.pid").read_text()))
        master.kill()
        master.wait(10)

        assert next(one for one in lab.list_labs() if one.name == "dead-by-test").abandoned
        assert "dead-by-test" in lab.remove_abandoned()
    finally:
        if built.directory.exists():
            lab.take_down(built.directory)


@pytest.mark.parametrize("name", ["../elsewhere", "a b", "", "UPPER", "-x"])
def test_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(ChainError, match="lab name: got .* want lower-case letters, digits and dashes"):
        lab.bring_up(processes=2, name=name)


def test_half_made_lab_is_removed_like_any_other_leftover() -> None:
    (lab.LABS / "half-made-by-test").mkdir(parents=True)

    said = loadgen("lab", "down", "half-made-by-test")

    assert "half-made-by-test is down" in said.stdout
    assert not (lab.LABS / "half-made-by-test").exists()


def test_only_labs_can_be_taken_down(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="not a lab"):
        lab.take_down(tmp_path)
    assert tmp_path.exists()


def test_install_has_nothing_to_do_where_everything_is_there() -> None:
    said = loadgen("lab", "install", "--dry-run")

    assert said.returncode == 0
    assert said.stdout == ""
