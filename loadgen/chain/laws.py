"""The laws a reference chain's service times can follow: throughput as a function of busy servers.

Pure arithmetic. With n messages in service, a law says how many messages the
chain completes per second, X(n); each of the n then progresses at X(n)/n.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Law", "describe_law", "known_delivered_per_s", "throughput_per_s"]

_Positive = Annotated[float, Field(gt=0)]


class Law(BaseModel):
    """One law with its parameters; those of the other laws are ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    law: Literal["constant", "hard-cap", "usl"] = "usl"
    service_s: _Positive = 0.2
    """Laws "constant" and "hard-cap": server-seconds one message costs."""
    cap_per_s: _Positive = 15.0
    """Law "hard-cap": msg/s that no number of servers exceeds."""
    gamma: _Positive = 5.0
    """Law "usl": msg/s of one server."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Law "usl": contention."""
    beta: Annotated[float, Field(ge=0, le=1)] = 0.0005
    """Law "usl": coherency."""


def throughput_per_s(law: Law, busy: int) -> float:
    """Return msg/s with *busy* servers at work; 0 for none.

    The Universal Scalability Law is in the notation of Gunther and of R's usl 3:
    X(n) = gamma n / (1 + alpha (n - 1) + beta n (n - 1)).
    """
    n = busy
    if n <= 0:
        return 0.0
    if law.law == "constant":
        return n / law.service_s
    if law.law == "hard-cap":
        return min(n / law.service_s, law.cap_per_s)
    return law.gamma * n / (1 + law.alpha * (n - 1) + law.beta * n * (n - 1))


def known_delivered_per_s(law: Law, processes: int, up_to: int = 64) -> dict[int, float]:
    """Return messages in the chain to msg/s, for a closed system without think time and *processes* servers."""
    return {n: throughput_per_s(law, min(n, processes)) for n in range(1, up_to + 1)}


def describe_law(law: Law) -> str:
    """Return the law as a person would write it."""
    if law.law == "constant":
        return f"constant service time: X(n) = n / {law.service_s:g} s"
    if law.law == "hard-cap":
        return f"hard cap: X(n) = min(n / {law.service_s:g} s, {law.cap_per_s:g} msg/s)"
    return (
        f"Universal Scalability Law: X(n) = {law.gamma:g} n / "
        f"(1 + {law.alpha:g} (n - 1) + {law.beta:g} n (n - 1)) msg/s"
    )
