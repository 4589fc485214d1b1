"""The recorded logs are a real chain's: Postfix 3.7.11 with long queue ids, filter on port 28124.

`maillog-healthy.log`: 22 messages, all delivered. `maillog-trouble.log`: two
messages blocked, reloads, amavisd stopped with mail queued (refused, then
"temporarily suspended"), one delivery deferred by its destination and one
bounced together with its bounce, a stop and a start.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadgen.collect.logline import OWN_DOMAIN, Row
from loadgen.collect.maillog import MaillogParser
from loadgen.records import TABLES
from loadgen.traffic.message import ID_DOMAIN

DATA = Path(__file__).parent / "data"
HEALTHY = (DATA / "maillog-healthy.log").read_text().splitlines()
TROUBLE = (DATA / "maillog-trouble.log").read_text().splitlines()
PORT = 28124
HEAD = "Nov 25 02:33:41 mx.lab.test "


def parse(lines: list[str], parser: MaillogParser | None = None) -> list[Row]:
    parser = parser or MaillogParser(PORT)
    return [row for line in lines for row in parser.parse(line, 1.5)]


def table(rows: list[Row], name: str) -> list[dict[str, Any]]:
    return [dict(zip(TABLES[name], row, strict=True)) for kind, row in rows if kind == name]


def delivery(text: str, tag: str = "postfix/lmtp") -> dict[str, Any]:
    (got,) = table(parse([f"{HEAD}{tag}[7]: 383E920CA16: {text}"]), "delivery")
    return got


def remarks(lines: list[str], syslog_name: str | None = None) -> list[tuple[str, str]]:
    return [(r["source"], r["kind"]) for r in table(parse(lines, MaillogParser(PORT, syslog_name)), "remark")]


def test_every_delivered_message_is_joined_from_its_first_queue_id_to_its_last() -> None:
    rows = parse(HEALTHY)
    entries = {e["queue_id"]: e for e in table(rows, "queue_entry")}
    fed = {d["queue_id"]: d for d in table(rows, "delivery") if d["station"] == "feed"}
    delivered = [d for d in table(rows, "delivery") if d["station"] == "delivery"]

    assert len(delivered) == 22
    for last in delivered:
        second = entries[last["queue_id"]]
        first = entries[second["origin"]]
        assert (first["pass_number"], second["pass_number"]) == (1, 2)
        assert first["message_id"] == second["message_id"]
        assert fed[first["queue_id"]]["queued_as"] == second["queue_id"]


def test_our_own_messages_have_the_id_under_which_they_were_sent() -> None:
    got = {e["message_id"] for e in table(parse(HEALTHY), "queue_entry")}

    assert {f"5eed01.{number}" for number in range(16)} <= got
    assert f"@{ID_DOMAIN}" == OWN_DOMAIN


def test_the_four_delays_are_read_from_where_postfix_puts_them() -> None:
    got = delivery(
        "to=<b@example.net>, relay=127.0.0.1[127.0.0.1]:28124, conn_use=9, delay=5.6, delays=0.01/0.02/5.5/0.06, "
        "dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:28135): 250 2.0.0 Ok: queued as 8582220CA52)"
    )

    assert [got[name] for name in ("delay_s", "a_s", "b_s", "c_s", "d_s")] == [5.6, 0.01, 0.02, 5.5, 0.06]
    assert (got["station"], got["conn_use"], got["dsn"], got["status"]) == ("feed", 9, "2.0.0", "sent")
    assert got["queued_as"] == "8582220CA52"


def test_a_connection_used_once_is_told_without_conn_use() -> None:
    got = delivery(
        "to=<b@x.test>, relay=127.0.0.1[127.0.0.1]:28124, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (ok)"
    )

    assert got["conn_use"] == 1


def test_fields_that_newer_versions_insert_do_not_shift_the_others() -> None:
    got = delivery(
        "to=<b@x.test>, orig_to=<c@x.test>, relay=mx[10.0.0.1]:25, delay=1, delays=0.1/0.2/0.3/0.4, "
        "tls=verified, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 8582220CA52)"
    )

    assert (got["d_s"], got["dsn"], got["station"], got["queued_as"]) == (0.4, "2.0.0", "delivery", "")


def test_an_attempt_without_a_connection_belongs_to_the_station_it_names() -> None:
    reason = "delivery temporarily suspended: connect to 127.0.0.1[127.0.0.1]:{}: Connection refused"
    line = "to=<b@x.test>, relay=none, delay=0, delays=0/0/0/0, dsn=4.4.1, status=deferred ({})"

    assert delivery(line.format(reason.format(PORT)), "postfix/error")["station"] == "feed"
    assert delivery(line.format(reason.format(PORT * 10)), "postfix/error")["station"] == "delivery"


def test_the_queue_is_empty_again_when_all_is_delivered_and_was_not_meanwhile() -> None:
    parser = MaillogParser(PORT, "lab-record")
    counts = []
    for line in HEALTHY:
        parser.parse(line, 0.0)
        counts.append((parser.count_in_pass(1), parser.count_in_pass(2)))

    assert counts[-1] == (0, 0)
    assert max(first for first, _ in counts) == 22  # Postfix took them faster than the filter
    assert 1 <= max(second for _, second in counts) <= 2  # two amavisd children


def test_what_is_left_in_the_queue_at_the_end_of_trouble_is_nothing() -> None:
    parser = MaillogParser(PORT, "lab-record")
    parse(TROUBLE, parser)

    assert (parser.count_in_pass(1), parser.count_in_pass(2)) == (0, 0)


def test_trouble_is_remarked_upon_by_name() -> None:
    got = Counter(kind for _, kind in remarks(TROUBLE, "lab-record"))

    assert got["dead-destination"] == 6
    assert got["deferred"] == 11
    assert got["reload"] == 2
    assert got["restart"] == 1
    assert remarks(HEALTHY, "lab-record") == [("postfix/master", "restart")]


def test_a_bounced_message_is_a_delivery_with_that_status() -> None:
    got = [d for d in table(parse(TROUBLE), "delivery") if d["status"] == "bounced"]

    assert [(d["station"], d["dsn"]) for d in got] == [("delivery", "5.3.0")] * 2


@pytest.mark.parametrize(
    ("line", "want"),
    [
        pytest.param("postfix/qmgr[9]: panic: qmgr_active_done: x", ("postfix/qmgr", "panic"), id="panic"),
        pytest.param("postfix/smtpd[9]: fatal: open x", ("postfix/smtpd", "fatal"), id="fatal"),
        pytest.param(
            'postfix/master[9]: warning: service "smtp" (25) has reached its process limit "100": new clients may '
            "experience noticeable delays", ("postfix/master", "limit"), id="process-limit",
        ),
        pytest.param(
            "postfix/qmgr[9]: warning: mail for [127.0.0.1]:10024 is using up 4001 of 5000 active queue entries",
            ("postfix/qmgr", "warning"), id="postfix-names-the-bottleneck",
        ),
        pytest.param("postfix/master[9]: terminating on signal 15", ("postfix/master", "restart"), id="stopped"),
        pytest.param(
            "systemd-journald[310]: Suppressed 8122 messages from postfix.service", ("systemd-journald", "suppressed"),
            id="journald",
        ),
        pytest.param(
            "rsyslogd: imuxsock lost 123 messages from pid 5 due to rate-limiting", ("rsyslogd", "suppressed"),
            id="rsyslog",
        ),
    ],
)  # fmt: skip
def test_lines_that_cast_doubt_on_a_step_become_remarks(line: str, want: tuple[str, str]) -> None:
    assert remarks([HEAD + line], "postfix") == [want]


@pytest.mark.parametrize(
    "head",
    [
        "Nov  5 02:33:41 mx ",
        "2026-11-25T02:33:41.123456+00:00 mx ",
        "2026-11-25T02:33:41Z mx.lab.test ",
    ],
    ids=["traditional", "rfc3339", "rfc3339-short"],
)
@pytest.mark.parametrize("tag", ["postfix", "postfix-lab", "postfix/lab-1/submission"])
@pytest.mark.parametrize("queue_id", ["383E920CA16", "4jXPZ10FYwzKCjj"], ids=["short-id", "long-id"])
def test_any_time_stamp_syslog_name_and_queue_id_is_understood(head: str, tag: str, queue_id: str) -> None:
    got = table(parse([f"{head}{tag}/cleanup[77]: {queue_id}: message-id=<1.2@loadgen.invalid>"]), "queue_entry")

    assert got == [{"queue_id": queue_id, "message_id": "1.2", "pass_number": 1, "origin": ""}]


def test_another_instance_in_the_same_log_is_ignored() -> None:
    foreign = [line.replace("lab-record/", "postfix/") for line in TROUBLE]

    assert parse(foreign, MaillogParser(PORT, "lab-record")) == []


def test_without_xforward_the_second_pass_is_known_by_its_message_id() -> None:
    parser = MaillogParser(PORT)
    lines = [line.partition(", orig_queue_id=")[0] if "orig_queue_id=" in line else line for line in HEALTHY]

    got = table(parse(lines, parser), "queue_entry")
    want = table(parse(HEALTHY), "queue_entry")

    assert got == want
    assert (parser.count_in_pass(1), parser.count_in_pass(2)) == (0, 0)


def test_a_message_sent_twice_is_not_taken_for_its_own_second_pass_where_xforward_tells() -> None:
    lines = [
        "smtpd[1]: AAAAAA2: client=unknown[127.0.0.1], orig_queue_id=AAAAAA1, orig_client=unknown[127.0.0.1]",
        "cleanup[2]: AAAAAA2: message-id=<1@x>",
        "cleanup[2]: AAAAAA3: message-id=<2@x>",
        "cleanup[2]: AAAAAA4: message-id=<2@x>",
    ]

    got = table(parse([f"{HEAD}postfix/{line}" for line in lines]), "queue_entry")

    assert [(e["queue_id"], e["pass_number"]) for e in got] == [("AAAAAA2", 2), ("AAAAAA3", 1), ("AAAAAA4", 1)]


@pytest.mark.parametrize(
    "end",
    [
        "postfix/qmgr[3]: AAAAAA1: removed",
        "postfix/postsuper[3]: AAAAAA1: removed",
        "postfix/cleanup[3]: AAAAAA1: canceled",
        "postfix/cleanup[3]: AAAAAA1: milter-reject: END-OF-MESSAGE from unknown[10.0.0.1]: 5.7.1 no",
        "postfix/smtpd[1]: lost connection after DATA (4096 bytes) from unknown[127.0.0.1]",
        "postfix/smtpd[1]: timeout after DATA (0 bytes) from unknown[127.0.0.1]",
    ],
)
def test_a_message_that_is_gone_is_not_counted_any_more(end: str) -> None:
    parser = MaillogParser(PORT)
    parse([
        f"{HEAD}postfix/smtpd[1]: AAAAAA1: client=unknown[127.0.0.1]",
        f"{HEAD}postfix/cleanup[2]: AAAAAA1: message-id=<1@x>",
    ], parser)  # fmt: skip
    assert parser.count_in_pass(1) == 1

    parse([HEAD + end], parser)

    assert parser.count_in_pass(1) == 0


def test_a_recipient_refused_in_the_dialogue_does_not_lose_the_message() -> None:
    parser = MaillogParser(PORT)
    parse([
        f"{HEAD}postfix/smtpd[1]: AAAAAA1: client=unknown[127.0.0.1], orig_queue_id=AAAAAA0",
        f"{HEAD}postfix/smtpd[1]: AAAAAA1: reject: RCPT from unknown[127.0.0.1]: 550 5.1.1 <x>: no",
        f"{HEAD}postfix/cleanup[2]: AAAAAA1: message-id=<1@x>",
    ], parser)  # fmt: skip

    assert parser.count_in_pass(2) == 1


def test_a_reply_cannot_pass_for_fields() -> None:
    got = delivery(
        "to=<b@x.test>, relay=mx[10.0.0.1]:25, delay=1, delays=0/0/0/1, dsn=4.0.0, status=deferred "
        "(host mx said: 450 delays=9/9/9/9, dsn=2.0.0, status=sent (250 queued as 8582220CA52))"
    )

    assert (got["status"], got["dsn"], got["d_s"], got["queued_as"]) == ("deferred", "4.0.0", 1.0, "")


def test_a_message_id_cannot_pass_for_another_line() -> None:
    hostile = "<x>\x1b[31m, orig_queue_id=AAAAAA9, status=sent (250 Ok) postfix/master[1]: reload -- version"

    got = parse([f"{HEAD}postfix/cleanup[2]: AAAAAA1: message-id={hostile}"])

    assert [name for name, _ in got] == ["queue_entry"]
    assert table(got, "queue_entry")[0]["pass_number"] == 1


def test_numbers_that_are_none_are_left_out() -> None:
    got = delivery("to=<b@x.test>, relay=x, delay=nan, delays=1e999/-1/0x1/2, dsn=2.0.0, status=sent (ok)")

    assert [got[name] for name in ("delay_s", "a_s", "b_s", "c_s", "d_s")] == [None, None, None, None, 2.0]


@given(
    st.lists(
        st.one_of(
            st.text(max_size=200),
            st.builds(
                lambda tag, text: f"{HEAD}{tag}[1]: {text}",
                st.sampled_from(["postfix/lmtp", "postfix/smtpd", "postfix/cleanup", "postfix/master", "rsyslogd"]),
                st.one_of(
                    st.text(max_size=200), st.from_regex(r"\A[0-9A-Z]{6,9}: (to=<|client=|message-id=).{0,80}\Z")
                ),
            ),
            st.tuples(st.sampled_from(TROUBLE), st.integers(0, 300), st.text(max_size=9)).map(
                lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + 3 :]
            ),
        ),
        max_size=20,
    )
)
@example([HEAD + "postfix/lmtp[1]: AAAAAA1: to=<>, relay=, delays="])
def test_no_text_breaks_the_parser(lines: list[str]) -> None:
    parser = MaillogParser(PORT)

    for name, row in parse(lines, parser):
        assert len(row) == len(TABLES[name])
    assert parser.count_in_pass(1) >= 0
    assert parser.count_in_pass(2) >= 0
