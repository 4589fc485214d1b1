"""Apply every rule to what was read, and say it: for a person, or as JSON for a program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.audit.amavis_rules import AMAVIS_RULES
from loadgen.audit.cleanup_rules import CLEANUP_RULES
from loadgen.audit.facts import Facts
from loadgen.audit.feed_rules import FEED_RULES
from loadgen.audit.filtering_rules import FILTERING_RULES
from loadgen.audit.reinjection_rules import REINJECTION_RULES
from loadgen.audit.rule import Answer, Rule

__all__ = ["RULES", "Result", "apply_rules", "describe_results", "has_errors"]

RULES: tuple[Rule, ...] = tuple(
    sorted((*FEED_RULES, *REINJECTION_RULES, *FILTERING_RULES, *CLEANUP_RULES, *AMAVIS_RULES), key=lambda rule: rule.id)
)
"""In the order of their ids."""

_SEVERITIES = ("error", "warning", "information")


@dataclass(frozen=True)
class Result:
    """What one rule says of one chain."""

    rule: Rule
    answers: tuple[Answer, ...]

    @property
    def problems(self) -> tuple[Answer, ...]:
        """Return the answers that are not good."""
        return tuple(one for one in self.answers if one.ok is False)

    @property
    def state(self) -> str:
        """Return "problem", "unknown", "not applicable" or "ok"."""
        if self.problems:
            return "problem"
        if not self.answers:
            return "not applicable"
        return "unknown" if all(one.ok is None for one in self.answers) else "ok"

    @property
    def severity(self) -> str:
        """Return the gravest of its problems'; the rule's own where there is none."""
        graves = [one.severity or self.rule.severity for one in self.problems]
        return min(graves, key=_SEVERITIES.index, default=self.rule.severity)


def apply_rules(facts: Facts) -> list[Result]:
    """Return what every rule says, in the order of their ids."""
    return [Result(rule, tuple(rule.ask(facts))) for rule in RULES]


def has_errors(results: Sequence[Result]) -> bool:
    """Return whether there is a problem as grave as an error."""
    return any(result.problems and result.severity == "error" for result in results)


def describe_results(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the same for a program."""
    return [
        {
            "id": result.rule.id,
            "title": result.rule.title,
            "state": result.state,
            "severity": result.severity,
            "section": result.rule.section,
            "why": result.rule.why,
            "answers": [
                {
                    "ok": one.ok, "found": one.found, "where": one.where, "want": one.want, "mend": one.mend,
                    "severity": one.severity or result.rule.severity, "evidence": list(one.evidence),
                }
                for one in result.answers
            ],
        }
        for result in results
    ]  # fmt: skip
