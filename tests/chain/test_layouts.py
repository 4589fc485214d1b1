"""Every layout of the guide, brought up for real: a load goes through each, and the log says which way it went."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadgen.chain.layout import Layout
from loadgen.records import RunReader
from tests.command import loadgen, read_summary, run_directory
from tests.labs import lab_up

pytestmark = pytest.mark.chain

WAY = """
SELECT coalesce(entry, 'front'),
       EXISTS(SELECT 1 FROM queue_entry JOIN delivery USING (queue_id) WHERE message_id = message.id AND station = 'feed'),
       EXISTS(SELECT 1 FROM scan WHERE message_id = message.id),
       (SELECT count(*) FROM queue_entry WHERE message_id = message.id),
       EXISTS(SELECT 1 FROM arrival WHERE arrival.id = message.id)
FROM message LEFT JOIN entry USING (step)
"""
"""Of each message: where it was put in, handed over by the feed, scanned, how often in the queue, came out."""
FILTERED, PAST = (True, True, 2, True), (False, False, 1, True)

OTHERS = """
[message.others]
share = 0.5
"""


@dataclass(frozen=True)
class Case:
    """A layout, the load for it, and which ways its mail must go, by entry."""

    layout: Layout
    ways: dict[str, set[tuple[bool, bool, int, bool]]]
    extra: str = ""
    errors: frozenset[str] = frozenset()
    """What `loadgen check` has against it."""


BOTH = {FILTERED, PAST}
CASES = {
    "smtp feed, other addresses, soft_bounce": Case(
        Layout(feed="smtp", filter_host="127.0.0.3", reinjection_host="127.0.0.4", soft_bounce=True),
        {"front": {FILTERED}},
        errors=frozenset({"C27"}),  # soft_bounce is for the time of the integration only
    ),
    "lmtp feed, limit in main.cf, two cleanups": Case(
        Layout(limit="main.cf", cleanup="dual"), {"front": {FILTERED}, "submission": {FILTERED}, "pickup": {FILTERED}}
    ),
    "per service": Case(
        Layout(filter="service"), {"front": {FILTERED}, "inside": {PAST}, "submission": {PAST}, "pickup": {PAST}}
    ),
    "per recipient domain": Case(
        Layout(filter="recipient-domain", feed="smtp"),
        {"front": BOTH, "submission": BOTH},
        OTHERS + 'recipient_domain = "plain.test"\n',
    ),
    "per recipient domain, external clients": Case(
        Layout(filter="external-recipient-domain"),
        {"front": BOTH, "submission": {PAST}},
        OTHERS + 'recipient_domain = "plain.test"\n',
    ),
    "per recipient domain, clients inside": Case(
        Layout(filter="external-recipient-domain"), {"front": {PAST}}, '[session]\nsource = "127.0.1.0/24"\n'
    ),
    "per sender domain": Case(
        Layout(filter="sender-domain"), {"front": BOTH}, OTHERS + 'sender_domain = "elsewhere.test"\n'
    ),
    "by header, two cleanups": Case(
        Layout(filter="header", cleanup="dual"), {"front": BOTH}, OTHERS + 'subject = "A special offer"\n'
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_layout_carries_mail_the_way_it_says(case: Case, tmp_path: Path) -> None:
    profile = tmp_path / "p.toml"
    entries = ", ".join(f'"{entry}"' for entry in case.ways)
    profile.write_text(
        f'about = "a test"\nentries = [{entries}]\n[timing]\nwarm_up = "500ms"\ndrain = "20s"\n'
        f'[[step]]\nconcurrency = 4\nhold = "2s"\n{case.extra}'
    )
    with lab_up("layout", layout=case.layout) as built:
        chain = built.directory / "chain.toml"
        said = loadgen("run", profile, "--chain", chain, "--output", tmp_path / "runs")
        rules = json.loads(loadgen("check", "--chain", chain, "--json").stdout)["rules"]

    wrong = {rule["id"] for rule in rules if rule["state"] == "problem" and rule["severity"] == "error"}
    assert wrong == case.errors, [rule for rule in rules if rule["id"] in wrong]
    assert any("delivered at" in one["found"] for rule in rules if rule["id"] == "C46" for one in rule["answers"])
    assert said.returncode in (0, 4), said.stderr  # so short a step is seldom steady
    directory = run_directory(tmp_path / "runs")
    summary = read_summary(directory)
    accounting = summary["accounting"]
    assert accounting["delivered"] == accounting["messages"] > 10, accounting
    with RunReader(directory) as reader:
        rows = [
            (entry, (bool(fed), bool(scanned), passes, bool(out)))
            for entry, fed, scanned, passes, out in reader.query(WAY)
        ]
    ways = {entry: {way for where, way in rows if where == entry} for entry in case.ways}
    assert ways == case.ways, Counter(rows)

    went = Counter(way for _, way in rows)
    split = summary["selective"]
    if len(went) == 1:
        assert split is None
    else:
        assert (split["filtered"], split["unfiltered"], split["not_known"]) == (went[FILTERED], went[PAST], 0)
        for step in split["steps"]:
            assert step["filtered"]["messages"] + step["unfiltered"]["messages"] > 0
        assert "Filtered and unfiltered mail" in (directory / "report.html").read_text()


def test_layouts_are_what_the_chain_file_says(tmp_path: Path) -> None:
    chain = tmp_path / "chain.toml"
    chain.write_text('[lab]\nfeed = "smtp"\nfilter_host = "127.0.0.3"\nlimit = "main.cf"\nprocesses = 3\n')
    profile = tmp_path / "p.toml"
    profile.write_text(
        'about = "a test"\n[timing]\nwarm_up = "500ms"\n[[step]]\nconcurrency = 2\nhold = "1s"\n'
    )  # fmt: skip

    loadgen("run", profile, "--chain", chain, "--output", tmp_path / "runs")

    summary = read_summary(run_directory(tmp_path / "runs"))
    settings = summary["settings"]
    assert "amavisfeed unix - - n - - smtp" in " ".join(settings["master.cf"].split())
    assert "amavisfeed_destination_concurrency_limit = 3" in settings["main.cf"]
    assert summary["run"]["addresses"]["filter"].startswith("127.0.0.3:")
    assert summary["steps"][0]["feed_processes"] == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('filter = "nonsense"', 'want one of "global", "service"'),
        ('filter_host = "192.0.2.1"', "want an IPv4 loopback address"),
        ('feed = "smpt"', 'want one of "lmtp" or "smtp"'),
    ],
)
def test_layout_that_there_is_not_is_refused_in_words(tmp_path: Path, line: str, said: str) -> None:
    chain = tmp_path / "chain.toml"
    chain.write_text(f"[lab]\n{line}\n")

    got = loadgen("run", "quick", "--chain", chain, "--output", tmp_path / "runs")

    assert got.returncode == 2
    assert said in got.stderr
    assert "chain.toml" in got.stderr
