"""The generator beside smtp-source on smtp-sink, and with very many sessions and messages: unique, recorded, counted by Locust.

pytest -m bench -s tests/bench/test_generator.py
"""

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.command import LOADGEN, loadgen

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

RECONNECTING = 'about = "one message per connection"\n[session]\nmessages_per_session = 1\n[[step]]\nconcurrency = 50\nhold = "1s"\n'


def calibrate(*arguments: str | Path) -> dict[str, Any]:
    said = loadgen("calibrate", *arguments, "--json", timeout_s=1500)
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    for name, one in found["contenders"].items():
        print(
            f"\n  {name:<12} {one['per_s_median']:>8.0f} msg/s  {one['cpu_s_per_message'] * 1e6:>5.1f} us CPU a message  "
            f"rounds {', '.join(f'{rate:.0f}' for rate in one['per_s'])}",
            end="",
        )
    print(f"\n  against smtp-source: {found['ratio_vs_smtp_source']:.2f}")
    return found


def calibrate_side_by_side(*arguments: str) -> list[float]:
    """Calibrate in two processes at once that know nothing of each other; CPU seconds per message of each."""
    # each with a loopback of its own, so that their sinks do not meet
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "alone"]
    command = [*alone, *LOADGEN, "calibrate", "--json", *arguments]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    return [json.loads(one.communicate()[0])["contenders"]["smtp-sink"]["cpu_s_per_message"] for one in both]


def test_fifty_sessions_are_faster_than_smtp_source() -> None:
    found = calibrate("--sessions", "50", "--messages", "100000", "--rounds", "5")

    assert found["ratio_vs_smtp_source"] >= 1.3
    assert found["contenders"]["smtp-sink"]["cpu_s_per_message"] <= 40e-6


def test_one_session_is_no_slower_than_smtp_source() -> None:
    found = calibrate("--sessions", "1", "--messages", "30000", "--rounds", "5")

    assert found["ratio_vs_smtp_source"] >= 1.0


def test_connection_for_every_message_costs_at_most_twice_what_smtp_source_needs(tmp_path: Path) -> None:
    profile = tmp_path / "reconnecting.toml"
    profile.write_text(RECONNECTING)

    found = calibrate(profile, "--messages", "20000", "--rounds", "5")

    assert found["ratio_vs_smtp_source"] >= 0.5


def test_ten_thousand_sessions_all_deliver_in_400_mb() -> None:
    found = calibrate("--sessions", "10000", "--messages", "200000", "--rounds", "1")

    own = found["contenders"]["own-sink"]
    print(f"  resident: {own['resident_bytes'][0][1] / 1e6:.0f} MB")
    assert own["failed_sessions"] == own["idle_sessions"] == [0]
    assert own["resident_bytes"][0][1] <= 400e6


def test_memory_stays_flat_over_a_million_messages() -> None:
    found = calibrate("--messages", "1000000", "--rounds", "1")

    start, end = found["contenders"]["own-sink"]["resident_bytes"][0]
    print(f"  resident: {start / 1e6:.0f} MB at the start, {end / 1e6:.0f} MB at the end")
    assert end - start <= 100e6


def test_two_workers_cost_little_more_than_one_process() -> None:
    one = calibrate("--messages", "60000", "--rounds", "5")["contenders"]["smtp-sink"]["cpu_s_per_message"]
    two = calibrate("--messages", "60000", "--rounds", "5", "--workers", "2")["contenders"]["smtp-sink"][
        "cpu_s_per_message"
    ]
    alone_together = statistics.median(calibrate_side_by_side("--messages", "60000", "--rounds", "5"))
    print(f"  two workers and their master against one process: {two / one:.2f}")
    print(f"  of that what two processes without a master cost each other on this machine: {alone_together / one:.2f}")

    assert two <= 1.15 * one
