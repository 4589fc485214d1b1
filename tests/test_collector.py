import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen.chain.spec import AmavisParts, Chain, PostfixParts, parse_address
from loadgen.channel import Outlet
from loadgen.collect.collector import Collector
from loadgen.collect.queues import QUEUES
from loadgen.records import TABLES

DATA = Path(__file__).parent / "data"
HERE = parse_address("127.0.0.1:25")


class Said:
    """What a collector has written, by event and by table."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        self._path = path
        self.outlet = Outlet(self._descriptor)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("event") == name]

    def rows(self, table: str) -> list[dict[str, Any]]:
        return [
            dict(zip(TABLES[table], row, strict=True))
            for line in self.lines()
            if line.get("table") == table
            for row in line["rows"]
        ]

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Said]:
    said = Said(tmp_path / "said")
    yield said
    said.close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for queue in QUEUES:
        (tmp_path / "spool" / queue).mkdir(parents=True)
    return tmp_path / "spool"


@pytest.fixture
def chain(tmp_path: Path, spool: Path) -> Chain:
    (tmp_path / "maillog").touch()
    (tmp_path / "amavis.log").touch()
    return Chain(
        kind="lab", name="lab", front=HERE, sink=HERE, filter=parse_address("127.0.0.1:28124"),
        postfix=PostfixParts(queue_directory=spool, maillog=tmp_path / "maillog"),
        amavis=AmavisParts(pid_file=tmp_path / "amavisd.pid", log=tmp_path / "amavis.log"),
    )  # fmt: skip


def log(path: Path | None, *lines: str) -> None:
    assert path is not None
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def record(name: str) -> list[str]:
    return (DATA / name).read_text().splitlines()


def test_the_gauges_for_the_eye_are_those_that_are_recorded(chain: Chain, said: Said) -> None:
    Collector(chain, said.outlet).tick(1.0)

    (tick,) = said.events("tick")
    assert tick["at"] == 1.0
    assert {row["name"]: row["value"] for row in said.rows("sample")} == tick["values"]
    assert tick["values"]["queue.active"] == 0
    assert tick["values"]["queue.pass1"] == 0
    assert tick["values"]["host.memory_available_bytes"] > 0


def test_what_cannot_be_read_costs_only_its_own_readings_and_is_told_once(chain: Chain, said: Said) -> None:
    collector = Collector(chain, said.outlet)
    for at in (1.0, 1.25):
        collector.tick(at)

    told = [event["reading"] for event in said.events("unavailable")]
    assert sorted(set(told)) == sorted(told)
    assert {"amavis.*", "postfix.*", "chain.cpu_s"} <= set(told)
    assert "queue.active" in said.events("tick")[1]["values"]
    assert not any(name.startswith("amavis.") for name in said.events("tick")[1]["values"])


def test_a_queue_that_may_not_be_read_is_no_empty_queue(chain: Chain, spool: Path, said: Said) -> None:
    (spool / "deferred").rmdir()

    Collector(chain, said.outlet).tick(1.0)

    assert "queue.active" not in said.events("tick")[0]["values"]
    (event,) = [e for e in said.events("unavailable") if e["reading"] == "queue depth"]
    assert event["reason"].endswith("deferred: No such file or directory")


def test_log_lines_become_rows_in_one_batch_per_table(chain: Chain, said: Said) -> None:
    collector = Collector(chain, said.outlet)
    collector.tick(1.0)
    assert chain.postfix is not None
    assert chain.amavis is not None
    log(chain.postfix.maillog, *record("maillog-healthy.log"))
    log(chain.amavis.log, *record("amavis-healthy.log"))

    collector.tick(1.25)

    assert len(said.rows("queue_entry")) == 44
    assert len(said.rows("delivery")) == 44
    assert len(said.rows("scan")) == 22
    assert {row["at"] for row in said.rows("delivery")} == {1.25}
    assert len([line for line in said.lines() if line.get("table") == "delivery"]) == 1


def test_messages_that_the_filter_keeps_are_told_at_once(chain: Chain, said: Said) -> None:
    collector = Collector(chain, said.outlet)
    collector.tick(1.0)
    assert chain.amavis is not None
    log(chain.amavis.log, *record("amavis-trouble.log"))

    collector.tick(1.25)

    assert [event["message_ids"] for event in said.events("gone")] == [["5eed02.1", "5eed02.0"]]


def test_a_blocked_message_without_message_id_is_found_by_its_queue_id(chain: Chain, said: Said) -> None:
    collector = Collector(chain, said.outlet)
    collector.tick(1.0)
    assert chain.postfix is not None
    assert chain.amavis is not None
    log(chain.postfix.maillog, "Nov 25 02:33:41 mx postfix/cleanup[2]: AAAAAA1: message-id=<7.1@loadgen.invalid>")
    log(
        chain.amavis.log,
        "Nov 25 02:33:41 mx amavis[3]: (00003-01) Blocked SPAM, <a> -> <b>, Queue-ID: AAAAAA1, Hits: 9, 5 ms",
    )

    collector.tick(1.25)

    assert said.events("gone")[0]["message_ids"] == ["7.1"]


def test_amavisd_is_read_from_the_maillog_where_it_has_no_file_of_its_own(chain: Chain, said: Said) -> None:
    collector = Collector(chain.model_copy(update={"amavis": None}), said.outlet)
    collector.tick(1.0)
    assert chain.postfix is not None
    log(
        chain.postfix.maillog, *(line.replace("/usr/sbin/amavisd[", "amavis[") for line in record("amavis-healthy.log"))
    )

    collector.tick(1.25)

    assert len(said.rows("scan")) == 22


def test_a_log_that_is_not_there_is_told_and_read_when_it_comes(chain: Chain, said: Said) -> None:
    assert chain.postfix is not None
    assert chain.postfix.maillog is not None
    chain.postfix.maillog.unlink()
    collector = Collector(chain, said.outlet)
    collector.tick(1.0)
    log(chain.postfix.maillog, *record("maillog-healthy.log"))

    collector.tick(1.25)

    assert str(chain.postfix.maillog) in [event["reading"] for event in said.events("unavailable")]
    assert "queue.pass1" not in said.events("tick")[0]["values"]
    assert len(said.rows("queue_entry")) == 44


@pytest.mark.parametrize(("pause_s", "want"), [(0.25, 0), (1.9, 0), (3.5, 1)])
def test_a_pause_of_more_than_two_seconds_is_remarked_upon(chain: Chain, said: Said, pause_s: float, want: int) -> None:
    collector = Collector(chain, said.outlet)
    collector.tick(1.0)

    collector.tick(1.0 + pause_s)

    gaps = [row for row in said.rows("remark") if row["kind"] == "collector-gap"]
    assert len(gaps) == want


def test_flush_reads_the_logs_before_it_answers(chain: Chain, said: Said) -> None:
    collector = Collector(chain, said.outlet)
    collector.tick(1.0)
    assert chain.postfix is not None
    log(chain.postfix.maillog, *record("maillog-healthy.log"))

    collector.obey({"command": "flush"}, 1.1)

    assert said.lines()[-1] == {"event": "flushed"}
    assert len(said.rows("delivery")) == 44


def test_a_snapshot_names_what_is_left_in_every_queue_before_it_answers(chain: Chain, spool: Path, said: Said) -> None:
    (spool / "deferred" / "4").mkdir()
    (spool / "deferred" / "4" / "4jZ3fW2FBGzJB5b").touch()
    (spool / "active" / "4jZ3fW1GSnzJB5Z").touch()

    Collector(chain, said.outlet).obey({"command": "snapshot", "step": 2}, 9.0)

    assert said.lines()[-1] == {"event": "snapshot", "step": 2}
    assert sorted((row["at"], row["step"], row["queue"], row["queue_id"]) for row in said.rows("queued")) == [
        (9.0, 2, "active", "4jZ3fW1GSnzJB5Z"),
        (9.0, 2, "deferred", "4jZ3fW2FBGzJB5b"),
    ]


def serve_status(path: Path, answer: bytes) -> Callable[[], None]:
    """Answer every connection to *path* as a reference chain does; return what ends it."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def run() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> None:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()

    return end


