"""What one run contributes to a comparison or a gate: a few values, taken from its summary.

The unit of every comparison is the run. What is kept here is also what a
baseline stores, so that an old run can be compared without its directory.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypedDict

from reports.steprow import Interval, StepRow, name_step
from reports.summary import Summary

__all__ = ["RunValues", "StepValues", "digest_settings", "is_same_machine", "load_of", "read_values"]


class StepValues(TypedDict):
    """One valid step."""

    entry: str
    concurrency: int
    rate_per_s: float | None
    delivered_per_s: float | None
    response_p50_s: float | None
    response_p95_s: float | None
    memory_bytes: float | None


class RunValues(TypedDict):
    """One run."""

    directory: str
    started_at: float | None
    """Unix seconds."""
    status: str
    """complete, incomplete or invalid."""
    end_reason: str
    profile: str
    workload_hash: str
    is_sweep: bool
    machine: dict[str, Any]
    """hostname, cpu_model, cpus, memory_bytes, kernel."""
    software: dict[str, str]
    settings: dict[str, list[str]]
    """File to its lines, without those that differ between any two labs; in a baseline one digest instead."""
    generator_per_s: float | None
    """What this machine's generator carried just before, msg/s (`calibrate`); None: not measured."""
    saturated_per_s: float | None
    """The plateau; None: none was found."""
    delivered_per_s_interval: Interval | None
    """95 %, from within the run: of the plateau, else of the step with the most sessions."""
    cpu_s_per_message: float | None
    steps: list[StepValues]
    """Valid ones at the outermost entry, the lightest load first."""
    not_valid: list[str]
    """Steps that are not valid, each with the reasons."""
    messages: int
    undelivered: int
    """Refused, blocked, bounced, not sent, queued, lost or unknown."""
    lost: int
    recommended_processes: int | None
    recommended_interval: list[int] | None


def read_values(summary: Summary) -> RunValues:
    """Return what *summary* contributes."""
    facts, accounting, verdict = summary["run"], summary["accounting"], summary["verdict"]
    rows = _outermost(summary["steps"])
    interval = verdict["delivered_per_s_interval"]
    if not verdict["saturated"]:
        interval = rows[-1]["delivered_per_s_interval"] if rows else None
    sweep, recommendation = summary["sweep"], summary["recommendation"]
    return RunValues(
        directory=facts["directory"],
        started_at=facts["started_at"],
        status=summary["status"],
        end_reason=facts["end_reason"],
        profile=summary["profile"],
        workload_hash=facts["workload_hash"],
        is_sweep=sweep is not None,
        machine={
            "hostname": facts["host"].get("hostname"), "cpu_model": facts["host"].get("cpu_model"), "cpus": facts["cpus"],
            "memory_bytes": facts["memory_bytes"], "kernel": facts["host"].get("kernel"),
        },
        software=facts["software"],
        settings={
            name: sorted({line.strip() for line in text.splitlines() if _is_telling(line.strip())})
            for name, text in summary["settings"].items()
        },
        generator_per_s=facts["generator_per_s"],
        saturated_per_s=(
            recommendation["delivered_per_s"] if sweep else verdict["delivered_per_s"] if verdict["saturated"] else None
        ),
        delivered_per_s_interval=recommendation["delivered_per_s_interval"] if sweep else interval,
        cpu_s_per_message=summary["cost"]["chain_cpu_s_per_message"],
        steps=[_read_step(row) for row in rows],
        not_valid=[f"{name_step(row)}: {'; '.join(row['reasons'])}" for row in summary["steps"] if not row["valid"]],
        messages=accounting["messages"],
        undelivered=accounting["messages"] - accounting["delivered"],
        lost=accounting["lost"],
        recommended_processes=recommendation["processes"] if sweep else None,
        recommended_interval=recommendation["interval"] if sweep else None,
    )  # fmt: skip


def _outermost(rows: Sequence[StepRow]) -> list[StepRow]:
    entry = rows[0]["entry"] if rows else "front"
    valid = [row for row in rows if row["valid"] and row["entry"] == entry]
    return sorted(valid, key=lambda row: (row["concurrency"], row["rate_per_s"] or 0.0))


def _read_step(row: StepRow) -> StepValues:
    return StepValues(
        entry=row["entry"], concurrency=row["concurrency"], rate_per_s=row["rate_per_s"],
        delivered_per_s=row["delivered_per_s"], response_p50_s=row["response_s"]["p50"],
        response_p95_s=row["response_s"]["p95"], memory_bytes=row["memory_bytes"],
    )  # fmt: skip


def _is_telling(line: str) -> bool:
    # a lab has other ports and another place each time
    return bool(line) and not any(words in line for words in ("/labs/", "127.0.0.", "syslog_name", "inet_socket_port"))


def digest_settings(settings: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return *settings* with one line for each file, equal where the file was equal; what they say stays at home."""
    return {name: [_digest(lines)] for name, lines in settings.items()}


_DIGEST = "sha256:"


def _digest(lines: Sequence[str]) -> str:
    if len(lines) == 1 and lines[0].startswith(_DIGEST):
        return lines[0]
    return _DIGEST + hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def is_same_machine(one: RunValues, other: RunValues) -> bool:
    """Return whether two runs were made on machines of one kind; names and kernels may differ."""
    return _fingerprint(one["machine"]) == _fingerprint(other["machine"])


def _fingerprint(machine: dict[str, Any]) -> tuple[Any, ...]:
    # two machines of one kind report a little more or less memory
    return machine.get("cpu_model"), machine.get("cpus"), round((machine.get("memory_bytes") or 0) / 2**30)


def load_of(step: StepValues) -> tuple[str, int, float]:
    """Return what was asked of the chain in *step*: entry, sessions and rate."""
    return step["entry"], step["concurrency"], step["rate_per_s"] or 0.0
