import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.chain.laws import Law, throughput_per_s
from loadgen.chain.station import Station


def make_station(servers: int, law: Law) -> Station:
    return Station(servers, lambda busy: throughput_per_s(law, busy))


def in_order(**instants: float) -> list[tuple[str, Any]]:
    """Return what `advance` should give: keys with their instants, as exact as floats are."""
    return [(key, pytest.approx(at)) for key, at in instants.items()]


def test_constant_service_takes_its_time_whoever_else_is_there() -> None:
    station = make_station(2, Law(law="constant", service_s=0.5))
    station.enter("a", 1.0)
    station.enter("b", 1.2)

    assert station.advance(5.0) == in_order(a=1.5, b=1.7)


def test_capped_servers_slow_each_other_down() -> None:
    station = make_station(2, Law(law="hard-cap", service_s=0.5, cap_per_s=2.0))
    station.enter("a", 0.0)
    station.enter("b", 0.0)

    assert station.advance(5.0) == in_order(a=1.0, b=1.0)


def test_usl_shares_the_throughput_of_the_busy_servers() -> None:
    law = Law(gamma=10.0, alpha=0.1, beta=0.0)  # X(1) = 10, X(2) = 18.18
    station = make_station(4, law)
    station.enter("a", 0.0)
    station.enter("b", 0.0)

    # both at 9.09 per second until they are done together
    assert [at for _, at in station.advance(1.0)] == [pytest.approx(0.11), pytest.approx(0.11)]


def test_message_that_waited_starts_when_the_one_before_was_done_not_when_somebody_looked() -> None:
    station = make_station(1, Law(law="constant", service_s=0.1))
    for key in "abc":
        station.enter(key, 0.0)

    late = station.advance(0.35)  # nobody looked until long after

    assert late == in_order(a=0.1, b=0.2, c=0.3)


def test_message_that_finds_a_free_server_starts_when_it_came_in() -> None:
    station = make_station(2, Law(law="constant", service_s=0.1))
    station.enter("a", 1.0)
    station.advance(1.5)
    station.enter("b", 2.0)

    assert station.advance(3.0) == in_order(b=2.1)


def test_more_messages_than_servers_wait_in_the_order_in_which_they_came() -> None:
    station = make_station(2, Law(law="constant", service_s=0.1))
    for number, key in enumerate("abcd"):
        station.enter(key, number * 0.01)

    assert station.busy == 2
    assert station.advance(1.0) == in_order(a=0.1, b=0.11, c=0.2, d=0.21)


def test_newcomer_slows_down_those_already_in_service() -> None:
    # X(1) = 10, so "a" is half done at 0.05; X(2) = 10 as well, so from then on both progress at 5 per second:
    # "a" needs 0.1 s for its other half, "b" is then half done and has the server to itself again
    station = make_station(2, Law(law="hard-cap", service_s=0.1, cap_per_s=10.0))
    station.enter("a", 0.0)
    station.enter("b", 0.05)

    assert station.advance(1.0) == in_order(a=0.15, b=0.2)


def test_entering_returns_what_was_done_meanwhile() -> None:
    station = make_station(1, Law(law="constant", service_s=0.1))
    station.enter("a", 0.0)

    assert station.enter("b", 0.5) == in_order(a=0.1)
    assert station.next_completion() == pytest.approx(0.6)


@given(seed=st.integers(0, 10_000), servers=st.integers(1, 6))
def test_saturated_station_completes_exactly_its_capacity(seed: int, servers: int) -> None:
    rng = random.Random(seed)
    law = Law(gamma=10.0, alpha=0.05, beta=0.001)
    station = make_station(servers, law)
    for number in range(200):
        station.enter(str(number), 0.0)
    completed: list[tuple[str, float]] = []
    now = 0.0
    while len(completed) < 200:
        now += rng.uniform(0.0, 1.0)  # however irregularly one looks
        completed += station.advance(now)
    completed.sort(key=lambda item: item[1])
    full = 200 - servers  # the last ones no longer have company

    assert full / completed[full - 1][1] == pytest.approx(throughput_per_s(law, servers), rel=servers / 100)
