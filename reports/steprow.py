"""One step as `summary.json` has it, and the name it goes by; see `summary` for what None and intervals mean."""

from typing import TypedDict

__all__ = [
    "Cost",
    "Delays",
    "Host",
    "Interval",
    "Little",
    "Percentiles",
    "QueueDepth",
    "StepRow",
    "name_step",
]

Interval = list[float]


class Percentiles(TypedDict):
    """A distribution of times, from raw values; a percentile with fewer than ten values beyond it is None."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    messages: int
    """How many values there were."""


class QueueDepth(TypedDict):
    """Messages in the queues of Postfix (maildrop, incoming, active, deferred together)."""

    mean: float | None
    max: float | None
    growth_per_s: float | None
    """Slope over the hold, messages per second."""
    before_filter: float | None
    """Mean of those before the filter, from the log join."""
    after_filter: float | None
    """Mean of those after reinjection, from the log join."""


class Delays(TypedDict):
    """Means of the four parts of Postfix's "delays=" field, seconds, over deliveries that were sent."""

    a_s: float
    """Arrival to the last entry into the active queue."""
    b_s: float
    """Waiting in the active queue for a delivery process."""
    c_s: float
    """Connecting and greeting: waiting for the next station to answer."""
    d_s: float
    """Handing over, the next station's whole work included."""
    messages: int


class Little(TypedDict):
    """Little's law checked on the record: L = X R."""

    in_chain: float
    """L: time-mean number of messages between their start and their arrival."""
    x_times_r: float
    """X R: completions per second times the mean response time of those completions."""
    error_ratio: float
    """|L - X R| / L; more than 0.1 means that messages or instants are missing."""
    closed_error_ratio: float | None
    """|N - X R| / N, only for pacing "delivered": the textbook's closed system."""


class Cost(TypedDict):
    """CPU in cores during a hold: the chain's own, that of this tool, and everybody else's."""

    chain_cores: float | None
    chain_cpu_s_per_message: float | None
    generator_cores: float | None
    sink_cores: float | None
    collector_cores: float | None
    conductor_cores: float | None
    own_cores: float | None
    """The four of ours together, as far as they are known."""
    own_share: float | None
    """Ours as a share of the chain's."""
    others_cores: float | None
    """What neither the chain nor this tool used, of all that the host did."""
    generator_lag_s: float | None
    """Longest time by which the generator's event loop ran late."""


class Host(TypedDict):
    """Means over the hold of what the host was doing."""

    cpu_busy: float | None
    """Cores busy, of everything on the host."""
    cpu_iowait: float | None
    cpu_steal: float | None
    psi_cpu_some: float | None
    psi_io_some: float | None
    psi_io_full: float | None
    psi_memory_some: float | None
    disk_busy: float | None
    disk_write_bytes_per_s: float | None
    memory_available_bytes: float | None
    """Least over the hold, not the mean."""


class StepRow(TypedDict):
    """One step: its numbers over the hold, and whether they may be used."""

    step: int
    entry: str
    """Where its messages were put into the chain: front, inside, submission, pickup, filter or reinjection."""
    level: int | None
    """Process count on both sides; in a sweep the one that was asked for, also where a variant gives the filter more."""
    variant: str
    """"stock", or the name of the variant that was in force."""
    visit: int | None
    """Sweep only: which change of settings this step belongs to, from 0; steps of one visit share it."""
    purpose: str
    """Sweep only: "level", "confirm" or "variant"; else empty."""
    load: str
    """Sweep only: "saturated" (the queue never runs dry) or "low"; else empty."""
    feed_processes: int | None
    """maxproc that was in force."""
    filter_servers: int | None
    """$max_servers that was in force."""
    trimmed_s: float
    """Cut from the beginning of the hold as warm-up by MSER-5; the rates and times below are of what remained."""
    precise: bool | None
    """The interval of the throughput is as narrow as was asked for; None: nothing was asked for."""
    concurrency: int
    rate_per_s: float | None
    """Offered load the profile asked for (pacing "rate")."""
    hold_began_at: float | None
    hold_ended_at: float | None
    hold_s: float | None
    offered_per_s: float | None
    """Messages due in the hold, per second (pacing "rate": by the intended instant)."""
    accepted_per_s: float | None
    """250 replies after the final dot in the hold, per second."""
    delivered_per_s: float | None
    """Slope of messages that left the end of the chain in the hold: the throughput."""
    delivered_per_s_interval: Interval | None
    known_delivered_per_s: float | None
    """Reference chain only: what its law says for this concurrency."""
    deliveries: int
    batches: int
    lag1: float | None
    """Correlation of neighbouring batch means."""
    halves_change: float | None
    """Second half of the hold over the first, minus 1."""
    sessions_open: float | None
    """Mean number of sessions open during the hold."""
    started: int
    """Messages that were started in the hold."""
    undelivered: int
    """Of these, accepted and never seen at the end; they have no response time."""
    response_s: Percentiles
    accept_s: Percentiles
    queue_depth: QueueDepth
    accept_queue: float | None
    """Mean number of connections waiting in the accept queue of the filter."""
    children: float | None
    """Mean number of filter processes that exist; below $max_servers when retired ones are replaced late."""
    busy_processes: float | None
    held_processes: float | None
    free_processes: float | None
    memory_bytes: float | None
    """Pss of the filter's processes together, mean of the readings."""
    utilisation: float | None
    """Busy processes of the filter / $max_servers."""
    feed_utilisation: float | None
    """Mean number of feed processes handing over / their limit."""
    feed_delays: Delays | None
    delivery_delays: Delays | None
    """The same after reinjection."""
    timing_s: dict[str, float]
    """Mean of each section of amavisd's TIMING line."""
    smtp_data_median_s: float | None
    """Median of the TIMING section "SMTP DATA"."""
    little: Little | None
    cost: Cost
    host: Host
    refused: int
    unknown: int
    not_sent: int
    duplicates: int
    """Copies that arrived in the hold beyond the ones that were sent."""
    late: int
    """Messages started more than 10 ms after they were due (pacing "rate")."""
    dropped: int
    """Messages that were due and never started (pacing "rate")."""
    drain_s: float | None
    overloaded: bool
    """The queue grew all through the hold."""
    valid: bool
    reasons: list[str]
    """Why the step is not valid; empty when it is."""


def name_step(row: StepRow) -> str:
    """Return what a step is called: its level in a sweep, its offered rate where it has one, else its concurrency.

    Before it stands where messages were put in, unless that is the front.
    """
    if row["visit"] is not None:
        other = "" if row["variant"] == "stock" else f" {row['variant']}"
        return f"P = {row['level']}{other}, N = {row['concurrency']}"
    load = f"N = {row['concurrency']}" if row["rate_per_s"] is None else f"{row['rate_per_s']:g} msg/s"
    return load if row["entry"] == "front" else f"{row['entry']}, {load}"
