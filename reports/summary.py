"""The shape of `summary.json`: every number the reports show, each defined in one sentence.

Types, and the name a step goes by. The keys are stable: CI jobs and other programs read them. None
means "not measured" or "too few values", never zero. Intervals are pairs
[low, high] at 95 %.
"""

from typing import TypedDict

__all__ = [
    "FORMAT",
    "Accounting",
    "Ceiling",
    "Cost",
    "Delays",
    "Finding",
    "Gain",
    "Host",
    "Interval",
    "Level",
    "Little",
    "MailClass",
    "Mismatch",
    "Model",
    "Models",
    "Parameter",
    "Percentiles",
    "QueueDepth",
    "Recommendation",
    "Repeat",
    "Reply",
    "RunFacts",
    "Selective",
    "SelectiveStep",
    "Stage",
    "Stages",
    "StepRow",
    "Summary",
    "Sweep",
    "VariantResult",
    "Verdict",
    "name_step",
]

FORMAT = 1
"""Version of `summary.json`."""

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


class Reply(TypedDict):
    """One kind of answer that was not a 250."""

    outcome: str
    code: int | None
    reply: str
    messages: int


class Accounting(TypedDict):
    """The fate of every message, each exactly once; the eight fates add up to `messages`."""

    messages: int
    delivered: int
    blocked: int
    refused: int
    bounced: int
    queued: int
    lost: int
    """Accepted, the drain is over, and nothing is known of it."""
    unknown: int
    """The connection broke after the final dot, or the record ends before the message's fate was seen."""
    not_sent: int
    adds_up: bool
    """Nothing arrived that was not recorded as sent, and Locust counted as many messages as the record has."""
    accounted_ratio: float | None
    """1 - (lost + unknown) / messages."""
    dropped: int
    """Due and never started (pacing "rate"); not among `messages`."""
    duplicates: int
    """Copies at the sink beyond the ones that were sent."""
    unrecorded: int
    """Messages of this run that arrived although the record of their sending was cut off."""
    log_joined: int
    """Delivered messages whose queue id was found in the log."""
    locust_requests: int | None
    locust_agrees: bool | None
    """Locust counted as many requests as messages were started."""
    examples: dict[str, list[str]]
    """A few message ids of each fate but delivered."""
    replies: list[Reply]


class Verdict(TypedDict):
    """Whether, where and why throughput stops following the load."""

    saturated: bool | None
    """None: the valid steps do not tell."""
    headline: str
    sentences: list[str]
    concurrency: int | None
    """N*: the smallest tested concurrency on the plateau."""
    crossing_concurrency: float | None
    """Where the plateau crosses the line of one session without company, Xmax R(N min)."""
    delivered_per_s: float | None
    """The plateau."""
    delivered_per_s_interval: Interval | None
    beyond_per_s: float | None
    """Not saturated: the largest throughput measured; the capacity is more."""
    kept_up_per_s: float | None
    """Pacing "rate" and "accepted": the largest offered load at which no queue grew."""
    tested_to: int | None
    """Largest concurrency of a valid step."""
    retrograde: bool
    """More sessions made it significantly slower."""
    plateau_steps: list[int]
    station: str | None
    """The one that limits, when the evidence separates it: front, feed, filter, reinjection, sink, cpu, disk, generator."""
    candidates: list[str]
    evidence: dict[str, float]
    """The numbers the attribution rests on."""


class Stage(TypedDict):
    """What the chain carries from one entry on."""

    entry: str
    passes: list[str]
    """The stations that its messages pass, in order."""
    verdict: Verdict
    alone_response_s: float | None
    """Mean response time at the lightest valid step, from MAIL (pickup: from the start of sendmail) to arrival."""
    alone_concurrency: int | None
    """Concurrency of that step."""
    steps: list[int]


class Stages(TypedDict):
    """The same load put in at several places."""

    entries: list[Stage]
    """From the outside inwards."""
    sentences: list[str]


class MailClass(TypedDict):
    """One kind of mail in one step."""

    messages: int
    """Sent in the whole step."""
    delivered_per_s: float | None
    """Over the hold."""
    delivered_per_s_interval: Interval | None
    response_s: Percentiles
    """Of those that started in the hold."""


