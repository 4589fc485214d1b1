"""Gates: what a profile expects against what runs show. Met, missed, or not decided; never passed on a run that is none."""

import math
from typing import Any

import pytest

from loadgen.errors import ExitCode, ProfileError
from loadgen.expectations import Expect
from loadgen.profile import parse_profile
from reports.expecting import exit_code_of, judge_gate
from reports.gate import Gate
from reports.runcomparison import compare_runs
from reports.runvalues import RunValues
from tests.make_values import make_side, make_values

STEP = '[[step]]\nconcurrency = 8\nhold = "8s"\n'


def expect(text: str) -> Expect:
    return parse_profile(f'about = "a gate"\n{STEP}[expect]\n{text}', "gate.toml").expect


def judge(text: str, runs: list[RunValues], **named: Any) -> Gate:
    return judge_gate(expect(text), runs, **named)


@pytest.mark.parametrize(
    ("text", "runs", "want"),
    [
        pytest.param("delivered_per_s_min = 15", make_side([16.0, 16.1, 15.9]), "met", id="throughput-surely-above"),
        pytest.param("delivered_per_s_min = 17", make_side([16.0, 16.1, 15.9]), "missed", id="throughput-surely-below"),
        pytest.param("delivered_per_s_min = 16", make_side([16.2, 15.8, 16.3]), "inconclusive", id="interval-reaches-across"),
        pytest.param("delivered_per_s_min = 15", [make_values(16.0)], "met", id="one-run-has-the-interval-of-its-hold"),
        pytest.param("delivered_per_s_min = 15.8", [make_values(16.0)], "inconclusive", id="which-also-reaches-across"),
        pytest.param('response_p95_max = "1s"', make_side([16.0, 16.1]), "met", id="p95-below"),
        pytest.param('response_p95_max = "500ms"', make_side([16.0, 16.1]), "missed", id="p95-above"),
        pytest.param("error_ratio_max = 0.0", [make_values()], "met", id="all-delivered"),
        pytest.param("error_ratio_max = 0.01", [make_values(undelivered=11)], "missed", id="one-in-a-hundred-and-one-more"),
        pytest.param("error_ratio_max = 0.01", [make_values(undelivered=10)], "met", id="one-in-a-hundred-is-at-most-that"),
        pytest.param("lost_max = 0", make_side([16.0, 16.0], lost=1), "missed", id="lost-is-counted-over-all-runs"),
    ],
)  # fmt: skip
def test_an_expectation_is_met_missed_or_not_decided(text: str, runs: list[RunValues], want: str) -> None:
    gate = judge(text, runs)

    assert gate["judged"][0]["outcome"] == want
    assert gate["outcome"] == want


def test_one_that_is_missed_outweighs_one_that_is_not_decided() -> None:
    gate = judge('delivered_per_s_min = 16\nresponse_p95_max = "100ms"', make_side([16.2, 15.8, 16.3]))

    assert [one["outcome"] for one in gate["judged"]] == ["inconclusive", "missed"]
    assert exit_code_of(gate) is ExitCode.EXPECTATION_MISSED


@pytest.mark.parametrize("status", ["incomplete", "invalid", "running"])
def test_gate_never_passes_on_a_run_that_cannot_be_used(status: str) -> None:
    runs = [
        *make_side([16.0, 16.1]),
        make_values(status=status, directory="broken", end_reason="interrupted by the user"),
    ]

    gate = judge("delivered_per_s_min = 1", runs)

    assert gate["outcome"] == ("invalid" if status == "invalid" else "incomplete")
    assert gate["reasons"] == [f"broken: {status}: interrupted by the user"]
    assert exit_code_of(gate) is ExitCode.INVALID_RESULT


def test_step_that_is_not_valid_lets_nothing_pass_that_is_about_every_step() -> None:
    run = make_values(not_valid=["N = 32: not steady"])

    gate = judge('response_p95_max = "10s"', [run])

    assert gate["outcome"] == "invalid"
    assert "N = 32: not steady" in gate["reasons"][0]


def test_run_that_was_taken_again_does_not_count_and_is_named() -> None:
    runs = [*make_side([16.0, 16.1]), make_values(status="invalid", directory="noisy")]

    gate = judge("delivered_per_s_min = 1", runs, spoilt=["noisy"], wanted_runs=2)

    assert gate["outcome"] == "met"
    assert gate["spoilt"] == ["noisy"]
    assert any("taken again" in note for note in gate["notes"])
    assert judge("delivered_per_s_min = 1", runs, spoilt=["noisy"], wanted_runs=3)["outcome"] == "invalid"


def test_what_was_not_measured_is_not_met() -> None:
    run = make_values(steps=[], delivered_per_s_interval=None)

    gate = judge('response_p95_max = "1s"', [run])

    assert gate["judged"][0]["outcome"] == "not measured"
    assert exit_code_of(gate) is ExitCode.INVALID_RESULT


