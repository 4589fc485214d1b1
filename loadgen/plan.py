"""Turn a profile into steps and answer questions about them.

Pure arithmetic: no clock, no sockets, no Locust. `loadgen.run` asks which
phase a step is in, `loadgen.traffic.shape` how many sessions should be open,
the progress line how much time is left. All must get the same answer, so it
is worked out only here.

A step passes through settle (no load; the filter's processes come to rest and
back to their number), ramp (sessions are being opened), warm-up (load is on,
nothing is reported), hold (the measured part) and drain (load is off, the
queues empty). Warm-up and hold have a length; the others end when the chain
says so.
"""

from dataclasses import dataclass

from loadgen.profile import Profile, StepEntry

__all__ = ["PHASES", "SETTLE_LIMIT_S", "Plan", "Step", "concurrency_in", "make_plan", "next_phase", "remaining_s"]

PHASES = ("settle", "ramp", "warm-up", "hold", "drain", "end")


@dataclass(frozen=True)
class Step:
    """One level of concurrency, held long enough to be a measurement."""

    step: int
    """Position in the run, from 0."""
    concurrency: int
    rate_per_s: float | None
    """Offered load when the pacing is "rate", else None."""
    warm_up_s: float
    hold_s: float
    """The shortest, when there is a precision to be reached."""
    drain_limit_s: float
    """Longest wait for the queues to empty."""
    hold_limit_s: float
    """The longest hold; equal to `hold_s` when there is no precision to be reached."""
    precision: float | None = None
    """Relative half-width of the interval of the throughput at which the hold may end; None: it just lasts."""
    entry: str = "front"
    """Where its messages are put into the chain."""


@dataclass(frozen=True)
class Plan:
    """What a run will do, in order."""

    steps: tuple[Step, ...]


def make_plan(profile: Profile) -> Plan:
    """Return the steps that *profile* describes, in the order in which it lists them, each at every entry in turn."""
    wanted = [(step, entry) for step in profile.step for entry in profile.entries]
    return Plan(tuple(_make_step(profile, number, *one) for number, one in enumerate(wanted)))


def _make_step(profile: Profile, number: int, step: StepEntry, entry: str) -> Step:
    return Step(
        step=number,
        concurrency=step.concurrency,
        rate_per_s=step.rate_per_s,
        warm_up_s=profile.timing.warm_up_s,
        hold_s=step.hold_s,
        drain_limit_s=profile.timing.drain_s,
        hold_limit_s=step.hold_limit_s or step.hold_s,
        precision=profile.timing.precision if step.hold_limit_s is not None else None,
        entry=entry,
    )


def concurrency_in(step: Step | None, phase: str) -> int:
    """Return how many sessions should be open in *phase* of *step*; 0 between steps and while draining."""
    if step is None or phase not in ("ramp", "warm-up", "hold"):
        return 0
    return step.concurrency


SETTLE_LIMIT_S = 12.0
"""Longest wait for the filter's processes: a retired one is replaced at once or within 10 s."""


def next_phase(
    step: Step,
    phase: str,
    elapsed_s: float,
    *,
    settled: bool,
    sessions_open: bool,
    drained: bool,
    precise: bool = False,
    stop: bool = False,
) -> str:
    """Return the phase that *step* should be in, given that it has been in *phase* for *elapsed_s*.

    Args:
        step: The step.
        phase: Its phase so far.
        elapsed_s: Seconds since that phase began.
        settled: The filter has all of its processes, and no idle session of the feed holds one.
        sessions_open: Every session of the step has been opened (or has failed to).
        drained: Nothing of this run is left in the chain.
        precise: The throughput of the hold is known as exactly as the step asks for.
        stop: The load must end now (a limit was reached, or the user interrupted).
    """
    if stop and phase in ("settle", "ramp", "warm-up", "hold"):
        return "drain"
    if phase == "settle" and (settled or elapsed_s >= SETTLE_LIMIT_S):
        return "ramp"
    if phase == "ramp" and sessions_open:
        return "warm-up"
    if phase == "warm-up" and elapsed_s >= step.warm_up_s:
        return "hold"
    if phase == "hold" and elapsed_s >= (step.hold_s if precise else step.hold_limit_s):
        return "drain"
    if phase == "drain" and (drained or elapsed_s >= step.drain_limit_s):
        return "end"
    return phase


def remaining_s(plan: Plan, step: int, phase: str, elapsed_s: float) -> float:
    """Return the seconds until the last hold ends, drains and ramps not counted (they end when they end)."""
    total = sum(s.warm_up_s + s.hold_s for s in plan.steps[step + 1 :])
    here = plan.steps[step]
    if phase in ("settle", "ramp"):
        total += here.warm_up_s + here.hold_s
    elif phase == "warm-up":
        total += max(0.0, here.warm_up_s - elapsed_s) + here.hold_s
    elif phase == "hold":
        total += max(0.0, here.hold_s - elapsed_s)
    return total