class SelectiveStep(TypedDict):
    """The two kinds of mail in one step."""

    step: int
    entry: str
    concurrency: int
    valid: bool
    filtered: MailClass
    unfiltered: MailClass


class Selective(TypedDict):
    """What a chain that does not filter all mail did with each kind; told apart by its log."""

    filtered: int
    unfiltered: int
    not_known: int
    """Messages that the log does not know."""
    steps: list[SelectiveStep]
    sentences: list[str]


class Finding(TypedDict):
    """A doubt or a defect."""

    id: str
    severity: str
    """error, warning or information."""
    evidence: str
    advice: str


class Repeat(TypedDict):
    """One measurement of a level."""

    step: int
    visit: int | None
    delivered_per_s: float
    interval: Interval | None
    """From within the step alone; the spread between repeats is wider."""


class Level(TypedDict):
    """One process count under one variant, over its valid saturated steps; without a sweep, the run as it was."""

    processes: int | None
    filter_servers: int | None
    variant: str
    delivered_per_s: float | None
    """Mean of the repeats."""
    interval: Interval | None
    """95 %, from the spread between repeats pooled over all levels."""
    saturated: bool | None
    repeats: list[Repeat]
    dropped: int
    """Steps of this level that were not valid, and are not in these numbers."""
    response_s: Percentiles
    """Of all messages of the repeats, at the load of the sweep."""
    memory_bytes: float | None
    cpu_busy: float | None
    """Cores busy on the host."""
    cpu_s_per_message: float | None
    """CPU of the chain for one message."""
    demand_s: float | None
    """Service demand of the filter: busy processes / throughput."""
    feed_delays: Delays | None
    timing_s: dict[str, float]
    station: str | None
    """The one that limits at this level, when the evidence separates it."""
    candidates: list[str]
    why: list[str]
    """Sentences of the attribution."""


class Parameter(TypedDict):
    """One parameter of a fitted model."""

    value: float
    standard_error: float | None
    """None where the parameter is on its bound, or there are too few points."""
    interval: list[float | None] | None
    """95 %, profile likelihood; an end that the data do not bound is None."""


class Model(TypedDict):
    """One fitted law of throughput against processes."""

    parameters: dict[str, Parameter]
    aicc: float | None
    """None: too few points for it."""
    rss: float
    peak_concurrency: float | None
    """USL only: where throughput is highest, when that is within the tested range."""
    peak_interval: list[float | None] | None
    """95 % for the peak, whether or not it is within the tested range; None as an end: not bounded."""
    curve: list[list[float]]
    """[N, X, low, high] over the tested range; low and high bound the mean at 95 %."""


class Models(TypedDict):
    """The laws compared on one set of points."""

    chosen: str | None
    """Smallest AICc; a tie (less than 2) goes to the simpler one."""
    ties: list[str]
    models: dict[str, Model]
    """"hard_cap", "smooth_min", "amdahl", "usl"."""
    warnings: list[str]
    """Ids: fewer-than-six-points, peak-outside-range, parameter-on-bound, hard-cap-fits-better, super-linear, ..."""
    points: list[list[float]]
    """[N, X] as fitted."""
    variant: str


class Gain(TypedDict):
    """A variant against stock at one load, measured in alternation."""

    load: str
    """"low" or "saturated"."""
    concurrency: int
    ratio: float
    """Throughput with it over throughput without, minus 1."""
    interval: Interval
    """95 % of the ratio."""
    pairs: int
    stock_per_s: float
    variant_per_s: float
    stock_response_s: float | None
    """Mean response time without it."""
    variant_response_s: float | None
    significant: bool


class VariantResult(TypedDict):
    """What one variant is worth."""

    name: str
    about: str
    settings: list[str]
    """What it changes, as a person would write it."""
    processes: int | None
    """The level it was tried at."""
    feed_processes: int | None
    filter_servers: int | None
    gains: list[Gain]
    adopted: bool
    """It is part of the recommendation."""
    why: str


class Ceiling(TypedDict):
    """What would limit next."""

    name: str
    """What it is: "feed and filter processes", "CPU", "memory", "destination concurrency limit", "reinjection processes" ..."""
    per_s: float | None
    """Throughput it allows, msg/s."""
    processes: int | None
    """Process count it allows."""
    text: str


