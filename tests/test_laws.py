import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.chain.laws import Law, describe_law, known_delivered_per_s, throughput_per_s


@pytest.mark.parametrize(
    ("law", "busy", "want"),
    [
        pytest.param(Law(law="constant", service_s=0.1), 4, 40.0, id="constant"),
        pytest.param(Law(law="hard-cap", service_s=0.1, cap_per_s=25.0), 2, 20.0, id="below-the-cap"),
        pytest.param(Law(law="hard-cap", service_s=0.1, cap_per_s=25.0), 4, 25.0, id="at-the-cap"),
        # Gunther's specsdm91 as fitted by R's usl 3: X(36) = 1541
        pytest.param(Law(gamma=90.0, alpha=0.02773, beta=0.0001044), 36, 1541.0, id="published-usl"),
        # 5 * 4 / (1 + 0.03 * 3 + 0.0005 * 4 * 3) = 20 / 1.096
        pytest.param(Law(), 4, 18.248, id="default"),
        pytest.param(Law(), 0, 0.0, id="idle"),
    ],
)
def test_throughput_follows_the_law(law: Law, busy: int, want: float) -> None:
    assert throughput_per_s(law, busy) == pytest.approx(want, rel=1e-3)


def test_known_throughput_is_the_law_at_every_number_of_messages_in_service() -> None:
    known = known_delivered_per_s(Law(law="constant", service_s=0.1))

    assert known[1] == pytest.approx(10.0)
    assert known[256] == pytest.approx(2560.0)


def test_messages_that_wait_share_the_cores_as_the_machine_repairman_does() -> None:
    """One core: X = (1 - p0) / cpu with p0 = 1 / sum n!/(n-k)! (cpu/wait)^k (the classic M/M/1//N)."""
    law = Law(law="waiting", cpu_s=0.1, wait_s=0.7, cores=1)
    terms, term = [1.0], 1.0
    for k in range(1, 6):
        term *= (5 - k + 1) * 0.1 / 0.7
        terms.append(term)

    assert throughput_per_s(law, 5) == pytest.approx((1 - 1 / sum(terms)) / 0.1)
    assert throughput_per_s(law, 1) == pytest.approx(1 / 0.8)


def test_waiting_moves_the_optimum_far_beyond_the_cores() -> None:
    law = Law(law="waiting", cpu_s=0.1, wait_s=0.7, cores=2)

    assert throughput_per_s(law, 2) < 0.15 * 20
    assert throughput_per_s(law, 24) > 0.95 * 20
    assert throughput_per_s(law, 200) <= 20.0 + 1e-9


@given(st.integers(1, 64), st.floats(0, 0.5), st.floats(0, 0.01))
def test_one_server_always_does_gamma(busy: int, alpha: float, beta: float) -> None:
    law = Law(gamma=7.0, alpha=alpha, beta=beta)

    assert throughput_per_s(law, 1) == pytest.approx(7.0)
    assert throughput_per_s(law, busy) <= 7.0 * busy + 1e-9


@pytest.mark.parametrize(
    ("law", "want"),
    [
        pytest.param(Law(law="constant", service_s=0.1), "constant service time: X(n) = n / 0.1 s", id="constant"),
        pytest.param(
            Law(law="hard-cap", service_s=0.1, cap_per_s=25.0),
            "hard cap: X(n) = min(n / 0.1 s, 25 msg/s)",
            id="hard-cap",
        ),
        pytest.param(
            Law(law="waiting"),
            "0.1 s on one of 2 cores and 0.7 s of waiting for each message",
            id="waiting",
        ),
        pytest.param(
            Law(),
            "Universal Scalability Law: X(n) = 5 n / (1 + 0.03 (n - 1) + 0.0005 n (n - 1)) msg/s",
            id="usl",
        ),
    ],
)
def test_law_is_told_with_its_numbers(law: Law, want: str) -> None:
    assert describe_law(law) == want
