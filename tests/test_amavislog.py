"""The recorded logs are of the same two occasions as those of `test_maillog`: amavisd-new 2.13.0, log level 2."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.collect.amavislog import AmavislogParser
from loadgen.collect.logline import Row
from loadgen.collect.maillog import MaillogParser
from loadgen.records import TABLES

DATA = Path(__file__).parent / "data"
HEALTHY = (DATA / "amavis-healthy.log").read_text().splitlines()
TROUBLE = (DATA / "amavis-trouble.log").read_text().splitlines()
OWN = "Nov 25 02:33:40 mx.lab.test /usr/sbin/amavisd[5927]: "
SYSLOG = "Nov 25 02:33:40 mx.lab.test amavis[5927]: "


def parse(lines: list[str], *, own_file: bool = True) -> list[Row]:
    parser = AmavislogParser(own_file=own_file)
    return [row for line in lines for row in parser.parse(line, 1.5)]


def table(rows: list[Row], name: str) -> list[dict[str, Any]]:
    return [dict(zip(TABLES[name], row, strict=True)) for kind, row in rows if kind == name]


def scan(text: str) -> dict[str, Any]:
    (got,) = table(parse([f"{OWN}(05927-02) {text}"]), "scan")
    return got


def test_every_message_is_scanned_once_and_names_both_of_its_queue_ids() -> None:
    scans = table(parse(HEALTHY), "scan")
    postfix = MaillogParser(28124)
    log = (DATA / "maillog-healthy.log").read_text().splitlines()
    entries = [row for line in log for name, row in postfix.parse(line, 0.0) if name == "queue_entry"]
    want = {(origin, queue_id, message_id) for queue_id, message_id, number, origin in entries if number == 2}

    assert len(scans) == 22
    assert {(s["queue_id"], s["queued_as"], s["message_id"]) for s in scans} == want


def test_a_scan_has_its_figures_in_seconds_and_bytes() -> None:
    got = scan(
        "Passed CLEAN {RelayedInbound}, [127.0.0.1]:51776 <s1@loadgen.test> -> <r1@loadgen.test>, Queue-ID: 4jZ3dc1rMWzJ9C1, "
        "Message-ID: <5eed01.1@loadgen.invalid>, mail_id: 3bK87fAPEDDq, Hits: -1.6, size: 2782, "
        "queued_as: 4jZ3dc3BxwzJ9t5, 157 ms"
    )

    assert got == {
        "at": 1.5, "am_id": "05927-02", "verdict": "Passed", "category": "CLEAN", "queue_id": "4jZ3dc1rMWzJ9C1",
        "queued_as": "4jZ3dc3BxwzJ9t5", "message_id": "5eed01.1", "hits": -1.6, "size_bytes": 2782, "elapsed_s": 0.157,
    }  # fmt: skip


def test_blocked_messages_are_told_with_their_ids() -> None:
    got = [s for s in table(parse(TROUBLE), "scan") if s["verdict"] == "Blocked"]

    assert [(s["message_id"], s["category"], s["queued_as"]) for s in got] == [
        ("5eed02.1", "SPAM", ""),
        ("5eed02.0", "SPAM", ""),
    ]


@pytest.mark.parametrize(
    ("category", "want"),
    [
        ("BAD-HEADER-7 {RelayedInbound}", "BAD-HEADER-7"),
        ("INFECTED (Eicar-Test, Other) {DiscardedInbound,Quarantined}", "INFECTED"),
        ("BANNED (.exe,.exe-ms,a, b.exe) {RejectedInbound}", "BANNED"),
        ("UNCHECKED-ENCRYPTED {RelayedInbound}", "UNCHECKED-ENCRYPTED"),
        ("SPAMMY", "SPAMMY"),
    ],
)
def test_the_category_is_a_word_whatever_follows_it(category: str, want: str) -> None:
    got = scan(f"Blocked {category}, <a@x.test> -> <b@x.test>, mail_id: q, Hits: -, size: 5, 9 ms")

    assert (got["category"], got["hits"], got["size_bytes"], got["elapsed_s"]) == (want, None, 5, 0.009)


def test_fields_that_a_template_leaves_out_are_empty() -> None:
    got = scan("Passed CLEAN, <a@x.test> -> <b@x.test>, Hits: 0.4, 12 ms")

    assert (got["queue_id"], got["message_id"], got["size_bytes"], got["hits"]) == ("", "", None, 0.4)


def test_a_message_id_cannot_pass_for_amavisds_own_fields() -> None:
    got = scan(
        "Passed CLEAN {RelayedInbound}, <a@x> -> <b@x>, Queue-ID: AAAAAA1, Message-ID: <x, mail_id: f, Hits: 999, "
        "size: 1, queued_as: EVIL00, 5 ms>, mail_id: true, Hits: 1, size: 7, queued_as: AAAAAA2, 20 ms"
    )

    assert (got["queue_id"], got["hits"], got["size_bytes"], got["queued_as"]) == ("AAAAAA1", 1.0, 7, "AAAAAA2")


def test_sections_are_told_apart_from_the_percentage_glued_to_them() -> None:
    line = "(05927-02) size: 4376, TIMING [total 193 ms] - SMTP MAIL: 0.5 (0%)0, SMTP DATA: 47 (24%)25, rundown: 0.3 (0%)100"

    got = {t["section"]: t["seconds"] for t in table(parse([OWN + line]), "timing")}

    assert got == pytest.approx({"total": 0.193, "SMTP MAIL": 0.0005, "SMTP DATA": 0.047, "rundown": 0.0003})


def test_the_sections_of_every_recorded_message_add_up_to_its_total() -> None:
    rows = table(parse(HEALTHY), "timing")
    by_task: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        by_task.setdefault(row["am_id"], []).append((row["section"], row["seconds"]))

    assert len(by_task) == 22
    for sections in by_task.values():
        total = sections[0][1]
        assert sum(seconds for _, seconds in sections[1:]) == pytest.approx(total, abs=0.006)
        assert {"SMTP DATA", "SA check", "fwd-end-chkpnt"} <= {name for name, _ in sections}


def test_cpu_in_the_head_of_timing_does_not_hide_it() -> None:
    got = table(parse([f"{OWN}(1-1) TIMING [total 10 ms, cpu 7 ms] - rundown: 10 (100%)100"]), "timing")

    assert [(t["section"], t["seconds"]) for t in got] == [("total", 0.010), ("rundown", 0.010)]


def test_starts_stops_and_reloads_are_remarks_and_a_reload_is_no_alarm() -> None:
    got = Counter(r["kind"] for r in table(parse(TROUBLE), "remark"))

    assert got == {"reload": 1, "restart": 4}  # stopped and started twice


def test_alarms_are_remarks_by_their_mark() -> None:
    lines = [OWN + "(05927-02) (!)Negative SMTP response: 452", OWN + "(!!)TROUBLE in child_init_hook: BDB no db env"]

    assert [r["kind"] for r in table(parse(lines), "remark")] == ["warning", "error"]


def test_the_same_lines_are_understood_in_syslog() -> None:
    lines = [line.replace("/usr/sbin/amavisd[", "amavis[") for line in TROUBLE]

    assert parse(lines, own_file=False) == parse(TROUBLE)


def test_lines_of_other_programs_are_not_amavisds() -> None:
    assert parse([line.replace("/usr/sbin/amavisd[", "postfix/lmtp[") for line in TROUBLE], own_file=False) == []


def test_a_long_line_cut_by_syslog_is_put_together_again() -> None:
    whole = next(line for line in HEALTHY if "TIMING [" in line).partition("]: ")[2]
    task, _, text = whole.partition(" ")
    pieces = [text[:400], text[400:900], text[900:]]
    lines = [
        f"{SYSLOG}{task} {'...' if number else ''}{piece}{'...' if number < 2 else ''}"
        for number, piece in enumerate(pieces)
    ]
    other = "Nov 25 02:33:40 mx.lab.test amavis[6000]: (06000-01) Checking: x"

    got = parse([lines[0], other, lines[1], other, lines[2]], own_file=False)

    assert got == parse([OWN + whole])


def test_a_line_that_only_looks_cut_is_not_lost() -> None:
    lines = [SYSLOG + "(!)something is wrong ...", SYSLOG + "(05927-02) Checking: x"]

    assert [r["kind"] for r in table(parse(lines, own_file=False), "remark")] == ["warning"]


@given(
    st.lists(
        st.one_of(
            st.text(max_size=200),
            st.text(max_size=200).map(lambda text: f"{SYSLOG}(05927-02) {text}"),
            st.sampled_from(["Passed", "Blocked", "TIMING [total 5 ms] - "]).flatmap(
                lambda word: st.text(max_size=80).map(lambda text: f"{SYSLOG}(05927-02) {word} CLEAN{text}...")
            ),
            st.tuples(st.sampled_from(TROUBLE), st.integers(0, 600), st.text(max_size=9)).map(
                lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + 3 :]
            ),
        ),
        max_size=20,
    ),
    st.booleans(),
)
def test_no_text_breaks_the_parser(lines: list[str], own_file: bool) -> None:
    for name, row in parse(lines, own_file=own_file):
        assert len(row) == len(TABLES[name])