class Recommendation(TypedDict):
    """What to set; a run at one process count can only say what that count carries."""

    processes: int | None
    """P: maxproc of the feed, and $max_servers unless `filter_servers` says otherwise."""
    interval: list[int] | None
    """95 % for P: process counts that the data do not tell from it."""
    filter_servers: int | None
    variants: list[str]
    """Variants that are part of it."""
    within: float | None
    """It is the smallest P whose throughput is within this share of the best."""
    best_processes: int | None
    """Where throughput was highest."""
    delivered_per_s: float | None
    delivered_per_s_interval: Interval | None
    response_s: Percentiles | None
    """At that level and the load of the sweep (the queue never dry)."""
    memory_bytes: float | None
    """Pss of the filter's processes at that level."""
    memory_bytes_interval: Interval | None
    memory_available_bytes: float | None
    """Least that was available on the host at that level, filter running."""
    ceilings: list[Ceiling]
    """The next two."""
    present: dict[str, int | None]
    """feed_processes and filter_servers as found."""
    already_right: bool | None
    headline: str
    sentences: list[str]
    """Why, how sure, what it costs to differ."""
    settings: list[str]
    """The lines in the form of the guide: master.cf, amavisd.conf, main.cf."""
    commands: list[str]
    """The same as commands to paste."""


class Mismatch(TypedDict):
    """What was measured with different numbers on the two sides."""

    feed_processes: int
    filter_servers: int
    delivered_per_s: float
    interval: Interval | None
    equal_processes: int
    """The synchronised level it is compared with: the smaller of the two."""
    equal_per_s: float
    ratio: float
    """Against that, minus 1."""
    ratio_interval: Interval | None
    c_s: float | None
    """Mean wait for the filter to answer (c of the delays)."""


class Sweep(TypedDict):
    """What a run over several process counts found; None in `Summary.sweep` for any other run."""

    search: str
    """"auto", or "levels"."""
    levels_asked: list[int]
    """Process counts it was to try; for "auto" those it chose."""
    visits: int
    measured_s: float
    """Wall-clock time of all visits."""
    spread: float | None
    """Relative standard deviation between repeats of one level."""
    models: Models | None
    """On the stock curve."""
    models_adopted: Models | None
    """On the curve with the recommended variants, where that was measured over enough levels."""
    variants: list[VariantResult]
    mismatches: list[Mismatch]


class RunFacts(TypedDict):
    """What was run, when and where."""

    directory: str
    version: str
    started_at: float | None
    """Unix seconds."""
    length_s: float | None
    end_reason: str
    workload_hash: str
    seed: int | None
    chain_choice: str
    about: str
    pacing: str
    is_reference: bool
    law: str
    feed_processes: int | None
    filter_servers: int | None
    destination_concurrency_limit: int | None
    cpus: int | None
    memory_bytes: int | None
    host: dict[str, str]
    software: dict[str, str]
    addresses: dict[str, str]


class Summary(TypedDict):
    """`summary.json`."""

    format: int
    status: str
    """complete, incomplete (the run did not end as planned) or invalid (it did, and its result cannot be used)."""
    chain: str
    profile: str
    run: RunFacts
    verdict: Verdict
    recommendation: Recommendation
    levels: list[Level]
    sweep: Sweep | None
    steps: list[StepRow]
    stages: Stages | None
    """None: all messages were put in at one place."""
    selective: Selective | None
    """None: all mail was filtered, or none, or there is no log that says so."""
    accounting: Accounting
    findings: list[Finding]
    cost: Cost
    """At the plateau, or at the last valid step."""
    settings: dict[str, str]


def name_step(row: StepRow) -> str:
    """Return what a step is called: its level in a sweep, its offered rate where it has one, else its concurrency.

    Before it stands where messages were put in, unless that is the front.
    """
    if row["visit"] is not None:
        other = "" if row["variant"] == "stock" else f" {row['variant']}"
        return f"P = {row['level']}{other}, N = {row['concurrency']}"
    load = f"N = {row['concurrency']}" if row["rate_per_s"] is None else f"{row['rate_per_s']:g} msg/s"
    return load if row["entry"] == "front" else f"{row['entry']}, {load}"
