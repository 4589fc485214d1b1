"""Builds what runs contribute to a comparison or a gate, without any run."""

from collections.abc import Sequence
from typing import Any, cast

from reports.runvalues import RunValues, StepValues

HASH = "0123456789abcdef"


def make_values(per_s: float = 16.0, **changes: Any) -> RunValues:
    """Return a complete run of one step at 8 sessions that delivered *per_s*, with *changes*."""
    run = RunValues(
        directory="2026-05-28T20-26-40Z-ci-gate", started_at=1_780_000_000.0, status="complete", end_reason="",
        profile="ci-gate", workload_hash=HASH, is_sweep=False,
        machine={"hostname": "mx1", "cpu_model": "Some CPU", "cpus": 2, "memory_bytes": 8 << 30, "kernel": "6.1.0"},
        software={"postfix": "3.7.11"}, settings={"main.cf": ["soft_bounce = no"]}, generator_per_s=None,
        saturated_per_s=None, delivered_per_s_interval=[0.97 * per_s, 1.03 * per_s], cpu_s_per_message=0.12,
        steps=[
            StepValues(
                entry="front", concurrency=8, rate_per_s=None, delivered_per_s=per_s, response_p50_s=8 / per_s,
                response_p95_s=9 / per_s, memory_bytes=150e6,
            )
        ],
        not_valid=[], messages=1000, undelivered=0, lost=0, recommended_processes=None, recommended_interval=None,
    )  # fmt: skip
    return cast(RunValues, cast(dict[str, Any], run) | changes)


def make_side(values: Sequence[float], **changes: Any) -> list[RunValues]:
    """Return one run for each throughput."""
    return [make_values(value, directory=f"run{number}", **changes) for number, value in enumerate(values)]
