"""Whether the numbers of a step may be used, and if not, why not.

Pure: a step's row and what happened around it in, short texts with numbers
out. A step that is not valid is shown, marked, and kept out of the verdict.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from reports.steprow import StepRow

__all__ = ["DISTURBANCES", "Surroundings", "find_reasons", "is_noise"]

DISTURBANCES = {
    "dead-destination": "Postfix held the filter for dead",
    "deferred": "deliveries were deferred",
    "reload": "a daemon was reloaded",
    "restart": "a daemon was restarted",
    "suppressed": "log lines were dropped",
    "front-unreachable": "the front could not be reached",
    "exit": "a process of ours ended",
    "worker-lost": "a worker was lost",
    "disk-limit": "the disk was nearly full",
}
"""Kinds of remarks that spoil the step they fall into, in words."""

_NOISE = ("not steady:", "something else on this host", "no telemetry for", "the filter had ")
"""Beginnings of the reasons that chance, or the machine, may have by itself."""

_LEAST_DELIVERIES = 30
_LONGEST_GAP_S = 2.0
_SATURATED_CORES = 0.9
_LITTLE_MARGIN = 0.1
_MISSING_SHARE = 0.05
_OTHERS_SHARE = 0.15
_HOLES_AVERAGE_OUT_S = 120.0


@dataclass(frozen=True)
class Surroundings:
    """What the numbers alone do not tell."""

    pacing: str
    hold_whole: bool
    planned_hold_s: float
    steady: bool
    settled: bool = True
    """MSER-5 found a beginning of the steady state."""
    remarks: Mapping[str, int] = field(default_factory=dict)
    """Kind to how many fell between the ramp and the end of the step."""
    filter_servers: int | None = None
    swept_load: str = ""
    """Sweep only: "saturated" where the queue must never run dry."""
    cpus: int | None = None
    has_host_to_itself: bool = False
    """The chain is one that was made for this run: what else the host does is a disturbance, not its daily work."""
    failed_sessions: int = 0
    sessions_kept: bool = True
    """A session stays open from message to message; otherwise there is none while a message is on its way."""
    drained: bool | None = True
    """None: the drain never ended."""
    largest_gap_s: float | None = 0.0
    """Longest time in the hold without a reading of any gauge; None: no reading at all."""


def find_reasons(row: StepRow, around: Surroundings) -> list[str]:
    """Return why the step is not valid, the most telling first; empty when it is."""
    if row["hold_s"] is None:
        return ["the hold never began"]
    reasons = []
    if not around.hold_whole:
        reasons.append(f"the hold ended after {row['hold_s']:.1f} s of {around.planned_hold_s:g} s")
    if row["deliveries"] < _LEAST_DELIVERIES:
        reasons.append(f"only {row['deliveries']} deliveries in the hold, want {_LEAST_DELIVERIES}")
    elif not around.steady and row["halves_change"] is not None:
        reasons.append(f"not steady: the second half of the hold delivered {row['halves_change']:+.0%}")
    elif not around.settled:
        reasons.append("not steady: the rate changed late in the hold, whatever is cut from its beginning (MSER-5)")
    if row["overloaded"] and around.pacing == "delivered":
        growth = row["queue_depth"]["growth_per_s"] or 0.0
        reasons.append(f"the queue grew by {growth:.2f} messages a second in a closed system")
    for kind, text in DISTURBANCES.items():
        if count := around.remarks.get(kind, 0):
            reasons.append(f"{text} ({count} x {kind})")
    if around.failed_sessions:
        reasons.append(f"{around.failed_sessions} sessions failed")
    opened = row["sessions_open"]
    if around.sessions_kept and opened is not None and opened < 0.98 * row["concurrency"] - 0.01:
        reasons.append(f"{opened:.1f} sessions open on average, want {row['concurrency']}")
    children, servers = row["children"], around.filter_servers
    missing = children is not None and servers and children < (1 - _MISSING_SHARE) * servers
    # in a long hold such holes are part of what the chain does; in a short one a single hole is most of the result
    if missing and row["hold_s"] < _HOLES_AVERAGE_OUT_S:
        reasons.append(f"the filter had {children:.1f} of its {servers} processes on average")
    depth = row["queue_depth"]["mean"]
    if around.swept_load == "saturated" and depth is not None and depth < (row["feed_processes"] or 0):
        reasons.append(f"the queue ran dry: {depth:.1f} messages on average for {row['feed_processes']} processes")
    for outcome, count in (("refused", row["refused"]), ("unknown", row["unknown"]), ("not sent", row["not_sent"])):
        if count:
            reasons.append(f"{count} of {row['started']} messages {outcome} in the hold")
    if around.drained is False:
        reasons.append("the drain did not empty the chain")
    if around.largest_gap_s is None:
        reasons.append("no telemetry in the hold")
    elif around.largest_gap_s > _LONGEST_GAP_S:
        reasons.append(f"no telemetry for {around.largest_gap_s:.1f} s of the hold")
    others = row["cost"]["others_cores"]
    if around.has_host_to_itself and others is not None and around.cpus and others > _OTHERS_SHARE * around.cpus:
        reasons.append(f"something else on this host used {others:.1f} of its {around.cpus} cores")
    for name in ("generator", "sink"):
        cores = row["cost"][f"{name}_cores"]  # type: ignore[literal-required]
        if cores is not None and cores >= _SATURATED_CORES:
            reasons.append(f"the {name} was at its own limit ({cores:.2f} cores)")
    little = row["little"]
    # messages that are in the chain when the window begins or ends belong to one side only
    edges = (row["response_s"]["max"] or 0.0) / row["hold_s"]
    margin = _LITTLE_MARGIN + edges
    # a feed larger than the filter lets some messages wait for minutes behind kept sessions: its cost, no fault of the record
    starved = (row["feed_processes"] or 0) > (row["filter_servers"] or math.inf)
    counts = not row["overloaded"] and around.hold_whole and not starved
    if little is not None and little["error_ratio"] > margin and counts:
        reasons.append(
            f"Little's law is off by {little['error_ratio']:.0%}: "
            f"{little['in_chain']:.1f} messages in the chain, X R = {little['x_times_r']:.1f}"
        )
    return reasons


def is_noise(reason: str) -> bool:
    """Return whether *reason* speaks of the machine or of chance: the same step, taken again, may well be valid."""
    return reason.startswith(_NOISE)
