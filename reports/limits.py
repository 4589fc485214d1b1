"""What is set now against what is proposed: the limits side by side, and what the change brings.

maxproc of the feed, the feed's destination concurrency limit, `$max_servers`
and the process limit of the reinjection service decide together how many
messages are scanned at once: the smallest one binds, whatever the others are.
"""

from dataclasses import dataclass

from reports.summary import Summary

__all__ = ["Effect", "Limit", "find_effects", "find_limits"]


@dataclass(frozen=True)
class Limit:
    """One limit."""

    name: str
    where: str
    """The file it is written in."""
    present: int | None
    """None: not known."""
    proposed: int | None
    """None: nothing is recommended, or it is not known."""
    binds: bool
    """None of the known present limits is smaller, and one is larger."""
    per_s: float | None
    """Throughput the proposed value allows, when its ceiling was worked out."""

    @property
    def changes(self) -> bool:
        """Whether it is to be set anew."""
        return self.proposed is not None and self.proposed != self.present


def find_limits(summary: Summary) -> list[Limit]:
    """Return the four limits; those that are wide enough are proposed as they are."""
    recommendation = summary["recommendation"]
    present = recommendation["present"]
    processes, servers = recommendation["processes"], recommendation["filter_servers"]
    ceilings = {ceiling["name"]: ceiling for ceiling in recommendation["ceilings"]}
    destination = present.get("destination_concurrency_limit") or summary["run"]["destination_concurrency_limit"]
    reinjection = present.get("reinjection_processes")
    if reinjection is None and "reinjection processes" in ceilings:
        reinjection = ceilings["reinjection processes"]["processes"]
    found: list[tuple[str, str, int | None, int | None]] = [
        ("maxproc of the feed", "master.cf", present.get("feed_processes"), processes),
        ("destination concurrency limit", "main.cf", destination, _at_least(destination, processes)),
        ("$max_servers", "amavisd.conf", present.get("filter_servers"), servers or processes),
        ("reinjection processes", "master.cf", reinjection, _at_least(reinjection, servers or processes)),
    ]
    known = [value for _, _, value, _ in found if value is not None]
    return [
        Limit(
            name, where, value, wanted,
            binds=value is not None and value == min(known) and max(known) > value,
            per_s=ceilings[name]["per_s"] if name in ceilings else None,
        )
        for name, where, value, wanted in found
    ]  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """One quantity at the present settings and at the proposed ones."""

    name: str
    unit: str
    """msg/s, s or bytes."""
    present: float | None
    """None: the present settings were not measured."""
    proposed: float | None


def find_effects(summary: Summary) -> list[Effect]:
    """Return what was measured at the present settings and at the proposed ones, without what is known of neither."""
    recommendation = summary["recommendation"]
    if recommendation["processes"] is None:
        return []
    sides = tuple(recommendation["present"].get(name) for name in ("feed_processes", "filter_servers"))
    level = next(
        (
            one
            for one in summary["levels"]
            if one["variant"] == "stock" and (one["processes"], one["filter_servers"]) == sides
        ),
        None,
    )
    mismatches = summary["sweep"]["mismatches"] if summary["sweep"] else []
    apart = next((one for one in mismatches if (one["feed_processes"], one["filter_servers"]) == sides), None)
    rate = level["delivered_per_s"] if level else apart["delivered_per_s"] if apart else None
    response = recommendation["response_s"]
    found = [
        Effect("delivered", "msg/s", rate, recommendation["delivered_per_s"]),
        Effect("response time, median", "s", level["response_s"]["p50"] if level else None, response["p50"] if response else None),
        Effect("response time, p95", "s", level["response_s"]["p95"] if level else None, response["p95"] if response else None),
        Effect("memory of the filter", "bytes", level["memory_bytes"] if level else None, recommendation["memory_bytes"]),
    ]  # fmt: skip
    return [effect for effect in found if effect.present is not None or effect.proposed is not None]


def _at_least(present: int | None, wanted: int | None) -> int | None:
    return None if present is None or wanted is None else max(present, wanted)
