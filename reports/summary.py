"""The shape of `summary.json`: every number the reports show, each defined in one sentence.

Of the run as a whole; `steprow` has a step, `sweepsummary` what a sweep adds. The keys are stable: CI jobs and other programs read them. None
means "not measured" or "too few values", never zero. Intervals are pairs
[low, high] at 95 %.
"""

from typing import Any, TypedDict

from reports.gate import Gate
from reports.steprow import Cost, Interval, Percentiles, StepRow
from reports.sweepsummary import Level, Recommendation, Sweep

__all__ = [
    "FORMAT",
    "Accounting",
    "Finding",
    "MailClass",
    "Reply",
    "RunFacts",
    "Selective",
    "SelectiveStep",
    "Stage",
    "Stages",
    "Summary",
    "Verdict",
]

FORMAT = 1
"""Version of `summary.json`."""


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


class RunFacts(TypedDict):
    """What was run, when and where."""

    directory: str
    version: str
    started_at: float | None
    """Unix seconds."""
    length_s: float | None
    end_reason: str
    workload_hash: str
    expect: dict[str, Any]
    """The table [expect] of the profile; empty: nothing was expected."""
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
    generator_per_s: float | None
    """What this machine's generator carried just before the run, msg/s; None: not measured."""
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
    gate: Gate
    """What the profile expects of this run by itself; a baseline, or several runs, are judged by the command that made them."""
