"""What a sweep measures next, on chains that are formulas."""

from collections import Counter

import pytest

from loadgen.chain.tuning import Setting
from loadgen.profile import Profile
from loadgen.search import Search, concurrency_of, make_steps
from loadgen.variants import Variant, make_variants
from reports.levels import level_rates
from reports.sizing import choose_processes
from tests.make_rows import Simulated, make_profile, make_row

AUTO = make_profile('[processes]\nsearch = "auto"\nmax = 16\n')
ALL = make_profile("[processes]\nlevels = [1, 2, 3, 4, 6, 8]\nrepeats = 3\n")


def capped(cap: float = 18.0, each: float = 6.0) -> Simulated:
    return Simulated(lambda p: min(each * p, cap), 0.01, 1)


def levels_of(chain: Simulated) -> list[int]:
    return [visit.processes for visit in chain.visits]


def test_largest_level_that_seemed_best_is_measured_again_until_that_is_decided() -> None:
    first = iter((17.1,))
    chain = Simulated(lambda p: next(first, 15.5) if p == 8 else min(6.3 * p, 15.5), 0.02, 1)

    chain.sweep(make_profile('[processes]\nsearch = "auto"\nmax = 8\n'))

    choice = choose_processes(level_rates(chain.rows), 0.05)
    assert choice.processes < 8
    assert not choice.at_largest
    assert len(chain.visits) <= 8 + 3


def test_every_level_is_measured_as_often_as_asked_in_rounds() -> None:
    chain = capped()
    chain.sweep(ALL)

    got = levels_of(chain)

    assert len(got) == 18
    for start in (0, 6, 12):
        assert sorted(got[start : start + 6]) == [1, 2, 3, 4, 6, 8]
    assert got[:6] != got[6:12], "the order of a round is its own"


def test_order_follows_from_the_seed() -> None:
    one, two, other = capped(), capped(), capped()
    one.sweep(ALL)
    two.sweep(ALL)
    other.sweep(make_profile("[processes]\nlevels = [1, 2, 3, 4, 6, 8]\n", seed=2))

    assert levels_of(one) == levels_of(two)
    assert levels_of(one) != levels_of(other)


def test_search_finds_the_level_in_a_third_of_the_visits() -> None:
    chain = capped()
    chain.sweep(AUTO)

    assert choose_processes(level_rates(chain.rows), 0.05).processes == 3
    assert len(chain.visits) <= 16 * 3 / 3


def test_search_goes_far_beyond_the_cores_when_scanning_waits() -> None:
    chain = Simulated(lambda p: ((1.4 * p) ** -12 + 20.0**-12) ** (-1 / 12), 0.01, 1)
    chain.sweep(make_profile('[processes]\nsearch = "auto"\nmax = 64\n'), cpus=2)

    got = choose_processes(level_rates(chain.rows), 0.05).processes

    # the fewest within 5 % of 20 msg/s
    assert abs(got - 15) <= 1


def test_search_stops_where_memory_ends() -> None:
    chain = Simulated(lambda p: 1.0 * p, 0.01, 1)
    chain.memory = lambda servers: 1e9 + 0.5e9 * servers
    search = chain.sweep(make_profile('[processes]\nsearch = "auto"\nmax = 64\n'))

    # 8 GB less a tenth leave 12.4 processes beside the first gigabyte
    assert search.memory_bound == 12
    assert max(levels_of(chain)) <= 12


def test_level_that_never_works_is_given_up() -> None:
    chain = capped()
    chain.broken = {4}
    chain.sweep(ALL)

    counts = Counter(levels_of(chain))

    assert counts[4] == 3 + 2
    assert counts[3] == 3


def test_what_an_earlier_run_measured_is_not_measured_again() -> None:
    chain = capped()
    chain.sweep(ALL)
    again = capped()
    again.rows = chain.rows[:10]
    again.sweep(ALL)

    assert len(again.visits) == 8


def variants() -> tuple[Variant, ...]:
    return make_variants(make_profile("[processes]\nlevels = [1]\n[variants]\n").variants, "lmtp", Setting(2, 2))


