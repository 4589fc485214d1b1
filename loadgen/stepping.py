"""Take one step through its phases: settle, ramp, warm-up, hold, drain.

The clockwork around the pure `plan.next_phase`: looks at the crew ten times a
second, announces each phase to the generator, and ends the hold of a step that
is held for a precision as soon as the throughput is known well enough. That is
looked at at growing distances, because an interval that is looked at all the
time is narrow by chance sooner or later.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

import numpy as np

from loadgen.crew import Crew
from loadgen.plan import Step, next_phase
from reports.steady import find_warm_up, is_precise, measure_rate

__all__ = ["take_step"]

_TURN_S = 0.1
_NOTHING_LEFT_S = 2.0
"""Queues empty for this long, and messages still missing: they are not in the chain any more."""
_REST_S = 1.0
"""A child that is about to retire looks free for a moment; none does for this long."""
_INTERRUPTED_DRAIN_S = 10.0
_ABORT_TIMEOUT_S = 10.0
_LOOK_AGAIN = 1.4
"""Times the length of the hold at which it was last looked whether it is enough."""


async def take_step(crew: Crew, step: Step, show: Callable[[str, float], None]) -> None:
    """Take *step* from its settling to the end of its drain; its row in the record is the caller's.

    *show* gets the phase and the seconds since it began, ten times a second.
    """
    crew.stop_step, crew.sessions, crew.opened = "", 0, 0
    crew.closed.clear()
    phase, since = "settle", crew.now()
    _announce(crew, step, phase, since)
    ramp_limit_s = crew.profile.session.connect_timeout_s + 5.0
    look_at_s = step.hold_s
    precise = False
    while phase != "end":
        await asyncio.sleep(_TURN_S)
        now = crew.now()
        if phase == "hold" and step.precision is not None and not precise and now - since >= look_at_s:
            precise = _is_known(crew, since, now, step.precision)
            look_at_s *= _LOOK_AGAIN
        drained = phase == "drain" and _is_drained(crew)
        interrupted = phase == "drain" and crew.interrupts and now - since > _INTERRUPTED_DRAIN_S
        new = next_phase(
            step, phase, now - since, settled=_is_settled(crew),
            sessions_open=crew.opened >= step.concurrency or now - since > ramp_limit_s, precise=precise,
            drained=drained or bool(interrupted) or crew.interrupts > 1 or (crew.nothing_comes_out and crew.closed.is_set()),
            stop=bool(crew.stop_step),
        )  # fmt: skip
        if new == "end":
            await _close_step(crew, step, drained, now - since)
        if new != phase:
            phase, since = new, crew.now()
            _announce(crew, step, phase, since)
        show(phase, now - since)


def _announce(crew: Crew, step: Step, phase: str, at: float) -> None:
    crew.writer.write_rows("phase", [(at, step.step, phase)])
    crew.children["generator"].tell({"command": "phase", "step": asdict(step), "phase": phase})


def _is_known(crew: Crew, since: float, now: float, precision: float) -> bool:
    """Return whether the throughput since the hold began is known to *precision*; as the report will work it out."""
    completed = np.array(crew.tally.completed_at[crew.tally.find(since) :])
    steady_at = find_warm_up(completed, since, now)
    return steady_at is not None and is_precise(measure_rate(completed, steady_at, now), precision)


def _is_drained(crew: Crew) -> bool:
    if not crew.closed.is_set():
        return False
    if "queue.active" not in crew.gauges:
        return not crew.tally.on_the_way
    if crew.empty_since is None:
        return False
    if not crew.tally.on_the_way:
        return True
    return crew.now() - crew.empty_since > _NOTHING_LEFT_S


def _is_settled(crew: Crew) -> bool:
    """Return whether the filter is at rest; a chain whose processes cannot be seen always is."""
    if crew.chain.kind == "reference" or "amavis.free" not in crew.gauges:
        return True
    return crew.resting_since is not None and crew.now() - crew.resting_since >= _REST_S


async def _close_step(crew: Crew, step: Step, drained: bool, waited_s: float) -> None:
    """End what is still open, read the logs up to here, and list what is left in the queues."""
    if not crew.closed.is_set():
        crew.children["generator"].tell({"command": "abort"})
        with suppress(TimeoutError):  # a generator that does not answer is dealt with at the end of the run
            await asyncio.wait_for(crew.closed.wait(), _ABORT_TIMEOUT_S)
    await crew.ask_collector("flushed", {"command": "flush"})
    await crew.ask_collector("snapshot", {"command": "snapshot", "step": step.step})
    if not drained:
        left = len(crew.tally.on_the_way)
        text = f"step {step.step + 1}: not drained after {waited_s:.0f} s, {left} messages not delivered"
        crew.remark("run", "not-drained", text)
        # the next step would start with this one's mail
        crew.stop_run = crew.stop_run or f"not-drained: {text}"
