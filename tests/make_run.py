"""Builds synthetic run directories: a closed system of known capacity, written as a real run would be.

A first-come first-served station with `processes` servers and a service time
that is known, so throughput and response times are known too:
X = min(N, P) / S and R = N / X. No clock and no randomness but a seeded one.
"""

import heapq
import json
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loadgen.records import RunWriter

RUN_ID = "abcd1234"
CPUS = 4


@dataclass
class Made:
    """What to build; the defaults are a healthy run that saturates at four processes."""

    concurrencies: Sequence[int] = (1, 2, 4, 8)
    entries: Sequence[str] = ("front",)
    """Where messages are put in; every concurrency once at each."""
    entry_factor: dict[str, float] = field(default_factory=dict)
    """Entry to a factor on the service time."""
    processes: int = 4
    service_s: float = 0.1
    spread: float = 0.05
    """Relative standard deviation of the service time."""
    warm_up_s: float = 3.0
    hold_s: float = 20.0
    kind: str = "lab"
    feed_processes: int | None = None
    destination_limit: int | None = None
    cpu_share: float = 0.5
    """Share of the host that is busy when all processes are."""
    logs: bool = True
    telemetry: bool = True
    timing: dict[str, float] = field(default_factory=lambda: {"SMTP DATA": 0.003, "SA check": 0.07})
    c_s: float = 0.0
    held: float = 0.0
    generator_cores: float = 0.05
    sink_cores: float = 0.02
    pacing: str = "delivered"
    rates: Sequence[float] = ()
    """Offered rates, for pacing "rate"; the system is then open."""
    status: str = "complete"
    service_factor: dict[int, float] = field(default_factory=dict)
    """Concurrency to a factor on the service time, for a chain that falls."""
    known: bool = False


def make_run(directory: Path, made: Made | None = None) -> Path:
    """Write a run directory and return it."""
    made = made or Made()
    directory.mkdir(parents=True, exist_ok=True)
    with RunWriter(directory) as writer:
        _write_meta(writer, made)
        at, number = 1.0, 0
        planned = [(concurrency, entry) for concurrency in made.concurrencies for entry in made.entries]
        for step, (concurrency, entry) in enumerate(planned):
            if entry != "front":
                writer.write_rows("entry", [(step, entry)])
            slower = replace(made, service_s=made.service_s * made.entry_factor.get(entry, 1.0))
            at, number = _write_step(writer, slower, step, concurrency, at, number)
        writer.write_meta("ended_at", at)
        writer.write_meta("locust", {"requests": number, "failures": 0})
        writer.write_meta("end_reason", "" if made.status == "complete" else "interrupted by the user")
        writer.write_meta("status", made.status)
    return directory


def change(directory: Path, sql: str, parameters: Sequence[Any] = ()) -> int:
    """Plant something: run *sql* on the record and return how many rows it touched."""
    db = sqlite3.connect(directory / "run.sqlite")
    with db:
        count = db.execute(sql, parameters).rowcount
    db.close()
    return count


