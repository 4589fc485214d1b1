"""`loadgen calibrate`: what the generator can do, before anything is measured with it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.command import loadgen

QUICK = ("--messages", "15000", "--rounds", "2", "--sessions", "8")


def test_generator_is_measured_into_its_own_sink_and_beside_smtp_source() -> None:
    said = loadgen("calibrate", *QUICK, "--size", "2KiB", "--json")

    assert said.returncode == 0, said.stderr
    got = json.loads(said.stdout)
    assert (got["sessions"], got["messages"], got["size_bytes"]) == (8, 15000, 2048)
    own = got["contenders"]["own-sink"]
    assert len(own["per_s"]) == 2
    assert all(rate > 0 for rate in own["per_s"])
    assert own["cpu_s_per_message"] > 0
    assert got["findings"] == []
    if shutil.which("smtp-source") and shutil.which("smtp-sink"):
        ours, theirs = got["contenders"]["smtp-sink"]["per_s"], got["contenders"]["smtp-source"]["per_s"]
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        assert ratios[0] <= got["ratio_vs_smtp_source"] <= ratios[1]
    else:
        assert got["ratio_vs_smtp_source"] is None
        assert got["missing"]


def test_rate_beyond_the_generator_is_said_beforehand(tmp_path: Path) -> None:
    profile = tmp_path / "wild.toml"
    profile.write_text(
        'about = "wild"\n[pacing]\nkind = "rate"\n[[step]]\nconcurrency = 8\nhold = "10s"\nrate = 99999\n'
    )

    said = loadgen("calibrate", profile, "--messages", "15000", "--rounds", "1")

    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("8 sessions, kept open; 15000 messages")
    assert "the profile's 99999 msg/s are" in said.stdout
    assert "generator-saturated" in said.stdout


def test_profile_whose_sessions_carry_one_message_each_is_measured_so(tmp_path: Path) -> None:
    profile = tmp_path / "one.toml"
    profile.write_text('about = "one"\n[session]\nmessages_per_session = 1\n[[step]]\nconcurrency = 4\nhold = "10s"\n')

    got = json.loads(loadgen("calibrate", profile, "--messages", "5000", "--rounds", "1", "--json").stdout)

    assert got["messages_per_session"] == 1
    assert got["contenders"]["own-sink"]["per_s"][0] > 0


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param(["quick", "--size", "1KiB"], "quick has sizes of its own", id="two-sizes"),
        pytest.param(["--size", "big"], "want a size with a unit", id="no-size"),
        pytest.param(["nosuch"], "no such profile", id="no-profile"),
    ],
)
def test_wrong_call_says_what_to_do(arguments: list[str], want: str) -> None:
    said = loadgen("calibrate", *arguments)

    assert said.returncode == 2
    assert want in said.stderr
