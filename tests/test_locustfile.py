"""`from loadgen.traffic import SmtpUser` in a user's own locustfile, driven by the stock `locust` command."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripted_server import serve

LOCUSTFILE = """
from locust import constant, events, task
from loadgen.profile import Message
from loadgen.traffic import SmtpUser

class Mail(SmtpUser):
    host = "{host}"
    message = Message(size="2KiB")
    wait_time = constant(0.05)

    @task
    def send_one(self):
        self.send("newsletter")

@events.request.add_listener
def note(request_type, name, response_time, exception, **_):
    assert request_type == "SMTP"
"""


def run_locust(path: Path, host: str, seconds: int = 3) -> tuple[int, list[dict[str, object]], str]:
    path.write_text(LOCUSTFILE.format(host=host))
    command = [
        sys.executable, "-m", "locust", "-f", str(path), "--headless", "-u", "3", "-r", "3", "-t", f"{seconds}s",
        "--json", "--exit-code-on-error", "9",
    ]  # fmt: skip
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=path.parent, env=os.environ.copy()
    )
    return result.returncode, json.loads(result.stdout or "[]"), result.stderr


def test_stock_locust_sends_mail_and_counts_it(tmp_path: Path) -> None:
    received = 0
    sessions = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received, sessions
        sessions += 1
        writer.write(b"220 stub\r\n")
        while line := await reader.readline():
            if line.startswith(b"DATA"):
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                received += 1
            writer.write(b"250 ok\r\n")

    async def main() -> tuple[int, list[dict[str, object]], str]:
        async with serve(count) as port:
            return await asyncio.to_thread(run_locust, tmp_path / "locustfile.py", f"127.0.0.1:{port}")

    code, statistics, said = asyncio.run(main())
    by_name = {entry["name"]: entry for entry in statistics}

    assert code == 0, said
    assert by_name["newsletter"]["num_requests"] == received > 20
    assert by_name["newsletter"]["num_failures"] == 0
    # the session stays open from message to message: three users, three sessions
    assert by_name["connect"]["num_requests"] == sessions == 3


def test_unreachable_front_is_a_failure_in_locusts_statistics(tmp_path: Path) -> None:
    code, statistics, _ = run_locust(tmp_path / "locustfile.py", "127.0.0.1:1", seconds=2)

    assert code == 9
    assert {entry["name"] for entry in statistics} == {"connect"}
    assert all(entry["num_failures"] == entry["num_requests"] for entry in statistics)


@pytest.mark.parametrize(
    ("host", "want"),
    [("192.0.2.1:25", "neither a loopback nor a private address"), ("127.0.0.1", 'want "host:port" of the front')],
)
def test_refused_target_sends_nothing(tmp_path: Path, host: str, want: str) -> None:
    code, statistics, said = run_locust(tmp_path / "locustfile.py", host, seconds=2)

    assert code != 0
    assert statistics == []
    assert want in said
