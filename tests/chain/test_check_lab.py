"""`loadgen check` against daemons that run: a message is followed through them, and a failure is explained from evidence."""

import json
import socket
from collections.abc import Iterator
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