def with_variants(effects: dict[str, float], blocks: int = 3, seed: int = 1) -> tuple[Simulated, Search]:
    chain = Simulated(lambda p: min(6.0 * p, 18.0), 0.01, seed, variants())
    chain.effects = effects
    text = f'[processes]\nsearch = "auto"\nmax = 8\n[variants]\nblocks = {blocks}\n'
    return chain, chain.sweep(make_profile(text, seed))


def test_variants_take_turns_with_stock_at_half_the_level_that_stock_needs() -> None:
    chain, _ = with_variants({})
    block = [visit for visit in chain.visits if visit.purpose == "variant"]
    names = [visit.name for visit in block]

    assert {visit.processes for visit in block} == {2}
    assert len(names) == 15
    for start in (0, 5, 10):
        assert sorted(names[start : start + 5]) == ["no-cache", "no-pipelining", "spare-children", "stock", "wide-feed"]
    assert all(visit.loads == ("low", "saturated") for visit in block if visit.name != "wide-feed")


def test_mend_that_gains_is_adopted_and_the_levels_measured_again_with_it() -> None:
    chain, search = with_variants({"no-pipelining": 1.3})

    assert [variant.name for variant in search.adopted(chain.rows)] == ["no-pipelining"]
    confirm = [visit for visit in chain.visits if visit.purpose == "confirm"]
    assert {visit.name for visit in confirm} == {"no-pipelining"}
    assert len({visit.processes for visit in confirm}) >= 3


def test_nothing_is_measured_again_when_no_variant_gains() -> None:
    chain, search = with_variants({})

    assert search.adopted(chain.rows) == ()
    assert all(visit.purpose != "confirm" for visit in chain.visits)


def test_sides_found_out_of_step_are_measured_without_being_asked_for() -> None:
    found = make_variants(None, "lmtp", Setting(8, 2))
    chain = Simulated(lambda p: min(6.0 * p, 18.0), 0.01, 1, found)
    chain.present = Setting(8, 2)
    chain.sweep(AUTO)

    pair = [visit for visit in chain.visits if visit.name == "present"]
    assert len(pair) == 2
    assert all(visit.loads == ("saturated",) for visit in pair)
    rows = [row for row in chain.rows if row["variant"] == "present"]
    assert {(row["feed_processes"], row["filter_servers"]) for row in rows} == {(8, 2)}
    assert {row["level"] for row in rows} == {2}
    assert {2, 8} <= {row["level"] for row in chain.rows if row["variant"] == "stock"}, "and what it is compared with"


@pytest.mark.parametrize(
    ("load", "processes", "feed", "want"),
    [("low", 1, 1, 1), ("low", 4, 4, 2), ("saturated", 1, 1, 5), ("saturated", 4, 4, 8), ("saturated", 4, 8, 16),
     ("saturated", 100, 100, 140)],
)  # fmt: skip
def test_load_is_half_the_level_or_more_than_the_feed_can_take(load: str, processes: int, feed: int, want: int) -> None:
    assert concurrency_of(load, processes, feed) == want


def test_steps_of_a_visit_hold_for_the_precision_of_the_profile() -> None:
    profile: Profile = make_profile(
        '[timing]\nprecision = 0.03\n[processes]\nlevels = [2]\nhold = "5s"\nhold_limit = "20s"\n'
    )
    visit = Search(profile, (), Setting(2, 2), 2).next_visit([])
    assert visit is not None

    (step,) = make_steps(profile, visit, 2, 7)

    assert (step.step, step.concurrency, step.hold_s, step.hold_limit_s, step.precision) == (7, 6, 5.0, 20.0, 0.03)


def test_level_too_slow_for_its_hold_is_given_twice_as_long() -> None:
    profile = make_profile('[processes]\nlevels = [2]\nrepeats = 1\nhold = "5s"\nhold_limit = "10s"\n')
    visit = Search(profile, (), Setting(2, 2), 2).next_visit([make_row(level=2, valid=False)])
    assert visit is not None

    assert make_steps(profile, visit, 2, 1)[0].hold_limit_s == 20.0


def test_invalid_visit_is_taken_again() -> None:
    search = Search(make_profile("[processes]\nlevels = [2]\nrepeats = 1\n"), (), Setting(2, 2), 2)

    assert search.next_visit([make_row(level=2, valid=False)]) is not None
    assert search.next_visit([make_row(level=2)]) is None
