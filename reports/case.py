"""What the checks for findings are given, and how they word one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reports.attribution import Limits
from reports.steprow import Cost, StepRow
from reports.summary import Accounting, Finding, Verdict
from reports.sweepsummary import Level

__all__ = ["Case", "SlowReplies", "make_finding", "names", "quote", "times"]

_TEXTS = 3
_TEXT_LENGTH = 160


@dataclass(frozen=True)
class SlowReplies:
    """Messages whose reply to the final dot came just after one or two whole seconds."""

    at_whole_seconds: int
    beside: int
    """How many came at other times near them: as many are expected at whole seconds by chance."""
    messages: int


@dataclass(frozen=True)
class Case:
    """Everything a check may look at."""

    rows: Sequence[StepRow]
    verdict: Verdict
    accounting: Accounting
    limits: Limits
    cost: Cost
    is_reference: bool = False
    has_filter_log: bool = False
    """Scans of the filter were found in a log."""
    has_maillog: bool = False
    """Queue entries were found in a log."""
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Kind to the texts of that kind."""
    status: str = "complete"
    """As the conductor left it: running, complete, incomplete."""
    end_reason: str = ""
    planned_steps: int = 0
    levels: Sequence[Level] = ()
    """Of a sweep."""
    slow_replies: SlowReplies | None = None
    """Replies to the final dot that came after whole seconds."""
    memory_bytes: int | None = None
    """Of the host."""
    network_tests: bool = False
    """The configuration of the filter says that SpamAssassin asks the network, or its log does."""


def make_finding(name: str, severity: str, evidence: str, advice: str) -> Finding:
    """Return a finding: its id, severity, evidence and advice."""
    return Finding(id=name, severity=severity, evidence=evidence, advice=advice)


def names(accounting: Accounting, fate: str) -> str:
    """Return some ids of a fate, to be appended to a sentence; empty when there are none."""
    some = accounting["examples"].get(fate, [])
    return f" (such as {', '.join(some[:_TEXTS])})" if some else ""


def times(texts: Sequence[str]) -> str:
    """Return how often, in words."""
    return "once" if len(texts) == 1 else f"{len(texts)} times"


def quote(texts: Sequence[str]) -> str:
    """Return a few different texts, cut: they come from logs."""
    different = list(dict.fromkeys(text[:_TEXT_LENGTH] for text in texts))
    more = f" (and {len(different) - _TEXTS} other texts)" if len(different) > _TEXTS else ""
    return "; ".join(f'"{text}"' for text in different[:_TEXTS]) + more
