"""A sweep over process counts: visit after visit, each a change of settings and the steps taken under it.

Joins the search, which decides what to measure next from what was measured,
with the chain's tuner and the crew. The search sees the rows that the report
will show, worked out from the record itself after every visit.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import psutil

from loadgen.chain.opening import OpenChain
from loadgen.chain.tuning import Setting, Tuner
from loadgen.crew import Crew
from loadgen.errors import ChainError, UsageError
from loadgen.plan import Step
from loadgen.profile import Profile
from loadgen.search import Search, Visit, facts_of, make_steps
from loadgen.stepping import take_step
from loadgen.variants import Variant, make_setting, make_variants
from reports.analyse import measure
from reports.steprow import StepRow

__all__ = ["conduct_sweep"]


@dataclass(frozen=True)
class _Place:
    """Where a sweep goes on: the first step and visit of this run that have no number yet."""

    step: int = 0
    visit: int = 0


Show = Callable[[Step, str, str, float], None]
"""Takes the step, what it belongs to in words, its phase and the seconds since that began."""


async def conduct_sweep(crew: Crew, opened: OpenChain, show: Show) -> None:
    """Measure until the search has what it needs, the run is stopped, or a setting cannot be brought into force.

    Args:
        crew: The other processes, ready.
        opened: The chain; one without a tuner is measured as it is.
        show: Is told how far it is, ten times a second.

    Raises:
        UsageError: the chain's process counts are not known.
    """
    tuner = opened.tuner
    present = tuner.present if tuner is not None else _present(opened)
    profile = crew.profile if tuner is not None else _only_present(crew.profile, present)
    if opened.fixed:
        crew.remark("run", "not-tuned", opened.fixed)
        crew.progress.say(opened.fixed)
    variants = make_variants(profile.variants, opened.feed_command, present) if tuner is not None else ()
    _record(crew, opened, present, variants)
    search = Search(profile, variants, present, len(os.sched_getaffinity(0)), psutil.virtual_memory().total)
    rows: list[StepRow] = await _read_rows(crew, 0)
    while not crew.stop_run:
        visit = search.next_visit(rows)
        if visit is None:
            break
        place = _Place(
            max((row["step"] for row in rows), default=-1) + 1, max((row["visit"] or 0 for row in rows), default=-1) + 1
        )
        await _take_visit(crew, tuner, present, visit, profile, place, show)
        rows += await _read_rows(crew, place.step)
    if search.memory_bound is not None:
        crew.writer.write_meta("memory_bound", search.memory_bound)
        text = f"memory allows {search.memory_bound} filter processes; the search went no further"
        crew.remark("run", "memory-bound", text)


async def _take_visit(
    crew: Crew, tuner: Tuner | None, present: Setting, visit: Visit, profile: Profile, place: _Place,
    show: Show,
) -> None:  # fmt: skip
    setting, changed_s = present, 0.0
    if tuner is not None:
        setting, began = make_setting(visit.processes, visit.variants), crew.now()
        try:
            crew.chain = await tuner.apply(setting)
        except ChainError as error:
            crew.remark("run", "setting-failed", str(error))
            crew.stop_run = crew.stop_run or f"setting-failed: {error}"
            return
        crew.resting_since = None
        # what the daemons log of their reload belongs to the change, not to the step
        await crew.ask_collector("flushed", {"command": "flush"})
        changed_s = crew.now() - began
    words = f"P = {visit.processes}" + (f" {visit.name}" if visit.variants else "")
    for load, step in zip(visit.loads, make_steps(profile, visit, setting.feed_processes, place.step), strict=True):
        if crew.stop_run:
            return
        crew.writer.write_rows(
            "step",
            [(step.step, visit.processes, visit.name, step.concurrency, None, step.warm_up_s, step.hold_s)],
        )
        crew.writer.write_rows(
            "setting",
            [(step.step, place.visit, visit.purpose, load, setting.feed_processes, setting.filter_servers, changed_s)],
        )
        await take_step(crew, step, partial(show, step, words))


async def _read_rows(crew: Crew, first: int) -> list[StepRow]:
    crew.writer.commit()
    return await asyncio.to_thread(measure, crew.writer.directory, first)


def _present(opened: OpenChain) -> Setting:
    chain = opened.chain
    if chain.feed_processes is None or chain.filter_servers is None:
        raise UsageError(
            f"{chain.name}: a sweep needs to know the present process counts; give feed_processes and filter_servers in the chain file"
        )
    return Setting(chain.feed_processes, chain.filter_servers)


def _only_present(profile: Profile, present: Setting) -> Profile:
    """Return *profile* for a chain that stays as it is: its present level, repeated."""
    assert profile.processes is not None  # noqa: S101 (a sweep has them)
    levels = profile.processes.model_copy(update={"levels": (present.feed_processes,), "search": None})
    return profile.model_copy(update={"processes": levels, "variants": None})


def _record(crew: Crew, opened: OpenChain, present: Setting, variants: Sequence[Variant]) -> None:
    """Write down what was found and what will be tried."""
    chain = opened.chain
    crew.writer.write_meta(
        "present",
        {
            "feed_processes": present.feed_processes,
            "filter_servers": present.filter_servers,
            "destination_concurrency_limit": chain.destination_concurrency_limit,
            "reinjection_processes": chain.reinjection_processes,
            "reinjection_service": f"{chain.reinjection}/inet" if chain.reinjection is not None else "",
        },
    )
    facts = {}
    for variant in variants:
        known = facts_of(variant)
        facts[variant.name] = {
            "about": known.about, "settings": list(known.settings), "mends": known.mends, "adoptable": known.adoptable,
            "costs_memory": known.costs_memory, "feed": dict(variant.feed), "amavis": dict(variant.amavis),
        }  # fmt: skip
    crew.writer.write_meta("variants", facts)
