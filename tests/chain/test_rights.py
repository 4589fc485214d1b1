"""What a run sees without root: every missing right costs its own readings, which are named, and nothing else."""

import json
import os
import pwd
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import loadgen
from loadgen.chain import lab
from loadgen.records import RunReader
from tests.command import read_summary, run_directory, write_profile
from tests.labs import lab_up

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def built() -> Iterator[lab.Lab]:
    with lab_up("rights") as one:
        yield one


def as_user(name: str, *command: str) -> list[str]:
    user = pwd.getpwnam(name)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]


def find_python(name: str) -> tuple[str, dict[str, str]]:
    """Return a Python that this user may run, with the environment in which it finds this installation."""
    places = [str(Path(loadgen.__file__).parents[1]), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    for python in (sys.executable, "/usr/bin/python3"):  # ours may be in a home that is closed to others
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}
        # it must be able to start itself again, as a run does with its other processes
        again = "import subprocess, sys, loadgen, locust; sys.exit(subprocess.call([sys.executable, '-c', '']))"
        command = as_user(name, python, "-P", "-c", again)
        tried = subprocess.run(command, env=environment, cwd="/", capture_output=True, check=False)
        if tried.returncode == 0:
            return python, environment
    pytest.skip(f"{name} may not read this installation")


def run_as(name: str, built: lab.Lab, tmp_path: Path) -> tuple[dict[str, set[str]], set[str], str]:
    """Run a short load as that user; return what was not to be had, which gauges were, and what was said."""
    python, environment = find_python(name)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    output = tmp_path / "runs"
    output.mkdir(mode=0o777)
    output.chmod(0o777)
    profile = write_profile(tmp_path / "p.toml", [(2, "3s")])
    said = subprocess.run(
        as_user(name, python, "-P", "-m", "loadgen", "run", str(profile), "--chain", str(built.directory / "chain.toml"), "--output", str(output)),
        capture_output=True, text=True, check=False, cwd="/", env=environment,
    )  # fmt: skip
    assert said.returncode in (0, 4), said.stderr
    directory = run_directory(output)
    accounting = read_summary(directory)["accounting"]
    assert accounting["delivered"] == accounting["messages"] > 5
    with RunReader(directory) as record:
        missing: dict[str, set[str]] = {}
        for _, _, kind, text in record.rows("remark"):
            missing.setdefault(kind, set()).add(text.partition(": ")[0])
        gauges = {name for (name,) in record.query("SELECT DISTINCT name FROM sample")}
    return missing, gauges, said.stdout


def test_any_user_measures_throughput_and_loses_only_the_named_readings(built: lab.Lab, tmp_path: Path) -> None:
    missing, gauges, said = run_as("nobody", built, tmp_path)

    assert {"queue depth", "postfix.*", "amavis.pss_bytes", "chain.cpu_s"} <= missing["unavailable"]
    assert not any(name.startswith("queue.active") for name in gauges)
    assert {"host.cpu_busy", "own.generator_cpu_s", "filter.accept_queue"} <= gauges
    assert "readings-missing" in said


def test_user_postfix_sees_the_queue_too(built: lab.Lab, tmp_path: Path) -> None:
    missing, gauges, _ = run_as("postfix", built, tmp_path)

    assert {"queue.active", "queue.deferred"} <= gauges
    assert not {"queue depth", "queued"} & missing["unavailable"]


def test_any_user_can_check_postfix_and_send_a_message_through_and_is_told_what_only_root_can(built: lab.Lab) -> None:
    python, environment = find_python("nobody")

    said = subprocess.run(
        as_user("nobody", python, "-P", "-m", "loadgen", "check", "--chain", str(built.directory / "chain.toml"), "--json"),
        capture_output=True, text=True, check=False, cwd="/", env=environment,
    )  # fmt: skip

    assert said.returncode == 0, said.stderr
    rules = {rule["id"]: rule for rule in json.loads(said.stdout)["rules"]}
    assert rules["C13"]["state"] == "ok"
    assert rules["C04"]["state"] == "unknown"
    assert "only root can ask" in rules["C04"]["answers"][0]["found"]
    assert "delivered at" in rules["C46"]["answers"][-1]["found"]
