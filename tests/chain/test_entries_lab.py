"""Load at every entry of a real chain, proved by the log to have gone that way, and the stages compared."""

import json
from collections import Counter
from pathlib import Path

import pytest

from loadgen.records import RunReader
from tests.command import loadgen, read_summary, run_directory, write_profile
from tests.labs import lab_up

pytestmark = pytest.mark.chain

WAY = """
WITH mine AS (SELECT message.id FROM message LEFT JOIN entry USING (step) WHERE coalesce(entry, 'front') = ?)
SELECT (SELECT count(*) FROM mine),
       (SELECT count(*) FROM queue_entry WHERE message_id IN mine),
       (SELECT count(*) FROM delivery JOIN queue_entry USING (queue_id) WHERE station = 'feed' AND message_id IN mine),
       (SELECT count(*) FROM scan WHERE message_id IN mine)
"""
"""Messages of an entry, and how often they were in the queue, handed to the filter, and scanned."""

ALL = ("front", "submission", "pickup", "filter", "reinjection")


def test_each_stage_by_itself_carries_its_mail_past_what_comes_before_it(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(4, "3s")])
    entries = [word for entry in ALL for word in ("--entry", entry)]
    with lab_up("entries") as built:
        said = loadgen(
            "run", profile, "--chain", built.directory / "chain.toml", *entries, "--output", tmp_path / "runs", "--json"
        )
        log = (built.directory / "log" / "maillog").read_text()
        password = (built.directory / "submission" / "password").read_text().strip()

    assert said.returncode in (0, 4), said.stderr
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    assert json.loads(said.stdout) == summary
    accounting = summary["accounting"]
    assert accounting["delivered"] == accounting["messages"] > 100, accounting
    assert Counter(step["entry"] for step in summary["steps"]) == dict.fromkeys(ALL, 1)
    assert not [step["reasons"] for step in summary["steps"] if "failed" in " ".join(step["reasons"])]
    assert [one["entry"] for one in summary["stages"]["entries"]] == list(ALL)
    assert summary["stages"]["sentences"]

    with RunReader(directory) as reader:
        ways = {entry: reader.query(WAY, (entry,))[0] for entry in ALL}
    for entry in ("front", "submission", "pickup"):  # in the queue, through the feed, scanned, in the queue again
        sent, *passed = ways[entry]
        assert passed == [2 * sent, sent, sent], (entry, ways)
    sent, *passed = ways["filter"]
    assert passed == [sent, 0, sent]
    sent, *passed = ways["reinjection"]
    assert passed == [sent, 0, 0]
    assert all(step["sessions_open"] > 3.9 for step in summary["steps"] if step["entry"] != "filter")

    assert log.count("sasl_method=PLAIN, sasl_username=loadgen") >= 2
    assert "pickup[" in log
    for text in (said.stdout, said.stderr, *(path.read_text(errors="replace") for path in directory.iterdir())):
        assert password not in text


def test_submission_without_its_password_is_refused_before_any_load(tmp_path: Path) -> None:
    profile = write_profile(tmp_path / "p.toml", [(1, "2s")])
    with lab_up("nologin") as built:
        (built.directory / "submission" / "password").write_text("wrong\n")

        said = loadgen(
            "run",
            profile,
            "--chain",
            built.directory / "chain.toml",
            "--entry",
            "submission",
            "--output",
            tmp_path / "runs",
        )

    assert said.returncode == 6, said.stderr
    assert "entry submission: the first message was not_sent" in said.stderr
    assert "auth" in said.stderr
