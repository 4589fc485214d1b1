"""Which station limits the chain at its plateau, as far as the evidence separates them.

Pure: rows in, a station or candidates out, with the numbers they rest on.
The signs are Postfix's own delays: messages waiting in the active queue (b)
point at the feed's processes, messages waiting for a greeting (c) at too few
filter processes, a hand-over that grows with the load (d) at hardware.
Utilisation alone proves nothing; a station is named when it is full, and
nothing else is.
"""

from dataclasses import dataclass, field

from reports.steprow import StepRow

__all__ = ["Attribution", "Limits", "attribute"]

_FULL = 0.9
_LEAST_WAIT_S = 0.02
_GROWN = 1.2


@dataclass(frozen=True)
class Limits:
    """How the chain is set; None: not known."""

    feed_processes: int | None = None
    filter_servers: int | None = None
    destination_concurrency_limit: int | None = None
    cpus: int | None = None
    reinjection_processes: int | None = None


@dataclass(frozen=True)
class Attribution:
    """What limits."""

    station: str | None
    candidates: tuple[str, ...]
    sentences: tuple[str, ...]
    evidence: dict[str, float] = field(default_factory=dict)


def attribute(plateau: StepRow, lightest: StepRow, limits: Limits) -> Attribution:
    """Return what limits the step *plateau*, compared with *lightest*, the valid step with the least load."""
    signs = _read_signs(plateau, lightest, limits)
    evidence = {name: value for name, value in signs.items() if value is not None}
    for name in ("generator", "sink"):
        cores = signs[f"{name}_cores"]
        if cores is not None and cores >= _FULL:
            text = f"The {name} of this tool was itself at {cores:.2f} cores; the chain may carry more."
            return Attribution(name, (name,), (text,), evidence)
    filter_full = _at_least(signs["filter_utilisation"], _FULL)
    feed_full = _at_least(signs["feed_utilisation"], _FULL)
    waits_for_filter = _at_least(signs["accept_queue"], 0.5) or (signs["c_s"] or 0) >= max(
        _LEAST_WAIT_S, 0.1 * (signs["d_s"] or 0)
    )
    cpu_full = _at_least(signs["cpu_share"], _FULL)
    disk_full = _at_least(signs["psi_io_full"], 0.2) or _at_least(signs["disk_busy"], _FULL)
    grown = _at_least(signs["d_growth"], _GROWN)
    servers, feed = limits.filter_servers, _feed_limit(limits)

    if disk_full:
        names = ("disk", "cpu") if cpu_full else ("disk",)
        busy = signs["disk_busy"]
        text = "The disk of the queue is at its limit" + (f" ({busy:.0%} busy)." if busy is not None else ".")
        return Attribution("disk" if not cpu_full else None, names, (text,), evidence)
    if filter_full:
        return _attribute_filter(
            signs,
            evidence,
            limits,
            feed_full=feed_full,
            waits=waits_for_filter,
            cpu_full=cpu_full,
            grown=grown,
        )
    if feed_full and not waits_for_filter:
        which = "amavisfeed's process limit (maxproc)"
        destination = limits.destination_concurrency_limit
        if destination is not None and limits.feed_processes is not None and destination < limits.feed_processes:
            which = f"the destination concurrency limit ({destination}) of the feed"
        text = (
            f"The feed limits: its {feed} deliveries at a time are all busy while only "
            f"{_of(signs['busy'], servers)} filter processes are, and nobody waits for the filter. It is {which}."
        )
        return Attribution("feed", ("feed",), (text,), evidence)
    if cpu_full:
        return Attribution("cpu", ("cpu",), (_cpu_text(signs, limits),), evidence)
    candidates = tuple(
        name for name, sign in (("feed", feed_full), ("filter", waits_for_filter), ("cpu", grown)) if sign is True
    )
    if signs["filter_utilisation"] is None and signs["feed_utilisation"] is None:
        return Attribution(
            None,
            candidates,
            ("Which station limits is not known: no processes could be observed.",),
            evidence,
        )
    text = (
        "No station is at its limit by what could be observed"
        f" ({_of(signs['busy'], servers)} filter processes busy), and throughput is flat all the same:"
        " a lock, a stall per message, or something this tool does not see."
    )
    return Attribution(None, candidates, (text,), evidence)


