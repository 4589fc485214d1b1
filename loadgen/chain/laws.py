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

    law: Literal["constant", "hard-cap", "usl", "waiting"] = "usl"
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
    cpu_s: _Positive = 0.1
    """Law "waiting": CPU time of one message."""
    wait_s: _Positive = 0.7
    """Law "waiting": what one message waits for others (look-ups, other daemons) without using a CPU."""
    cores: Annotated[int, Field(ge=1, le=1024)] = 2
    """Law "waiting": CPUs that the messages share."""
    effects: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Name of a feed option or a setting of the filter to its factor on the throughput, whatever the law."""


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
    if law.law == "waiting":
        return _share_cores(n, law.cpu_s, law.wait_s, law.cores)
    return law.gamma * n / (1 + law.alpha * (n - 1) + law.beta * n * (n - 1))


def known_delivered_per_s(law: Law, up_to: int = 256) -> dict[int, float]:
    """Return messages in service at once to msg/s."""
    return {n: throughput_per_s(law, n) for n in range(1, up_to + 1)}


def _share_cores(n: int, cpu_s: float, wait_s: float, cores: int) -> float:
    """Return the throughput of *n* messages that each wait and then share the cores, without a queue elsewhere.

    Exact for exponential times (the machine repairman with several repairmen; Kleinrock, *Queueing Systems* 1,
    3.8): the distribution of messages at the cores is p(k) = p(k - 1) (n - k + 1) / wait cpu / min(k, cores).
    """
    weights = [1.0]
    for k in range(1, n + 1):
        weights.append(weights[-1] * (n - k + 1) / wait_s * cpu_s / min(k, cores))
    total = sum(weights)
    return sum(weight * min(k, cores) for k, weight in enumerate(weights)) / total / cpu_s


def describe_law(law: Law) -> str:
    """Return the law as a person would write it."""
    if law.law == "constant":
        return f"constant service time: X(n) = n / {law.service_s:g} s"
    if law.law == "waiting":
        return f"{law.cpu_s:g} s on one of {law.cores} cores and {law.wait_s:g} s of waiting for each message"
    if law.law == "hard-cap":
        return f"hard cap: X(n) = min(n / {law.service_s:g} s, {law.cap_per_s:g} msg/s)"
    return (
        f"Universal Scalability Law: X(n) = {law.gamma:g} n / "
        f"(1 + {law.alpha:g} (n - 1) + {law.beta:g} n (n - 1)) msg/s"
    )
