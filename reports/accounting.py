"""The fate of every message, each exactly once.

Pure: plain values in, counts out. What arrived counts as delivered whatever
the client saw (a reply may be lost after the final dot); what did not arrive
is looked for in the filter's verdicts, in the delivery log and in the queue,
in this order. What is found nowhere is lost, and the report says so. A
message whose step never came to the end of its drain is unknown instead: the
record ends before its fate was seen.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from reports.summary import Accounting, Reply

__all__ = ["FATES", "Evidence", "Sent", "account", "find_fate"]

FATES = ("delivered", "blocked", "refused", "bounced", "queued", "lost", "unknown", "not_sent")

_EXAMPLES = 5
_REPLIES = 8


@dataclass(frozen=True, slots=True)
class Sent:
    """One message as its sender saw it, and whether it arrived for all recipients."""

    id: str
    outcome: str
    """accepted, refused, unknown, not_sent or dropped."""
    arrived: bool
    watched: bool = True
    """The drain of its step came to its end, so whatever could arrive has arrived."""
    code: int | None = None
    reply: str = ""


@dataclass(frozen=True)
class Evidence:
    """What else is known, by message id."""

    blocked: Collection[str] = frozenset()
    bounced: Collection[str] = frozenset()
    queued: Collection[str] = frozenset()
    logged: Collection[str] = frozenset()
    """Messages whose queue id the log has."""
    duplicates: int = 0
    unrecorded: int = 0
    locust: Mapping[str, int] = field(default_factory=dict)
    """Locust's own totals: requests and failures."""


def find_fate(message: Sent, evidence: Evidence) -> str:
    """Return the fate of one message that was not dropped."""
    if message.arrived:
        return "delivered"
    if message.outcome in ("refused", "not_sent"):
        return message.outcome
    for fate in ("blocked", "bounced", "queued"):
        if message.id in getattr(evidence, fate):
            return fate
    if message.outcome == "accepted" and message.watched:
        return "lost"
    return "unknown"


def account(messages: Iterable[Sent], evidence: Evidence) -> Accounting:
    """Return the fates of all *messages*, counted."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    replies: Counter[tuple[str, int | None, str]] = Counter()
    joined = 0
    for message in messages:
        if message.outcome == "dropped" and not message.arrived:
            counts["dropped"] += 1
            continue
        fate = find_fate(message, evidence)
        counts[fate] += 1
        if fate == "delivered":
            joined += message.id in evidence.logged
        elif len(some := examples.setdefault(fate, [])) < _EXAMPLES:
            some.append(message.id)
        if message.outcome != "accepted":
            replies[message.outcome, message.code, message.reply[:200]] += 1
    total = sum(counts[fate] for fate in FATES)
    requests = evidence.locust.get("requests")
    return Accounting(
        messages=total,
        delivered=counts["delivered"],
        blocked=counts["blocked"],
        refused=counts["refused"],
        bounced=counts["bounced"],
        queued=counts["queued"],
        lost=counts["lost"],
        unknown=counts["unknown"],
        not_sent=counts["not_sent"],
        adds_up=evidence.unrecorded == 0 and requests in (None, total),
        accounted_ratio=1 - (counts["lost"] + counts["unknown"]) / total if total else None,
        dropped=counts["dropped"],
        duplicates=evidence.duplicates,
        unrecorded=evidence.unrecorded,
        log_joined=joined,
        locust_requests=requests,
        locust_agrees=None if requests is None else requests == total,
        examples=examples,
        replies=[
            Reply(outcome=outcome, code=code, reply=text, messages=n)
            for (outcome, code, text), n in replies.most_common(_REPLIES)
        ],
    )
