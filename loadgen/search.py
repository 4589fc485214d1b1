"""Which process count to measure next, given what was measured so far.

Pure: results in, the next visit or None out; the order is random but follows
from the seed. A visit is one change of settings with the steps taken under
it. First the levels: all that were asked for, in rounds, or those a search
chooses: a coarse grid, then the counts around the one that will be
recommended, then repeats of those that decide. Then the variants in blocks,
at half that level, where the CPU hides nothing. Then the levels again with the
variants that proved worth it, because a mend moves the optimum.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loadgen.chain.tuning import Setting
from loadgen.plan import Step
from loadgen.profile import Processes, Profile
from loadgen.variants import PRESENT, Variant
from reports.gains import STOCK, VariantFacts, adopt, measure_gains, name_set
from reports.sizing import Choice, Spread, choose_processes, measure_spread
from reports.steprow import StepRow

__all__ = ["Search", "Visit", "concurrency_of", "facts_of", "make_steps"]

_SHARE_OF_EXHAUSTIVE = 3
"""A search may take this part of the visits that every level with all its repeats would."""
_LEAST_VISITS = 8
_TRIES_BEYOND = 2
"""A level is tried this many times more than its repeats when steps are not valid."""
_DOUBTFUL_VISITS = 3
"""More of them where the largest level seems best, but not surely so."""
_CONFIRM_SHARE = 2
"""Levels under adopted variants get this part of the visits of the first search: what they are near is known."""
_LOW_LOAD_HOLD = 1.5
"""Longest hold at low load, as a multiple of the shortest: gains there are large, or not worth a setting."""
_MOST_WAITING = 40
"""Sessions beyond the feed's processes: enough that its queue never runs dry, and no more than the front can hold."""
_MEMORY_RESERVE = 0.1
"""Share of the memory that must stay free at the largest level tried."""


@dataclass(frozen=True)
class Visit:
    """One change of settings, and the loads to measure under it."""

    processes: int
    variants: tuple[Variant, ...]
    purpose: str
    """level, confirm or variant."""
    loads: tuple[str, ...]
    patience: int = 1
    """Times the longest hold of the profile: more where a level was too slow for it before."""

    @property
    def name(self) -> str:
        """What the record calls its variants."""
        return name_set(variant.name for variant in self.variants)


