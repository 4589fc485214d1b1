import pytest

from loadgen.plan import Plan, concurrency_in, make_plan, next_phase, remaining_s
from loadgen.profile import parse_profile

TWO_STEPS: Plan = make_plan(
    parse_profile(
        """
about = "two steps"
[timing]
warm_up = "10s"
drain = "60s"
[[step]]
concurrency = 5
hold = "30s"
[[step]]
concurrency = 20
hold = "40s"
""",
        "p.toml",
    )
)
FIRST = TWO_STEPS.steps[0]


@pytest.mark.parametrize(
    ("phase", "elapsed_s", "sessions_open", "drained", "stop", "want"),
    [
        pytest.param("settle", 11.9, True, True, False, "settle", id="settle-waits-for-the-filter"),
        pytest.param("settle", 12.0, False, False, False, "ramp", id="settle-gives-up"),
        pytest.param("settle", 0.0, False, False, True, "drain", id="an-interrupt-ends-the-settling"),
        pytest.param("ramp", 3.0, False, False, False, "ramp", id="ramp-waits-for-the-sessions"),
        pytest.param("ramp", 0.2, True, False, False, "warm-up", id="ramp-ends-when-all-are-open"),
        pytest.param("warm-up", 9.9, True, False, False, "warm-up", id="warm-up-lasts"),
        pytest.param("warm-up", 10.0, True, False, False, "hold", id="warm-up-ends"),
        pytest.param("hold", 29.9, True, True, False, "hold", id="an-idle-queue-does-not-end-the-hold"),
        pytest.param("hold", 30.0, True, False, False, "drain", id="hold-ends"),
        pytest.param("hold", 3.0, True, False, True, "drain", id="a-limit-ends-the-hold"),
        pytest.param("ramp", 0.0, False, False, True, "drain", id="a-limit-ends-the-ramp"),
        pytest.param("drain", 59.9, False, False, False, "drain", id="drain-waits-for-the-queues"),
        pytest.param("drain", 0.5, False, True, False, "end", id="drained"),
        pytest.param("drain", 60.0, False, False, False, "end", id="drain-gives-up"),
        pytest.param("end", 0.0, False, True, True, "end", id="end-is-the-end"),
    ],
)
def test_phases_follow_each_other(
    phase: str, elapsed_s: float, sessions_open: bool, drained: bool, stop: bool, want: str
) -> None:
    got = next_phase(FIRST, phase, elapsed_s, settled=False, sessions_open=sessions_open, drained=drained, stop=stop)

    assert got == want


UNTIL_KNOWN = make_plan(
    parse_profile('about = "x"\n[[step]]\nconcurrency = 4\nhold = "8s"\nhold_limit = "20s"\n', "p.toml")
).steps[0]


@pytest.mark.parametrize(
    ("elapsed_s", "precise", "want"),
    [
        pytest.param(7.9, True, "hold", id="not-before-the-shortest-hold"),
        pytest.param(8.0, True, "drain", id="as-soon-as-it-is-known"),
        pytest.param(8.0, False, "hold", id="goes-on-until-it-is-known"),
        pytest.param(20.0, False, "drain", id="gives-up-at-the-limit"),
    ],
)
def test_hold_lasts_until_the_throughput_is_known(elapsed_s: float, precise: bool, want: str) -> None:
    got = next_phase(
        UNTIL_KNOWN, "hold", elapsed_s, settled=True, sessions_open=True, drained=False, precise=precise
    )  # fmt: skip

    assert got == want


def test_step_without_a_limit_asks_for_no_precision() -> None:
    assert (FIRST.precision, FIRST.hold_limit_s) == (None, FIRST.hold_s)
    assert UNTIL_KNOWN.precision == 0.05


def test_settled_filter_is_loaded_at_once() -> None:
    assert next_phase(FIRST, "settle", 0.1, settled=True, sessions_open=False, drained=False) == "ramp"


@pytest.mark.parametrize(
    ("phase", "want"), [("settle", 0), ("ramp", 5), ("warm-up", 5), ("hold", 5), ("drain", 0), ("end", 0)]
)
def test_no_session_outlives_the_hold(phase: str, want: int) -> None:
    assert concurrency_in(FIRST, phase) == want


def test_between_steps_there_are_no_sessions() -> None:
    assert concurrency_in(None, "hold") == 0


@pytest.mark.parametrize(
    ("step", "phase", "elapsed_s", "want"),
    [(0, "ramp", 0.0, 90.0), (0, "hold", 10.0, 70.0), (0, "drain", 5.0, 50.0), (1, "hold", 40.0, 0.0)],
)
def test_time_left_counts_warm_ups_and_holds(step: int, phase: str, elapsed_s: float, want: float) -> None:
    assert remaining_s(TWO_STEPS, step, phase, elapsed_s) == want
