"""The recommendation of a sweep: what to set, what it will carry, how sure that is, and what would limit next.

Pure: levels, gains and facts in, a `Recommendation` out. What was not
measured is not recommended: where throughput still rose at the largest level
there is no number, only "more than".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.gains import STOCK, adopt, name_set
from reports.guide import Proposal, write_commands, write_lines
from reports.sizing import Choice, Spread, choose_processes, student
from reports.sweepsummary import Ceiling, Level, Mismatch, Recommendation, VariantResult

__all__ = ["SweepFacts", "describe_present", "no_recommendation", "recommend", "withdraw_losers"]

_LEAST_LEVELS = 2
_NEARLY = 0.9
"""The memory bound is an estimate that moves a little with every level measured."""


@dataclass(frozen=True)
class SweepFacts:
    """What is known of the chain and the host."""

    within: float
    present_feed: int | None = None
    present_servers: int | None = None
    cpus: int | None = None
    proposal: Proposal | None = None
    """The configuration, with anything for the values to set."""
    variant_settings: dict[str, tuple[dict[str, str], dict[str, int | str]]] | None = None
    """Variant to its feed options and its settings of amavisd."""
    memory_bound: int | None = None
    """The search stopped there for want of memory."""


def no_recommendation(headline: str, *sentences: str) -> Recommendation:
    """Return a recommendation that recommends nothing, and why."""
    return Recommendation(
        processes=None, interval=None, filter_servers=None, variants=[], within=None, best_processes=None,
        delivered_per_s=None, delivered_per_s_interval=None, response_s=None, memory_bytes=None,
        memory_bytes_interval=None, memory_available_bytes=None, ceilings=[], present={}, already_right=None,
        headline=headline, sentences=list(sentences), settings=[], commands=[],
    )  # fmt: skip


def recommend(
    levels: Sequence[Level],
    results: Sequence[VariantResult],
    mismatches: Sequence[Mismatch],
    spread: Spread,
    memory_available: dict[int, float],
    facts: SweepFacts,
) -> Recommendation:
    """Return what to set.

    Args:
        levels: Of `levels.describe_levels`.
        results: Of `gains.measure_gains`.
        mismatches: Of `gains.compare_sides`.
        spread: Of the repeats.
        memory_available: Level to the least memory available on the host meanwhile, bytes.
        facts: What else is known.
    """
    names = adopt(results)
    stock = _curve(levels, STOCK)
    curve = _curve(levels, name_set(names))
    confirmed = bool(names) and len(curve) >= _LEAST_LEVELS
    if not confirmed:
        names, curve = [], stock
    if not curve:
        return no_recommendation(
            "No recommendation: no level has a valid step.", "The reasons are in the table of steps."
        )
    if len(curve) < _LEAST_LEVELS:
        only = next(iter(curve))
        return no_recommendation(
            f"No recommendation: only {only} processes were measured.", "One process count says nothing of the others."
        )
    choice = choose_processes(curve, facts.within, spread)
    largest = max(curve)
    bound = facts.memory_bound
    bounded = bound is not None and largest >= _NEARLY * bound
    if choice.at_largest and not choice.rises and not bounded:
        return no_recommendation(
            f"No recommendation: {largest} processes, the most tested, did best, but by no more than the noise",
            f"With {choice.interval[0]} processes it may be as good; repeats of a level differ by {choice.spread.relative:.0%}. "
            "Continue the run, with more processes.repeats or a larger processes.max.",
        )
    if choice.at_largest and not bounded:
        return no_recommendation(
            f"More than {choice.per_s_interval[0]:.1f} msg/s: throughput still rises at {largest} processes, the most tested",
            "The best count is larger than any that was tried. Raise processes.max, or add larger levels, and continue the run.",
        )
    level = next(one for one in levels if one["variant"] == name_set(names) and one["processes"] == choice.processes)
    servers = level["filter_servers"] or choice.processes
    memory, memory_interval = _extrapolate_memory(levels, servers)
    already_right = _is_right(choice, facts, names)
    proposal = _propose(choice, servers, names, facts)
    return Recommendation(
        processes=choice.processes,
        interval=list(choice.interval),
        filter_servers=servers,
        variants=names,
        within=facts.within,
        best_processes=choice.best,
        delivered_per_s=choice.per_s,
        delivered_per_s_interval=list(choice.per_s_interval),
        response_s=level["response_s"] if level["response_s"]["messages"] else None,
        memory_bytes=memory,
        memory_bytes_interval=memory_interval,
        memory_available_bytes=memory_available.get(choice.processes),
        ceilings=_find_ceilings(choice, level, levels, memory_available, facts),
        present=describe_present(facts),
        already_right=already_right,
        headline=_headline(choice, servers, names, already_right),
        sentences=_sentences(choice, level, stock, results, mismatches, names, spread, facts, confirmed=confirmed),
        settings=write_lines(proposal) if proposal else [],
        commands=write_commands(proposal) if proposal and not already_right else [],
    )


def withdraw_losers(
    levels: Sequence[Level], results: Sequence[VariantResult], spread: Spread, within: float
) -> list[VariantResult]:
    """Return *results* without the adoption of variants with which the best turned out to be lower than without.

    They were worth it where they were tried, which is below the optimum.
    """
    stock, mended = _curve(levels, STOCK), _curve(levels, name_set(adopt(results)))
    if len(mended) < _LEAST_LEVELS or not stock:
        return list(results)
    best = choose_processes(stock, within, spread).best_per_s
    if choose_processes(mended, within, spread).best_per_s >= (1 - within) * best:
        return list(results)
    why = ", but with it the best is lower than without"
    return [
        VariantResult(**{**one, "adopted": False, "why": one["why"] + why}) if one["adopted"] else one
        for one in results
    ]


def describe_present(facts: SweepFacts) -> dict[str, int | None]:
    """Return the limits as they were found."""
    known = facts.proposal
    return {
        "feed_processes": facts.present_feed,
        "filter_servers": facts.present_servers,
        "destination_concurrency_limit": known.destination_concurrency_limit if known else None,
        "reinjection_processes": known.reinjection_processes if known else None,
    }


def _curve(levels: Sequence[Level], variant: str) -> dict[int, list[float]]:
    return {
        one["processes"]: [repeat["delivered_per_s"] for repeat in one["repeats"]]
        for one in levels
        if one["variant"] == variant and one["repeats"] and one["processes"]
    }


def _is_right(choice: Choice, facts: SweepFacts, adopted: Sequence[str]) -> bool | None:
    if facts.present_feed is None or facts.present_servers is None:
        return None
    if adopted or facts.present_feed != facts.present_servers:
        return False
    return facts.present_feed == choice.processes


def _headline(choice: Choice, servers: int, names: Sequence[str], already_right: bool | None) -> str:
    rate = f"{choice.per_s:.1f} msg/s"
    if already_right:
        return f"The settings are right: maxproc = $max_servers = {choice.processes} carries {rate}"
    if servers == choice.processes:
        text = f"Set maxproc = $max_servers = {choice.processes}"
    else:
        text = f"Set maxproc = {choice.processes} and $max_servers = {servers}"
    return f"{text}{' with ' + ' and '.join(names) if names else ''}: {rate} delivered"


def _sentences(
    choice: Choice, level: Level, stock: dict[int, list[float]], results: Sequence[VariantResult],
    mismatches: Sequence[Mismatch], names: Sequence[str], spread: Spread, facts: SweepFacts, *, confirmed: bool,
) -> list[str]:  # fmt: skip
    low, high = choice.interval
    sure = f"between {low} and {high}" if low != high else f"{low}"
    sentences = [
        (
            f"{choice.processes} processes are the fewest that are likely to carry within {facts.within:.0%} of the best "
            f"({choice.best_per_s:.1f} msg/s at {choice.best}): {choice.per_s:.1f} msg/s, 95 % interval "
            f"{choice.per_s_interval[0]:.1f} to {choice.per_s_interval[1]:.1f}. The right count is {sure}, with 95 % confidence."
        )
    ]
    if choice.falls:
        sentences.append("More processes make it slower, and by more than the noise explains.")
    present = facts.present_feed
    if present is not None and present == facts.present_servers and present != choice.processes and present in stock:
        rate = float(np.mean(stock[present]))
        sentences.append(
            f"The present {present} on both sides carry {rate:.1f} msg/s; what is recommended carries {choice.per_s / rate - 1:+.0%}."
        )
        if low <= present <= high and not names:
            sentences.append(f"The data do not tell {present} from {choice.processes} for sure: changing it can wait.")
    sentences += [
        f"The two sides differ now (maxproc {one['feed_processes']}, $max_servers {one['filter_servers']}): "
        f"{one['delivered_per_s']:.1f} msg/s, {one['ratio']:+.0%} against {one['equal_processes']} on both sides."
        for one in mismatches
        if (one["feed_processes"], one["filter_servers"]) == (facts.present_feed, facts.present_servers)
    ]
    if names and stock:
        reference = choose_processes(stock, facts.within, spread)
        sentences.append(
            f"Without {' and '.join(names)} the best would be {reference.processes} processes with {reference.per_s:.1f} msg/s."
        )
        for result in results:
            if result["name"] in names:
                parts = ", ".join(
                    f"{gain['ratio']:+.0%} ({gain['interval'][0]:+.0%} to {gain['interval'][1]:+.0%}) at "
                    f"{'low load' if gain['load'] == 'low' else 'saturation'}"
                    for gain in result["gains"]
                )
                sentences.append(f"{result['name']} by itself, at {result['processes']} processes: {parts}.")
    elif not confirmed and any(result["adopted"] for result in results):
        sentences.append("Variants that gain were found, but too few levels were measured with them to recommend them.")
    return [*sentences, *level["why"]]


def _propose(choice: Choice, servers: int, names: Sequence[str], facts: SweepFacts) -> Proposal | None:
    if facts.proposal is None:
        return None
    options: dict[str, str] = {}
    amavis: dict[str, int | str] = {}
    for name in names:
        of_feed, of_amavis = (facts.variant_settings or {}).get(name, ({}, {}))
        options.update(of_feed)
        amavis.update(of_amavis)
    known = facts.proposal
    return Proposal(
        choice.processes, servers, options, amavis, known.feed, known.master_cf, known.config_directory,
        known.destination_concurrency_limit, known.reinjection_processes, known.reinjection,
    )  # fmt: skip


def _extrapolate_memory(levels: Sequence[Level], servers: int) -> tuple[float | None, list[float] | None]:
    """Return the memory of *servers* filter processes, bytes, with a 95 % prediction interval, from a line through all levels."""
    points = [
        (one["filter_servers"], one["memory_bytes"]) for one in levels if one["filter_servers"] and one["memory_bytes"]
    ]
    measured = [memory for count, memory in points if count == servers]
    x, y = np.array([float(count or 0) for count, _ in points]), np.array([float(memory or 0) for _, memory in points])
    if len(set(x.tolist())) < 3 or len(x) < 4:
        return (float(np.mean(measured)) if measured else None), None
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - slope * centred
    freedom = len(x) - 2
    error = math.sqrt(
        float(rest @ rest) / freedom * (1 + 1 / len(x) + (servers - x.mean()) ** 2 / float(centred @ centred))
    )
    value = float(np.mean(measured)) if measured else float(y.mean() + slope * (servers - x.mean()))
    reach = student(freedom, 0.975) * error
    return value, [max(0.0, value - reach), value + reach]


def _find_ceilings(
    choice: Choice, level: Level, levels: Sequence[Level], memory_available: dict[int, float], facts: SweepFacts
) -> list[Ceiling]:
    """Return the next two limits above the recommendation, by the throughput they allow."""
    found: list[Ceiling] = []
    held_s = choice.processes / choice.per_s
    cpu_s = level["cpu_s_per_message"]
    if cpu_s and facts.cpus:
        per_s = facts.cpus / cpu_s
        found.append(
            Ceiling(
                name="CPU", per_s=per_s, processes=None,
                text=f"A message costs {cpu_s * 1000:.0f} ms of CPU: {facts.cpus} cores cannot carry more than {per_s:.1f} msg/s.",
            )
        )  # fmt: skip
    more = choice.best_per_s / choice.per_s - 1
    gain = (
        f"bring {more:+.0%} at the most ({choice.best_per_s:.1f} msg/s at {choice.best})"
        if more > 0.005
        else "bring nothing"
    )
    found.append(
        Ceiling(
            name="feed and filter processes",
            per_s=max(choice.best_per_s, choice.per_s),
            processes=choice.best,
            text=f"More processes than {choice.processes} {gain}.",
        )
    )
    known = facts.proposal
    for name, limit in (
        ("destination concurrency limit", known.destination_concurrency_limit if known else None),
        ("reinjection processes", known.reinjection_processes if known else None),
    ):
        if limit is not None:
            found.append(
                Ceiling(
                    name=name, per_s=limit / held_s, processes=limit,
                    text=f"The {name.replace('processes', 'service')} allows {limit} at a time: {limit / held_s:.0f} msg/s "
                    f"as long as a message takes {held_s * 1000:.0f} ms of a process.",
                )
            )  # fmt: skip
    free = memory_available.get(choice.processes)
    each = _memory_of_one(levels)
    if free is not None and each:
        most = choice.processes + int(free / each)
        found.append(
            Ceiling(
                name="memory", per_s=most / held_s, processes=most,
                text=f"One more process costs {each / 1e6:.0f} MB of the {free / 1e6:.0f} MB that are free: room for {most}.",
            )
        )  # fmt: skip
    found.sort(key=lambda ceiling: ceiling["per_s"] or math.inf)
    return found[:2]


def _memory_of_one(levels: Sequence[Level]) -> float | None:
    points = [
        (one["filter_servers"], one["memory_bytes"]) for one in levels if one["filter_servers"] and one["memory_bytes"]
    ]
    few, many = min(points, default=(None, None)), max(points, default=(None, None))
    if not few[0] or not many[0] or few[1] is None or many[1] is None or few[0] == many[0]:
        return None
    each = (many[1] - few[1]) / (many[0] - few[0])
    return each if each > 0 else None