@dataclass
class Search:
    """The whole sweep; ask `next_visit` with all rows measured so far."""

    profile: Profile
    variants: tuple[Variant, ...]
    present: Setting
    """As found; its counts are among the levels, so that the report can say what a change is worth."""
    cpus: int
    memory_bytes: int | None = None
    """Of the host."""
    memory_bound: int | None = field(init=False, default=None)
    """Most processes that memory allows, where that is less than the profile asks for."""
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Seed the order."""
        self._rng = random.Random(f"{self.profile.seed}:visits")

    def next_visit(self, rows: Sequence[StepRow]) -> Visit | None:
        """Return what to measure next, or None when everything asked for has been measured.

        *rows*: every step so far, those of an earlier run that is continued included.
        """
        if (visit := self._next_level(rows, STOCK, (), "level")) is not None:
            return visit
        choice = self._choose(rows, STOCK)
        if choice is None:
            return None
        if (visit := self._next_of_block(rows, choice)) is not None:
            return visit
        chosen = self.adopted(rows)
        if not chosen:
            return None
        return self._next_level(
            rows, name_set(variant.name for variant in chosen), chosen, "confirm", around=choice.processes
        )

    def adopted(self, rows: Sequence[StepRow]) -> tuple[Variant, ...]:
        """Return the variants that proved worth it so far."""
        facts = {variant.name: facts_of(variant) for variant in self.variants}
        names = adopt(measure_gains(rows, facts, _level_spread(rows)))
        return tuple(variant for variant in self.variants if variant.name in names)

    # -- levels -------------------------------------------------------------------------------------------

    def _next_level(
        self, rows: Sequence[StepRow], name: str, variants: tuple[Variant, ...], purpose: str, around: int | None = None
    ) -> Visit | None:
        wanted = self.profile.processes
        assert wanted is not None  # noqa: S101 (a search is made for a sweep only)
        measured = _rates(rows, name)
        tried = _count(rows, name)
        if wanted.levels is not None and purpose == "level":
            level = self._next_of_all(wanted.levels, measured, tried, wanted.repeats)
        else:
            level = self._next_of_search(rows, measured, tried, around)
        if level is None:
            return None
        fruitless = tried.get(level, 0) - len(measured.get(level, ()))
        return Visit(level, variants, purpose, ("saturated",), patience=2 ** min(fruitless, _TRIES_BEYOND))

    def _next_of_all(
        self, levels: Sequence[int], measured: Mapping[int, Sequence[float]], tried: Mapping[int, int], repeats: int
    ) -> int | None:
        """Return a level of the present round: of those with the fewest repeats, any."""
        open_ = [
            level for level in levels
            if len(measured.get(level, ())) < repeats and tried.get(level, 0) < repeats + _TRIES_BEYOND
        ]  # fmt: skip
        return self._any_of_fewest(open_, tried) if open_ else None

    def _next_of_search(
        self,
        rows: Sequence[StepRow],
        measured: Mapping[int, Sequence[float]],
        tried: Mapping[int, int],
        around: int | None,
    ) -> int | None:
        wanted = self.profile.processes
        assert wanted is not None  # noqa: S101 (a search is made for a sweep only)
        allowed = list(wanted.levels) if wanted.levels is not None else list(range(1, self._largest(rows) + 1))
        budget = max(_LEAST_VISITS, len(allowed) * wanted.repeats // _SHARE_OF_EXHAUSTIVE)
        if around is not None:
            budget //= _CONFIRM_SHARE
        # what was tried and never came out valid is left alone after a few times
        allowed = [level for level in allowed if level in measured or tried.get(level, 0) <= _TRIES_BEYOND]
        spent = sum(tried.values())
        missing = [level for level in self._coarse(allowed, around) if level not in measured]
        if missing and spent < budget + _TRIES_BEYOND:
            return self._any_of_fewest(missing, tried)
        if missing or not measured:
            return None
        choice = choose_processes(measured, wanted.within)
        doubtful = choice.at_largest and not choice.rises  # the noise may have put it there
        if doubtful:
            budget += _DOUBTFUL_VISITS
        if sum(len(rates) for rates in measured.values()) >= budget or spent >= budget + _TRIES_BEYOND:
            return None
        if (level := _beyond(choice, measured, allowed)) is not None or (
            level := _between(choice, measured, allowed, wanted.within)
        ) is not None:
            return level
        deciding = [
            level for level in _deciding(choice, measured, 2 * wanted.within if doubtful else wanted.within)
            if len(measured[level]) < wanted.repeats and tried.get(level, 0) < wanted.repeats + _TRIES_BEYOND
        ]  # fmt: skip
        return self._any_of_fewest(deciding, tried) if deciding else None

    def _coarse(self, allowed: Sequence[int], around: int | None) -> list[int]:
        """Return the first grid: powers of two up to four per core, or half, once and twice a count that is known."""
        if around is None:
            most = max(4 * self.cpus, 8)
            ideal = [2**i for i in range(8) if 2**i <= most] + [
                self.present.feed_processes,
                self.present.filter_servers,
            ]
        else:
            ideal = [max(1, around // 2), around, 2 * around]
        return sorted({min(allowed, key=lambda level: (abs(level - want), level)) for want in ideal})

    def _any_of_fewest(self, levels: Sequence[int], tried: Mapping[int, int]) -> int:
        fewest = min(tried.get(level, 0) for level in levels)
        return self._rng.choice([level for level in levels if tried.get(level, 0) == fewest])

    def _largest(self, rows: Sequence[StepRow]) -> int:
        """Return the most processes that may be tried: as the profile says, and as memory allows."""
        wanted = self.profile.processes
        assert wanted is not None  # noqa: S101 (a search is made for a sweep only)
        bound = _memory_bound(rows, self.memory_bytes)
        if bound is not None and bound < wanted.max:
            self.memory_bound = bound
            return max(1, bound)
        return wanted.max

    # -- variants -----------------------------------------------------------------------------------------

    def _next_of_block(self, rows: Sequence[StepRow], choice: Choice) -> Visit | None:
        """Return a visit of the present block: stock and every variant once each, in random order."""
        if not self.variants:
            return None
        table = self.profile.variants
        blocks = table.blocks if table is not None else 2
        earlier = (row["level"] for row in rows if row["purpose"] == "variant" and row["variant"] != PRESENT)
        # below the level that was found the CPU has room: a stall that it hides at the optimum shows there
        level = next(earlier, None) or -(-choice.processes // 2)
        loads: dict[str, tuple[str, ...]] = {STOCK: ("low", "saturated")}
        by_name = {variant.name: variant for variant in self.variants}
        for name, variant in by_name.items():
            loads[name] = ("low", "saturated") if variant.adoptable else ("saturated",)
        if set(by_name) == {PRESENT}:  # what it is compared with is among the levels
            del loads[STOCK]
        taken = {name: _visits(rows, name) for name in loads}
        done = {name: sum(_is_whole(visit, loads[name]) for visit in visits) for name, visits in taken.items()}
        open_ = [name for name in loads if done[name] < blocks and len(taken[name]) < blocks + _TRIES_BEYOND]
        if not open_:
            return None
        fewest = min(len(taken[name]) for name in open_)
        name = self._rng.choice([name for name in open_ if len(taken[name]) == fewest])
        if name == PRESENT:
            level = min(self.present.feed_processes, self.present.filter_servers)
        return Visit(level, () if name == STOCK else (by_name[name],), "variant", loads[name])

    def _choose(self, rows: Sequence[StepRow], name: str) -> Choice | None:
        wanted = self.profile.processes
        assert wanted is not None  # noqa: S101 (a search is made for a sweep only)
        measured = _rates(rows, name)
        return choose_processes(measured, wanted.within) if measured else None


def make_steps(profile: Profile, visit: Visit, feed_processes: int, first: int) -> list[Step]:
    """Return the steps of a visit; *first* is the number of the first, *feed_processes* what the feed then has."""
    wanted = profile.processes
    assert wanted is not None  # noqa: S101 (visits are of sweeps)
    return [
        Step(
            step=first + place,
            concurrency=concurrency_of(load, visit.processes, feed_processes),
            rate_per_s=None,
            warm_up_s=profile.timing.warm_up_s,
            hold_s=wanted.hold_s,
            drain_limit_s=profile.timing.drain_s,
            hold_limit_s=_hold_limit_s(wanted, load) * visit.patience,
            precision=profile.timing.precision,
        )
        for place, load in enumerate(visit.loads)
    ]


def _hold_limit_s(wanted: Processes, load: str) -> float:
    return min(wanted.hold_limit_s, _LOW_LOAD_HOLD * wanted.hold_s) if load == "low" else wanted.hold_limit_s


def concurrency_of(load: str, processes: int, feed_processes: int) -> int:
    """Return the sessions of a load: half the level, or so many that the feed's queue never runs dry."""
    if load == "low":
        return max(1, processes // 2)
    return feed_processes + max(4, min(feed_processes, _MOST_WAITING))


def facts_of(variant: Variant) -> VariantFacts:
    """Return what the analysis needs to know of a variant."""
    settings = [f"-o {name}={value}" for name, value in variant.feed]
    settings += [f"${name} = {value!r};" for name, value in variant.amavis]
    if variant.spare or variant.spare_share:
        more = f"{variant.spare:+d}" if variant.spare else f"+ {variant.spare_share:.0%}"
        settings.append(f"$max_servers = maxproc {more}")
    if variant.feed_factor != 1:
        settings.append(f"maxproc = {variant.feed_factor} x $max_servers")
    if variant.sides is not None:
        settings.append(f"maxproc = {variant.sides[0]}, $max_servers = {variant.sides[1]}")
    return VariantFacts(
        about=variant.about,
        settings=tuple(settings),
        mends=variant.mends,
        adoptable=variant.adoptable,
        costs_memory=variant.spare > 0 or variant.spare_share > 0,
    )


def _rates(rows: Sequence[StepRow], name: str) -> dict[int, list[float]]:
    """Return level to the throughputs of its valid saturated steps under the variants of that name."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if _is_level(row, name) and row["valid"] and row["delivered_per_s"] and row["level"]:
            found.setdefault(row["level"], []).append(row["delivered_per_s"])
    return found


def _count(rows: Sequence[StepRow], name: str) -> dict[int, int]:
    found: dict[int, int] = {}
    for row in rows:
        if _is_level(row, name) and row["level"]:
            found[row["level"]] = found.get(row["level"], 0) + 1
    return found


def _is_level(row: StepRow, name: str) -> bool:
    return row["purpose"] in ("level", "confirm") and row["variant"] == name and row["load"] == "saturated"


def _level_spread(rows: Sequence[StepRow]) -> Spread:
    names = {row["variant"] for row in rows if row["purpose"] in ("level", "confirm")}
    return measure_spread([rates for name in names for rates in _rates(rows, name).values()])


def _visits(rows: Sequence[StepRow], name: str) -> list[list[StepRow]]:
    found: dict[int, list[StepRow]] = {}
    for row in rows:
        if row["purpose"] == "variant" and row["variant"] == name and row["visit"] is not None:
            found.setdefault(row["visit"], []).append(row)
    return list(found.values())


def _is_whole(visit: Sequence[StepRow], loads: Sequence[str]) -> bool:
    return {row["load"] for row in visit if row["valid"]} == set(loads)


def _beyond(choice: Choice, measured: Mapping[int, Sequence[float]], allowed: Sequence[int]) -> int | None:
    """Return a larger count to try while throughput still rises at the largest, or the best is the largest."""
    largest = max(measured)
    if not (choice.rising or choice.at_largest) or largest >= max(allowed):
        return None
    return min(allowed, key=lambda level: (abs(level - 2 * largest), level))


def _between(
    choice: Choice, measured: Mapping[int, Sequence[float]], allowed: Sequence[int], within: float
) -> int | None:
    """Return an untried count where the curve is thought to come within the margin of the best."""
    below = [level for level in measured if level < choice.crossing]
    if not below:
        return None
    low, high = max(below), choice.crossing
    open_ = [level for level in allowed if low < level < high]
    # among many processes one more or less is within the margin anyway
    if not open_ or high - low <= max(1, high // 12):
        return None
    lower, upper = _mean(measured[low]), _mean(measured[high])
    share = ((1 - within) * choice.best_per_s - lower) / (upper - lower) if upper > lower else 0.5
    return min(open_, key=lambda level: (abs(level - (low + min(1.0, max(0.0, share)) * (high - low))), level))


def _deciding(choice: Choice, measured: Mapping[int, Sequence[float]], within: float) -> list[int]:
    """Return the levels on which the recommendation rests.

    They are the one it names, the best, where the curve crosses the margin with its neighbours, and the fewest
    processes *within* a share of the best.
    """
    levels = sorted(measured)
    place = levels.index(choice.crossing)
    fewest = next(level for level in levels if _mean(measured[level]) >= (1 - within) * choice.best_per_s)
    return sorted({*levels[max(0, place - 1) : place + 2], choice.processes, choice.best, fewest})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _memory_bound(rows: Sequence[StepRow], total: int | None) -> int | None:
    """Return the most filter processes that leave a tenth of the memory free, by what each more has cost; None: not known."""
    points = [
        (row["filter_servers"], row["memory_bytes"], row["host"]["memory_available_bytes"]) for row in rows
        if row["filter_servers"] and row["memory_bytes"] and row["host"]["memory_available_bytes"]
    ]  # fmt: skip
    if total is None or len({servers for servers, _, _ in points}) < 2:
        return None
    few, many = min(points), max(points)
    each = (many[1] - few[1]) / (many[0] - few[0])
    if each <= 0:
        return None
    return int(many[0] + (many[2] - _MEMORY_RESERVE * total) / each)
