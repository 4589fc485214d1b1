"""Every message has exactly one fate."""

from pathlib import Path

import pytest

from loadgen.records import RunReader
from reports.accounting import FATES, Evidence, Sent, account, find_fate
from reports.analyse import analyse
from reports.summary import Summary
from tests.make_run import Made, change, make_run, set_meta

EVIDENCE = Evidence(blocked={"b"}, bounced={"r"}, queued={"q"})


def read(directory: Path) -> Summary:
    with RunReader(directory) as reader:
        return analyse(reader)


@pytest.mark.parametrize(
    ("message", "want"),
    [
        pytest.param(Sent("a", "accepted", arrived=True), "delivered", id="accepted-and-arrived"),
        pytest.param(Sent("a", "unknown", arrived=True), "delivered", id="reply-lost-and-arrived"),
        pytest.param(Sent("a", "refused", arrived=True), "delivered", id="refused-and-arrived-all-the-same"),
        pytest.param(Sent("b", "accepted", arrived=False), "blocked", id="blocked-by-the-filter"),
        pytest.param(Sent("b", "unknown", arrived=False), "blocked", id="reply-lost-and-blocked"),
        pytest.param(Sent("x", "refused", arrived=False), "refused", id="refused"),
        pytest.param(Sent("r", "accepted", arrived=False), "bounced", id="bounced"),
        pytest.param(Sent("q", "accepted", arrived=False), "queued", id="still-in-the-queue"),
        pytest.param(Sent("x", "accepted", arrived=False), "lost", id="nothing-known"),
        pytest.param(Sent("x", "unknown", arrived=False), "unknown", id="reply-lost-and-nothing-known"),
        pytest.param(Sent("x", "accepted", arrived=False, watched=False), "unknown", id="record-ends-first"),
        pytest.param(Sent("x", "not_sent", arrived=False), "not_sent", id="broke-before-the-dot"),
    ],
)
def test_each_message_has_one_fate(message: Sent, want: str) -> None:
    assert find_fate(message, EVIDENCE) == want


def test_fates_add_up_and_dropped_messages_are_apart() -> None:
    messages = [Sent("a", "accepted", True), Sent("x", "accepted", False), Sent("d", "dropped", False)]

    got = account(messages, Evidence(locust={"requests": 2, "failures": 0}))

    assert got["messages"] == sum(got[fate] for fate in FATES) == 2  # type: ignore[literal-required]
    assert (got["dropped"], got["adds_up"], got["locust_agrees"]) == (1, True, True)
    assert got["accounted_ratio"] == 0.5


def test_locust_that_counted_otherwise_is_noticed() -> None:
    assert account([], Evidence(locust={"requests": 3}))["locust_agrees"] is False


def test_nothing_sent_has_no_ratio() -> None:
    assert account([], Evidence())["accounted_ratio"] is None


def test_fates_are_read_from_the_record(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    gone = ", ".join(f"'abcd1234.{n}'" for n in range(100, 106))
    assert change(directory, f"DELETE FROM arrival WHERE id IN ({gone})") == 6
    # odd and even numbers are logged with and without angle brackets
    for number in (100, 101):
        change(directory, "UPDATE scan SET verdict = 'Blocked' WHERE queue_id = ?", (f"A{number:09d}",))
    change(directory, "UPDATE delivery SET status = 'bounced' WHERE queue_id = 'B000000102'")
    change(directory, "UPDATE delivery SET status = 'deferred' WHERE queue_id = 'B000000103'")
    change(directory, "INSERT INTO queued VALUES (99, 0, 'active', 'A000000104')")

    got = read(directory)["accounting"]

    assert (got["blocked"], got["bounced"], got["queued"], got["lost"]) == (2, 1, 2, 1)
    assert got["examples"]["lost"] == ["abcd1234.105"]
    assert got["adds_up"]


def test_blocked_message_is_found_by_its_queue_id_too(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    change(directory, "DELETE FROM arrival WHERE id = 'abcd1234.100'")
    change(directory, "UPDATE scan SET verdict = 'Blocked', message_id = NULL WHERE queue_id = 'A000000100'")

    assert read(directory)["accounting"]["blocked"] == 1


def test_message_left_in_an_earlier_drain_and_gone_from_the_last_is_lost(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1, 2)))
    change(directory, "DELETE FROM arrival WHERE id = 'abcd1234.10'")
    change(directory, "INSERT INTO queued VALUES (25, 0, 'active', 'A000000010')")

    assert read(directory)["accounting"]["lost"] == 1


def test_message_half_delivered_is_not_delivered(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1,)))
    change(directory, "UPDATE message SET recipients = 2 WHERE id = 'abcd1234.10'")

    assert read(directory)["accounting"]["lost"] == 1


def test_arrival_without_its_own_row_is_counted_apart(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1,)))
    change(directory, "DELETE FROM message WHERE id = 'abcd1234.10'")

    got = read(directory)["accounting"]

    assert got["unrecorded"] == 1
    assert got["locust_agrees"] is False


@pytest.mark.parametrize("fate_sql", ["DELETE FROM arrival WHERE id = 'abcd1234.100'"])
def test_complete_run_with_a_lost_message_is_invalid(tmp_path: Path, fate_sql: str) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    change(directory, fate_sql)

    assert read(directory)["status"] == "invalid"


def test_replies_that_were_no_250_are_counted_by_text(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(4,)))
    change(directory, "UPDATE message SET outcome='refused', code=451, reply='4.3.0 full' WHERE rowid <= 7")

    replies = read(directory)["accounting"]["replies"]

    assert replies == [{"outcome": "refused", "code": 451, "reply": "4.3.0 full", "messages": 7}]


def test_locust_totals_are_optional(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1,)))
    set_meta(directory, "locust", None)

    assert read(directory)["accounting"]["locust_agrees"] is None


@pytest.mark.parametrize(
    "evidence",
    [Evidence(unrecorded=1), Evidence(locust={"requests": 3, "failures": 0})],
    ids=["an-arrival-nobody-recorded-as-sent", "locust-counted-more"],
)
def test_a_record_that_misses_messages_does_not_add_up(evidence: Evidence) -> None:
    sent = [Sent(id=f"a.{number}", outcome="accepted", arrived=True) for number in range(2)]

    assert not account(sent, evidence)["adds_up"]
    assert account(sent, Evidence(locust={"requests": 2, "failures": 0}))["adds_up"]
