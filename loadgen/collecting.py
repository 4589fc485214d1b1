"""The collector of a run, on this host or behind a command on another one: started, its clock set, its log places kept.

Another host has another monotonic clock. How far it is from ours is measured
before the first sample, by the fastest of some questions and answers; half of
what that one took is how far off it may be.
"""

import time
from dataclasses import dataclass
from typing import Any

from loadgen.chain.spec import Chain
from loadgen.child import Child, python_module

__all__ = ["ClockOffset", "describe_collector", "describe_own_part", "measure_clock", "wait_until_ready"]

_START_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 10.0
_QUESTIONS = 20
_RATE_HZ = 4.0


@dataclass(frozen=True)
class ClockOffset:
    """Of another host's monotonic clock, seconds."""

    ahead_s: float
    error_s: float
    """Half of the fastest round trip."""


def describe_collector(chain: Chain, origin: float, places: dict[str, list[int]]) -> tuple[list[str], dict[str, Any]]:
    """Return the command and the settings of the collector of *chain*.

    Args:
        chain: With the command that starts a collector where the chain is, if that is not here.
        origin: Of the run's clock, on our monotonic one; another host is told later, on its own.
        places: How far each log has been read by an earlier one; empty: from their ends.
    """
    settings = {"chain": chain.model_dump(mode="json"), "rate_hz": _RATE_HZ, "watch": {}, "places": places}
    if chain.collector is None:
        return python_module("loadgen.collect.collector"), {**settings, "clock_origin": origin}
    return list(chain.collector), {**settings, "clock_origin": None}


async def wait_until_ready(child: Child, chain: Chain, origin: float) -> ClockOffset | None:
    """Set the clock of a collector that has been started, return once it samples; the offset of its clock, None: it is ours.

    Raises:
        UsageError: it ended, or said that it failed.
        TimeoutError: it did not answer in time.
    """
    child.expect("ready")
    offset = None
    if chain.collector is not None:
        offset = await measure_clock(child)
        child.tell({"command": "origin", "clock_origin": origin + offset.ahead_s})
    await child.receive("ready", _START_TIMEOUT_S)
    return offset


async def measure_clock(child: Child, origin: float = 0.0) -> ClockOffset:
    """Return how far the clock of *child* is ahead of ours, counted from *origin* once it knows that.

    Raises:
        UsageError: it ended.
        TimeoutError: it did not answer in time.
    """
    best: ClockOffset | None = None
    for number in range(_QUESTIONS):
        child.expect("clock")
        asked_at = time.monotonic()
        child.tell({"command": "clock"})
        # a host that is only just being connected to takes longer with the first answer
        answer = await child.receive("clock", _ANSWER_TIMEOUT_S if number else _START_TIMEOUT_S)
        answered_at = time.monotonic()
        found = ClockOffset(answer["at"] + origin - (asked_at + answered_at) / 2, (answered_at - asked_at) / 2)
        if best is None or found.error_s < best.error_s:
            best = found
    assert best is not None  # noqa: S101 (there are questions)
    return best


def describe_own_part(chain: Chain, origin: float) -> dict[str, Any]:
    """Return the settings of a collector that looks at our own processes only, where the chain is elsewhere."""
    parts = {"postfix": None, "amavis": None, "reference_status": None, "collector": None}
    return {
        "clock_origin": origin, "chain": chain.model_copy(update=parts).model_dump(mode="json"), "rate_hz": _RATE_HZ, "watch": {},
        "own_only": True,
    }  # fmt: skip
