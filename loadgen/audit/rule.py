"""What a rule is made of: what it asks, how grave it is, why, and the answers it can give."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from loadgen.audit.facts import Facts, Service

__all__ = ["Answer", "Rule", "answer", "mend_main", "mend_option", "option_rule", "unknown"]

Ask = Callable[[Facts], Iterable["Answer"]]


@dataclass(frozen=True)
class Answer:
    """What a rule says of one place."""

    ok: bool | None
    """None: it cannot be told, and `found` says why."""
    found: str
    """The value, in the configuration's own words."""
    where: str
    want: str
    mend: str = ""
    """A command, or what to write where there is none; only for a problem."""
    severity: str = ""
    """Where it is another than the rule's."""
    evidence: tuple[str, ...] = ()
    """Log lines that say so."""


@dataclass(frozen=True)
class Rule:
    """One rule; no answer at all means that it does not apply."""

    id: str
    title: str
    severity: str
    """error, warning or information."""
    section: str
    """Of the integration guide; empty: not in it."""
    why: str
    ask: Ask


def answer(ok: bool, found: str, where: str, want: str, mend: str = "", severity: str = "") -> Answer:
    """Return an answer; what mends a problem is left out where there is none."""
    return Answer(ok, found, where, want, "" if ok else mend, severity)


def unknown(why: str, want: str) -> Answer:
    """Return the answer of a rule that would apply and cannot see what it needs."""
    return Answer(None, why, "", want)


def mend_option(facts: Facts, service: Service, name: str, value: str) -> str:
    """Return the command that sets an option of a service."""
    if any(mark in value for mark in " \t,") and " " in value:
        value = value.replace(", ", ",").replace(" ", ",")
    return f"postconf -c {facts.directory} -P '{service.label}/{name}={value}'"


def mend_main(facts: Facts, name: str, value: str) -> str:
    """Return the command that sets a parameter of main.cf."""
    return f"postconf -c {facts.directory} -e '{name}={value}'"


def option_rule(
    facts: Facts, service: Service, name: str, good: Callable[[str], bool], want: str, *, set_to: str, own: bool = False
) -> Answer:
    """Return whether the value of one parameter, as *service* sees it, is a good one.

    Args:
        facts: The configuration.
        service: Whose.
        name: Of the parameter.
        good: Whether a value is one.
        want: The same in words.
        set_to: A good value.
        own: Only an option of the service itself counts: main.cf's may change for other reasons.
    """
    found = facts.value(service, name)
    set_here = name in service.options
    fine = good(found) and (set_here or not own)
    shown = f"{name}={found}" if set_here or not own else f"no -o {name} (main.cf: {found or 'empty'})"
    return answer(fine, shown, facts.where(service, name), want, mend_option(facts, service, name, set_to))