def set_meta(directory: Path, key: str, value: object) -> None:
    change(directory, "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))


def expected_rate(made: Made, concurrency: int) -> float:
    return min(concurrency, made.processes) / (made.service_s * made.service_factor.get(concurrency, 1.0))


def _write_meta(writer: RunWriter, made: Made) -> None:
    profile = {
        "about": "Climb and see.",
        "seed": 1,
        "pacing": {"kind": made.pacing},
        "entries": list(made.entries),
        "step": [{"concurrency": n, "hold_s": made.hold_s} for n in made.concurrencies],
    }
    chain: dict[str, Any] = {
        "kind": made.kind,
        "name": made.kind,
        "front": {"host": "127.0.0.1", "port": 11025},
        "filter": {"host": "127.0.0.1", "port": 11024},
        "reinjection": {"host": "127.0.0.1", "port": 11035},
        "sink": {"host": "127.0.0.1", "port": 11026},
        "processes": made.processes if made.feed_processes in (None, made.processes) else None,
        "feed_processes": made.feed_processes or made.processes,
        "filter_servers": made.processes,
        "destination_concurrency_limit": made.destination_limit or 20,
        "law": "S = 100 ms, P servers" if made.kind == "reference" else "",
        "known_delivered_per_s": {n: n / made.service_s for n in range(1, 65)} if made.known else {},
    }
    host = {
        "hostname": "mx1", "cpus": CPUS, "cpu_model": "Some CPU", "memory_bytes": 8 << 30, "kernel": "6.1.0",
        "python": "3.11", "queue_filesystem": "ext4", "disk": "/dev/vda1",
    }  # fmt: skip
    software = {
        "loadgen": "0.1.0",
        "locust": "2.47.0",
        "postfix": "3.7.11",
        "amavisd": "2.13.0",
        "spamassassin": "4.0.1",
    }
    settings = {"amavisfeed_destination_concurrency_limit": "20", "queue_directory": "/var/spool/postfix"}
    for key, value in (
        ("version", "0.1.0"), ("profile_name", "steps"), ("profile_text", ""), ("profile", profile),
        ("workload_hash", "0123456789abcdef"), ("seed", 1), ("chain_choice", f"{made.kind}: asked for"),
        ("started_at", 1_780_000_000.0), ("run_id", RUN_ID), ("chain", chain), ("settings", settings), ("host", host),
        ("software", software),
    ):  # fmt: skip
        writer.write_meta(key, value)


def _write_step(
    writer: RunWriter, made: Made, step: int, concurrency: int, at: float, number: int
) -> tuple[float, int]:
    rate = made.rates[step] if made.rates else None
    writer.write_rows("step", [(step, made.processes, "stock", concurrency, rate, made.warm_up_s, made.hold_s)])
    ramp_at, hold_at = at, at + 0.2 + made.warm_up_s
    drain_at = hold_at + made.hold_s
    sent = _simulate(made, step, concurrency, rate, ramp_at + 0.2, drain_at)
    end_at = max([drain_at, *(done for _, _, _, done, _ in sent)]) + 0.5
    writer.write_rows(
        "phase",
        [
            (ramp_at, step, "ramp"), (ramp_at + 0.2, step, "warm-up"), (hold_at, step, "hold"), (drain_at, step, "drain"),
            (end_at, step, "end"),
        ],
    )  # fmt: skip
    first_session = step * 1000
    counts = [0] * concurrency
    for place, (session, due, begun, done, started) in enumerate(sent):
        counts[session] += 1
        _write_message(writer, made, step, number + place, first_session + session, (due, started, begun, done))
    writer.write_rows(
        "session",
        [(first_session + s, step, ramp_at + 0.1, 0.001, 0.001, None, None, drain_at, counts[s], "") for s in range(concurrency)],
    )  # fmt: skip
    if made.telemetry:
        _write_samples(writer, made, sent, ramp_at, end_at)
    return end_at + 0.2, number + len(sent)


def _simulate(
    made: Made, step: int, concurrency: int, rate: float | None, start: float, stop: float
) -> list[tuple[int, float, float, float, float]]:
    """Return session, due, service began, done, started of each message, first come first served."""
    rng = random.Random(f"{step}:{concurrency}")
    mean = made.service_s * made.service_factor.get(concurrency, 1.0)
    free = [0.0] * made.processes
    heapq.heapify(free)

    def serve(arrived: float) -> tuple[float, float]:
        begun = max(arrived, heapq.heappop(free))
        done = begun + mean * max(0.2, rng.gauss(1, made.spread))
        heapq.heappush(free, done)
        return begun, done

    sent = []
    if rate is not None:
        due = start
        place = 0
        while (due := due + 1 / rate) < stop:
            begun, done = serve(due + 0.001)
            sent.append((place % concurrency, due, begun, done, due + 0.001))
            place += 1
        return sent
    waiting = [(start + mean * s / concurrency, s) for s in range(concurrency)]
    heapq.heapify(waiting)
    while waiting:
        started, session = heapq.heappop(waiting)
        if started >= stop:
            continue
        begun, done = serve(started)
        sent.append((session, started, begun, done, started))
        heapq.heappush(waiting, (done, session))
    return sent


def _write_message(
    writer: RunWriter, made: Made, step: int, number: int, session: int, times: tuple[float, float, float, float]
) -> None:
    due, started, begun, done = times
    name = f"{RUN_ID}.{number}"
    writer.write_rows(
        "message",
        [(name, step, session, 4096, 1, due, started, started + 0.002, 0.001, 0.001, "accepted", 250, "2.0.0 Ok: queued")],
    )  # fmt: skip
    writer.write_rows("arrival", [(name, done, 1, 4200)])
    if not made.logs:
        return
    first, second = f"A{number:09d}", f"B{number:09d}"
    # the header as Postfix logs it, and without brackets, are both met with
    written = f"<{name}@loadgen.invalid>" if number % 2 else f"{name}@loadgen.invalid"
    writer.write_rows("queue_entry", [(first, written, 1, ""), (second, written, 2, first)])
    d = done - begun
    writer.write_rows(
        "delivery",
        [
            (done, "feed", first, "127.0.0.1", 1, done - started, 0.001, begun - started, made.c_s, d, "2.0.0", "sent", "250 2.0.0", second),
            (done, "delivery", second, "127.0.0.1", 1, 0.01, 0.001, 0.001, 0.001, 0.004, "2.0.0", "sent", "250 2.0.0", ""),
        ],
    )  # fmt: skip
    am_id = f"{number:05d}-01"
    writer.write_rows(
        "scan",
        [(done, am_id, "Passed", "CLEAN", first, second, written, 0.5, 4096, d)],
    )
    writer.write_rows("timing", [(done, am_id, name, value) for name, value in made.timing.items()])


def _write_samples(
    writer: RunWriter,
    made: Made,
    sent: list[tuple[int, float, float, float, float]],
    start: float,
    end: float,
) -> None:
    rows: list[tuple[float, str, float]] = []
    spans = [(started, begun, done) for _, _, begun, done, started in sent]
    first = 0
    spans.sort()
    tick = start
    while tick < end:
        while first < len(spans) and spans[first][2] < tick - 60:
            first += 1
        inside = [s for s in spans[first:] if s[0] <= tick < s[2]]
        busy = sum(1 for s in inside if s[1] <= tick)
        share = busy / made.processes
        values = {
            "queue.maildrop": 0, "queue.incoming": 0, "queue.active": len(inside), "queue.deferred": 0, "queue.hold": 0,
            "queue.pass1": len(inside), "queue.pass2": 0,
            "postfix.amavisfeed": made.feed_processes or made.processes, "feed.sessions": busy,
            "amavis.busy": busy, "amavis.held": made.held, "amavis.free": max(0, made.processes - busy - made.held),
            "amavis.children": made.processes, "filter.accept_queue": 0,
            "host.cpu_busy": CPUS * made.cpu_share * share + 0.05, "host.cpu_iowait": 0.01, "host.cpu_steal": 0.0,
            "host.memory_available_bytes": 4e9, "host.disk_write_bytes_per_s": 1e6, "host.disk_busy": 0.1,
            "host.psi_cpu_some": made.cpu_share * share, "host.psi_io_some": 0.01, "host.psi_io_full": 0.0,
            "host.psi_memory_some": 0.0,
            "chain.cpu_s": CPUS * made.cpu_share * tick, "own.generator_cpu_s": made.generator_cores * tick,
            "own.sink_cpu_s": made.sink_cores * tick, "own.collector_cpu_s": 0.01 * tick, "own.conductor_cpu_s": 0.005 * tick,
        }  # fmt: skip
        rows += [(tick, name, float(value)) for name, value in values.items()]
        tick += 0.25
    writer.write_rows("sample", rows)
