"""A run over several process counts, judged as a whole: levels, models, variants, recommendation.

Joins the pure parts (`levels`, `gains`, `models`, `recommendation`) on one
run. Nothing is decided here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.gains import STOCK, VariantFacts, adopt, compare_sides, measure_gains, name_set
from reports.guide import Proposal
from reports.levels import describe_levels, level_rates, level_spread
from reports.recommendation import SweepFacts, describe_present, recommend, withdraw_losers
from reports.sizing import Choice, choose_processes
from reports.steprow import StepRow
from reports.summary import Verdict
from reports.sweepsummary import Level, Models, Recommendation, Sweep
from reports.tables import Run

__all__ = ["Judged", "judge_sweep", "read_variant_facts"]

_LEAST_LEVELS = 4
"""Fewer different process counts say nothing about a law."""


@dataclass(frozen=True)
class Judged:
    """What a sweep says."""

    levels: list[Level]
    sweep: Sweep
    recommendation: Recommendation
    verdict: Verdict


def read_variant_facts(meta: Mapping[str, Any]) -> dict[str, VariantFacts]:
    """Return what the record says of the variants, by name."""
    return {
        name: VariantFacts(
            about=str(one.get("about", "")),
            settings=tuple(one.get("settings", ())),
            mends=str(one.get("mends", "")),
            adoptable=bool(one.get("adoptable", True)),
            costs_memory=bool(one.get("costs_memory", False)),
        )
        for name, one in (meta.get("variants") or {}).items()
    }


def judge_sweep(run: Run, rows: Sequence[StepRow], cpus: int | None) -> Judged:
    """Return what the sweep *run* says; *rows* are its steps."""
    meta = run.meta
    wanted = (meta.get("profile") or {}).get("processes") or {}
    facts = read_variant_facts(meta)
    levels = describe_levels(run, rows, cpus)
    spread = level_spread(rows)
    within = float(wanted.get("within") or 0.05)
    results = withdraw_losers(levels, measure_gains(rows, facts, spread), spread, within)
    mismatches = compare_sides(rows, facts, spread)
    known = _read_facts(meta, within, cpus)
    recommendation = recommend(levels, results, mismatches, spread, _memory_available(rows), known)
    recommendation["present"] = describe_present(known)
    stock = level_rates(rows)
    adopted = name_set(adopt(results))
    visits = {row["visit"] for row in rows}
    sweep = Sweep(
        search="auto" if wanted.get("search") else "levels",
        levels_asked=sorted({one["processes"] for one in levels if one["processes"] and one["variant"] == STOCK}),
        visits=len(visits),
        measured_s=sum(end - start for row in rows if (span := run.span(row["step"])) for start, end in [span]),
        spread=spread.relative if any(len(one["repeats"]) > 1 for one in levels) else None,
        models=_fit(stock, STOCK),
        models_adopted=_fit(level_rates(rows, adopted), adopted) if adopted != STOCK else None,
        variants=results,
        mismatches=mismatches,
    )
    return Judged(levels, sweep, recommendation, _judge(recommendation, rows, levels, within))


def _memory_available(rows: Sequence[StepRow]) -> dict[int, float]:
    found: dict[int, float] = {}
    for row in rows:
        least = row["host"]["memory_available_bytes"]
        if row["level"] and least is not None and row["purpose"] != "variant":
            found[row["level"]] = min(least, found.get(row["level"], least))
    return found


def _fit(rates: Mapping[int, Sequence[float]], variant: str) -> Models | None:
    if len(rates) < _LEAST_LEVELS:
        return None
    from reports.models import fit_models  # lazily: only the analysis of a sweep pays for it

    points = [(float(level), value) for level, values in rates.items() for value in values]
    return fit_models(points, variant=variant)


def _read_facts(meta: Mapping[str, Any], within: float, cpus: int | None) -> SweepFacts:
    chain, present = meta.get("chain") or {}, meta.get("present") or {}
    postfix = chain.get("postfix") or {}
    proposal = Proposal(
        feed_processes=0, filter_servers=0, feed_options={}, amavis={},
        feed=str(postfix.get("feed") or "amavisfeed"),
        master_cf=str((meta.get("settings") or {}).get("master.cf", "")),
        config_directory=str(postfix.get("config_directory") or "/etc/postfix"),
        destination_concurrency_limit=present.get("destination_concurrency_limit"),
        reinjection_processes=present.get("reinjection_processes"),
        reinjection=str(present.get("reinjection_service") or ""),
    )  # fmt: skip
    return SweepFacts(
        within=within,
        present_feed=present.get("feed_processes"),
        present_servers=present.get("filter_servers"),
        cpus=cpus,
        proposal=proposal if chain.get("kind") != "reference" else None,
        variant_settings={
            name: (dict(one.get("feed") or {}), dict(one.get("amavis") or {}))
            for name, one in (meta.get("variants") or {}).items()
        },
        memory_bound=meta.get("memory_bound"),
    )


def _judge(recommendation: Recommendation, rows: Sequence[StepRow], levels: Sequence[Level], within: float) -> Verdict:
    """Return the verdict in the form that every run has."""
    found = recommendation["processes"] is not None
    chosen = name_set(recommendation["variants"])
    mine = [one for one in levels if one["variant"] == chosen]
    level = next((one for one in mine if one["processes"] == recommendation["processes"]), None) if found else None
    choice = _choose(mine, within)
    return Verdict(
        saturated=True if found else None,
        headline=recommendation["headline"],
        sentences=recommendation["sentences"],
        concurrency=None,
        crossing_concurrency=None,
        delivered_per_s=recommendation["delivered_per_s"],
        delivered_per_s_interval=recommendation["delivered_per_s_interval"],
        beyond_per_s=None if found or choice is None else choice.per_s_interval[0],
        kept_up_per_s=None,
        tested_to=max((row["concurrency"] for row in rows if row["valid"]), default=None),
        retrograde=bool(choice and choice.falls),
        plateau_steps=[repeat["step"] for repeat in level["repeats"]] if level else [],
        station=level["station"] if level else None,
        candidates=level["candidates"] if level else [],
        evidence={},
    )


def _choose(levels: Sequence[Level], within: float) -> Choice | None:
    rates = {
        one["processes"]: [repeat["delivered_per_s"] for repeat in one["repeats"]]
        for one in levels if one["processes"] and one["repeats"]
    }  # fmt: skip
    return choose_processes(rates, within) if rates else None