def test_step_without_a_p95_is_not_taken_for_a_fast_one() -> None:
    run = make_values(16.0)
    run["steps"] = [{**run["steps"][0], "concurrency": 1, "response_p95_s": None}, *run["steps"]]

    assert judge('response_p95_max = "10s"', [run])["judged"][0]["outcome"] == "not measured"


def test_machine_that_has_changed_leaves_only_what_does_not_depend_on_it() -> None:
    speeds = (20_000.0, 20_400.0, 19_800.0, 20_100.0)
    base = [make_values(value, generator_per_s=speed) for value, speed in zip(BASE, speeds, strict=True)]
    slower = [make_values(0.8 * value, generator_per_s=0.8 * speed) for value, speed in zip(BASE, speeds, strict=True)]

    gate = judge(
        "worse_max = { delivered_per_s = 0.05, memory_bytes = 0.1 }", slower, comparison=compare_runs(base, slower)
    )

    assert [one["outcome"] for one in gate["judged"]] == ["inconclusive", "met"]
    assert gate["outcome"] == "inconclusive"


def test_nothing_expected_is_no_gate() -> None:
    gate = judge_gate(Expect(), make_side([16.0, 16.1]))

    assert gate["outcome"] == "none"
    assert exit_code_of(gate) is ExitCode.OK
    assert gate["delivered_per_s"] == pytest.approx(math.sqrt(16.0 * 16.1))


BASE = [16.0, 16.1, 15.9, 16.05]


@pytest.mark.parametrize(
    ("candidate", "want"),
    [
        pytest.param([15.9, 16.0, 16.1, 15.95], "met", id="the-same"),
        pytest.param([19.9, 20.0, 20.1, 19.95], "met", id="better-is-never-missed"),
        pytest.param([15.9, 17.0, 16.4, 15.6], "met", id="perhaps-better-and-surely-not-worse"),
        pytest.param([13.5, 13.6, 13.4, 13.55], "missed", id="worse-by-more"),
        pytest.param([14.9, 16.4, 14.2, 15.3], "inconclusive", id="the-interval-reaches-across"),
        pytest.param([15.9], "inconclusive", id="one-run-has-no-interval"),
    ],
)
def test_against_a_baseline_only_a_loss_beyond_the_limit_is_missed(candidate: list[float], want: str) -> None:
    found = compare_runs(make_side(BASE), make_side(candidate), margin=0.05)

    gate = judge("worse_max = { delivered_per_s = 0.05 }", make_side(candidate), comparison=found)

    assert gate["judged"][0]["outcome"] == want, gate


def test_times_and_memory_are_worse_when_they_are_more() -> None:
    more = make_side(BASE, cpu_s_per_message=0.15)
    found = compare_runs(make_side(BASE), more)

    gate = judge("worse_max = { cpu_s_per_message = 0.1, memory_bytes = 0.1 }", more, comparison=found)

    assert {one["key"]: one["outcome"] for one in gate["judged"]} == {
        "worse_max.cpu_s_per_message": "missed", "worse_max.memory_bytes": "met",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "want"),
    [([3, 4], "met"), ([2, 4], "met"), ([3, 6], "inconclusive"), ([5, 6], "missed"), (None, "met")],
)
def test_recommended_processes_must_lie_in_the_range_with_their_whole_interval(
    interval: list[int] | None, want: str
) -> None:
    sweep = parse_profile(
        'about = "a sweep"\n[processes]\nsearch = "auto"\n[expect]\nrecommended_processes = [2, 4]\n', "sweep.toml"
    )
    processes = 3 if interval is None else interval[0]
    run = make_values(is_sweep=True, recommended_processes=processes, recommended_interval=interval)

    gate = judge_gate(sweep.expect, [run])

    assert gate["outcome"] == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (f"{STEP}[expect]\nlost = 0", "unknown key expect.lost; did you mean expect.lost_max?"),
        (f"{STEP}[expect]\nerror_ratio_max = 2", "expect.error_ratio_max: got 2, want at most 1"),
        (f'{STEP}[expect]\nresponse_p95_max = 2', 'expect.response_p95_max: got 2, want a duration with a unit'),
        (f"{STEP}[expect.worse_max]\ndelivered_per_s = 5", "got 5, want at most 0.5"),
        (f"{STEP}[expect]\nrecommended_processes = [2, 4]", "only a sweep recommends"),
        (f"runs = 0\n{STEP}", "runs: got 0, want at least 1"),
        ('runs = 3\n[processes]\nsearch = "auto"', "a sweep repeats its levels by itself"),
    ],
)  # fmt: skip
def test_wrong_expectations_are_named_with_what_is_wanted(text: str, want: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile(f'about = "a gate"\n{text}', "gate.toml")

    assert want in str(caught.value)


def test_what_is_expected_does_not_change_the_workload() -> None:
    plain = parse_profile(f'about = "a"\n{STEP}', "a.toml")
    gate = parse_profile(f'about = "b"\nruns = 5\n{STEP}[expect]\nlost_max = 0\n', "b.toml")

    assert plain.workload_hash == gate.workload_hash