def _attribute_filter(
    signs: dict[str, float | None],
    evidence: dict[str, float],
    limits: Limits,
    *,
    feed_full: bool,
    waits: bool,
    cpu_full: bool,
    grown: bool,
) -> Attribution:
    servers, feed = limits.filter_servers, _feed_limit(limits)
    busy = _of(signs["busy"], servers)
    sentences = []
    if servers is not None and feed is not None and feed > servers and waits:
        sentences.append(
            f"The filter limits: {busy} of its processes are busy, and the {feed} deliveries of the feed wait for them "
            f"({signs['accept_queue'] or 0:.1f} in the accept queue, c = {(signs['c_s'] or 0) * 1000:.0f} ms)."
        )
    elif servers is not None and feed == servers:
        sentences.append(
            f"The filter stage limits: {busy} filter processes are busy, and maxproc and $max_servers are equal, "
            "so feed and filter are full together."
        )
    else:
        sentences.append(f"The filter limits: {busy} of its processes are busy.")
    if cpu_full:
        sentences.append(_cpu_text(signs, limits))
        if grown:
            sentences.append(
                f"One message takes the filter {signs['d_growth']:.1f} times as long as with the least load: "
                "the processes are busy because they wait for a CPU, so more of them would only wait more."
            )
            return Attribution("cpu", ("cpu", "filter"), tuple(sentences), evidence)
        sentences.append(
            "Which of the two would give way first cannot be told at one process count: try one more and one less."
        )
        return Attribution(None, ("filter", "cpu"), tuple(sentences), evidence)
    share = signs["cpu_share"]
    if share is not None and limits.cpus:
        sentences.append(
            f"The CPU still has room ({share * limits.cpus:.1f} of {limits.cpus} cores busy): more processes should carry more."
        )
    return Attribution(
        "filter",
        ("filter", "feed") if feed_full and feed == servers else ("filter",),
        tuple(sentences),
        evidence,
    )


def _read_signs(row: StepRow, lightest: StepRow, limits: Limits) -> dict[str, float | None]:
    delays, light = row["feed_delays"], lightest["feed_delays"]
    share = row["host"]["cpu_busy"]
    return {
        "busy": row["busy_processes"],
        "filter_utilisation": row["utilisation"],
        "feed_utilisation": row["feed_utilisation"],
        "held": row["held_processes"],
        "accept_queue": row["accept_queue"],
        "queue_depth": row["queue_depth"]["mean"],
        "b_s": delays["b_s"] if delays else None,
        "c_s": delays["c_s"] if delays else None,
        "d_s": delays["d_s"] if delays else None,
        "d_growth": delays["d_s"] / light["d_s"] if delays and light and light["d_s"] > 0 else None,
        "cpu_share": share / limits.cpus if share is not None and limits.cpus else None,
        "psi_cpu_some": row["host"]["psi_cpu_some"],
        "psi_io_full": row["host"]["psi_io_full"],
        "disk_busy": row["host"]["disk_busy"],
        "generator_cores": row["cost"]["generator_cores"],
        "sink_cores": row["cost"]["sink_cores"],
    }


def _cpu_text(signs: dict[str, float | None], limits: Limits) -> str:
    share, pressure = signs["cpu_share"] or 0.0, signs["psi_cpu_some"]
    stalled = f"; something waited for a CPU {pressure:.0%} of the time" if pressure is not None else ""
    return f"The CPU is full: {share * (limits.cpus or 0):.1f} of {limits.cpus} cores busy{stalled}."


def _feed_limit(limits: Limits) -> int | None:
    known = [n for n in (limits.feed_processes, limits.destination_concurrency_limit) if n]
    return min(known) if known else None


def _at_least(value: float | None, limit: float) -> bool:
    return value is not None and value >= limit


def _of(value: float | None, limit: int | None) -> str:
    return "?" if value is None else f"{value:.1f}" if limit is None else f"{value:.1f} of {limit}"