def reference_chain(path: Path) -> Chain:
    return Chain(kind="reference", name="reference", front=HERE, sink=HERE, reference_status=path)


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        pytest.param(b'{"queue.active": 3, "amavis.busy": 1.5}', {"queue.active": 3, "amavis.busy": 1.5}, id="gauges"),
        pytest.param(b'{"queue.active": 3, "x": NaN, "y": "z"}', {"queue.active": 3}, id="no-numbers-left-out"),
        pytest.param(b"[]", {}, id="no-object"),
        pytest.param(b"", {}, id="nothing"),
    ],
)
def test_a_reference_chain_tells_its_own_gauges(
    tmp_path: Path, said: Said, answer: bytes, want: dict[str, float]
) -> None:
    end = serve_status(tmp_path / "status", answer)
    try:
        Collector(reference_chain(tmp_path / "status"), said.outlet).tick(1.0)
    finally:
        end()

    values = said.events("tick")[0]["values"]
    assert {name: value for name, value in values.items() if not name.startswith(("host.", "own."))} == want
    assert len(said.events("unavailable")) == (0 if want else 1)


def test_the_process_is_ready_after_a_sample_obeys_and_ends_with_its_input(tmp_path: Path) -> None:
    end = serve_status(tmp_path / "status", b'{"queue.active": 3}')
    settings = {
        "chain": reference_chain(tmp_path / "status").model_dump(mode="json"), "clock_origin": 0.0, "rate_hz": 50.0,
        "watch": {},
    }  # fmt: skip
    command = [sys.executable, "-m", "loadgen.collect.collector"]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None

            def tell(value: dict[str, Any]) -> None:
                assert process.stdin is not None
                print(json.dumps(value), file=process.stdin, flush=True)

            def wait_for(found: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
                assert process.stdout is not None
                lines = []
                for text in process.stdout:
                    lines.append(json.loads(text))
                    if found(lines[-1]):
                        return lines
                raise AssertionError(lines[-3:])

            tell(settings)
            begin = wait_for(lambda line: line.get("event") == "ready")
            assert [line.get("event") for line in begin if "event" in line][-2:] == ["tick", "ready"]
            process.send_signal(signal.SIGINT)
            tell({"command": "watch", "watch": {"generator": os.getpid()}})
            wait_for(lambda line: line.get("event") == "tick" and "own.generator_cpu_s" in line["values"])
            tell({"command": "snapshot", "step": 1})
            tell({"command": "flush"})
            wait_for(lambda line: line.get("event") == "flushed")
            process.stdin.close()
            process.stdout.read()
            assert process.wait() == 0
    finally:
        end()


def test_a_bounced_message_is_told_so_that_nobody_waits_for_it(chain: Chain, said: Said) -> None:
    collector = Collector(chain, said.outlet)
    collector.tick(1.0)
    assert chain.postfix is not None
    head = "Nov 25 02:30:00 mx lab-record"
    log(
        chain.postfix.maillog,
        f"{head}/smtpd[1]: 4jZ3ND5MYpzByg2: client=unknown[127.0.0.1]",
        f"{head}/cleanup[2]: 4jZ3ND5MYpzByg2: message-id=<5eed02.9@loadgen.invalid>",
        f"{head}/smtp[3]: 4jZ3ND5MYpzByg2: to=<b@loadgen.test>, relay=127.0.0.1[127.0.0.1]:1, delay=0.1,"
        " delays=0/0/0/0.1, dsn=5.1.1, status=bounced (host said: 550 5.1.1 no such user)",
    )

    collector.tick(1.25)

    assert said.events("gone")[0]["message_ids"] == ["5eed02.9"]
