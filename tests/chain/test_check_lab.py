"""`loadgen check` against daemons that run: a message is followed through them, and a failure is explained from evidence."""

import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadgen.chain import lab
from tests.chain.daemons import amavisd, postconf, reload_amavisd, reload_postfix
from tests.command import loadgen
from tests.labs import lab_up

pytestmark = pytest.mark.chain


@pytest.fixture
def built() -> Iterator[lab.Lab]:
    with lab_up("check", options={"lmtp_discard_lhlo_keywords": "pipelining"}) as one:
        yield one


def find_problems(built: lab.Lab) -> dict[str, list[str]]:
    """Return the rules that have something against the chain, with the commands that mend it."""
    rules = json.loads(loadgen("check", "--chain", built.directory / "chain.toml", "--json").stdout)["rules"]
    return {
        rule["id"]: [one["mend"] for one in rule["answers"] if one["ok"] is False]
        for rule in rules
        if rule["state"] == "problem"
    }


def run_mends(built: lab.Lab, wrong: dict[str, list[str]]) -> None:
    """Run the commands, but for the loop itself, which another rule's command ends."""
    for command in [mend for name, mends in wrong.items() if name != "C46" for mend in mends]:
        subprocess.run(shlex.split(command), check=True, capture_output=True)
    # as check says: a session that amavisd keeps open is with a process of the old settings
    reload_postfix(built)
    reload_amavisd(built, "")


def check(built: lab.Lab, *arguments: str) -> dict[str, Any]:
    """Return what the rule with the probes says."""
    said = loadgen("check", "--chain", built.directory / "chain.toml", "--json", *arguments)
    rules: dict[str, dict[str, Any]] = {rule["id"]: rule for rule in json.loads(said.stdout)["rules"]}
    return rules["C46"]


def test_message_is_followed_to_where_it_comes_out(built: lab.Lab) -> None:
    got = check(built)

    assert got["state"] == "ok", got
    filter_, back, passage = got["answers"]
    assert str(built.chain.filter) in filter_["where"]
    assert str(built.chain.reinjection) in back["where"]
    assert "reinjected as" in passage["found"]
    queue_id = passage["found"].partition("reinjected as ")[2].partition(",")[0]
    lines = passage["evidence"]
    assert any(f"{queue_id}: client=" in line for line in lines), lines
    assert any("Passed CLEAN" in line and f"queued_as: {queue_id}" in line for line in lines), lines
    assert any(f"{queue_id}: to=<check@loadgen.test>" in line and "status=sent" in line for line in lines), lines
    assert "check@loadgen.test" in loadgen("check", "--chain", built.directory / "chain.toml").stdout


def test_the_five_usual_errors_of_a_chain_that_runs_are_named_and_it_is_clean_once_their_commands_have_run(
    built: lab.Lab,
) -> None:
    etc, filter_ = built.directory / "etc", built.chain.filter
    table = etc / "senders"
    table.write_text(f"loadgen.test FILTER amavisfeed:[127.0.0.1]:{filter_.port if filter_ else 0}\n")
    feed = "lmtp -o lmtp_data_done_timeout=300 -o lmtp_send_xforward_command = yes -o lmtp_discard_lhlo_keywords=pipelining"
    postconf(built, "-F", "amavisfeed/unix/process_limit=6", f"amavisfeed/unix/command={feed}")
    postconf(built, "-PX", f"{built.chain.reinjection}/inet/content_filter")
    postconf(
        built,
        "-e",
        f"smtpd_sender_restrictions=permit_mynetworks, check_sender_access texthash:{table}",
        "strict_rfc821_envelopes=yes",
    )
    reload_postfix(built)

    wrong = find_problems(built)
    assert {"C04", "C06", "C10", "C13", "C36"} <= wrong.keys() <= {"C04", "C06", "C08", "C10", "C13", "C36", "C46"}
    run_mends(built, wrong)
    run_mends(built, find_problems(built))  # an option that a stray word hid is seen once that is mended

    subprocess.run(["postsuper", "-c", str(etc), "-d", "ALL"], check=True, capture_output=True)  # what went round
    said = loadgen("check", "--chain", built.directory / "chain.toml")
    assert said.returncode == 0, said.stdout
    assert "After mending" not in said.stdout
    assert "51 rules: 0 error, 0 warning, 0 information" in said.stdout
    assert "delivered at" in said.stdout


def test_loop_is_seen_by_the_log_and_called_one(built: lab.Lab) -> None:
    postconf(built, "-PX", f"{built.chain.reinjection}/inet/content_filter")
    reload_postfix(built)

    passage = check(built)["answers"][-1]

    assert passage["ok"] is False
    assert "handed to the filter again" in passage["found"]
    assert "postsuper -d" in passage["mend"]


def test_message_that_the_filter_holds_back_is_called_blocked_with_the_line_that_says_why(built: lab.Lab) -> None:
    reload_amavisd(built, "$sa_kill_level_deflt = -100; $final_spam_destiny = D_DISCARD;")

    passage = check(built)["answers"][-1]

    assert passage["ok"] is False
    assert "did not hand it back" in passage["found"]
    assert any("Blocked SPAM" in line for line in passage["evidence"]), passage


def test_address_that_the_next_hop_does_not_take_is_told_with_its_text(built: lab.Lab) -> None:
    passage = check(built, "--to", "somebody@loadgen.test")["answers"][-1]  # nobody listens where the lab delivers to

    assert passage["ok"] is False
    assert "then deferred" in passage["found"]
    assert "Connection refused" in passage["found"]


def test_message_whose_end_nothing_here_shows_is_neither_good_nor_bad(built: lab.Lab, tmp_path: Path) -> None:
    blind = tmp_path / "blind.toml"
    maillog = built.directory / "log" / "maillog"
    blind.write_text((built.directory / "chain.toml").read_text().replace(str(maillog), str(tmp_path / "no-such-log")))

    said = loadgen("check", "--chain", blind, "--to", "somebody@loadgen.test", "--json")

    assert said.returncode == 0, said.stdout
    passage = next(rule for rule in json.loads(said.stdout)["rules"] if rule["id"] == "C46")["answers"][-1]
    assert passage["ok"] is None
    assert "reinjected as" in passage["found"]
    assert any("Passed CLEAN" in line for line in passage["evidence"])


def test_without_amavisd_nothing_is_sent_and_the_reason_is_said(built: lab.Lab) -> None:
    master = amavisd(built)
    family = [master, *master.children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=10)

    filter_, _, passage = check(built)["answers"]

    assert filter_["ok"] is False
    assert "refused" in filter_["found"]
    assert passage["ok"] is None
    assert "no message was sent" in passage["found"]


def test_sink_that_something_else_has_is_named(built: lab.Lab) -> None:
    with socket.create_server((built.chain.sink.host, built.chain.sink.port)):
        passage = check(built)["answers"][-1]

    assert passage["ok"] is None
    assert "is a run going on?" in passage["found"]
