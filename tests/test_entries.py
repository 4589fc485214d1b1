"""Where messages are put in: found, refused with words that help, and handed to sendmail as a program would."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from loadgen.chain.opening import OpenChain
from loadgen.chain.spec import Chain, Login, PostfixParts, parse_address
from loadgen.entries import find_entries
from loadgen.errors import ProfileError, SafetyError, UsageError
from loadgen.profile import Message, Profile, Session, parse_profile
from loadgen.traffic.connect import SessionError
from loadgen.traffic.entry import Entry
from loadgen.traffic.message import MessageFactory, OutgoingMessage
from loadgen.traffic.session import Transaction

STEP = '[[step]]\nconcurrency = 1\nhold = "1s"\n'


def profile_at(*entries: str, session: str = "") -> Profile:
    names = ", ".join(f'"{entry}"' for entry in entries)
    return parse_profile(f'about = "x"\nentries = [{names}]\n[session]\n{session}\n{STEP}', "x.toml")


def opened(**changes: Any) -> OpenChain:
    parts: dict[str, Any] = {
        "kind": "file", "name": "mx", "front": parse_address("127.0.0.1:25"), "sink": parse_address("127.0.0.1:2526"),
        "filter": parse_address("127.0.0.1:10024"), "reinjection": parse_address("127.0.0.1:10025"),
    }  # fmt: skip
    chain = Chain(**{**parts, **changes})
    return OpenChain(chain, "127.0.0.1")


# -- which there are --------------------------------------------------------------------------------------


def test_every_station_is_spoken_to_in_its_own_way() -> None:
    chain = opened(submission=parse_address("127.0.0.1:587"), login=Login(username="load", password_env="SECRET"))

    got = find_entries(profile_at("front", "submission", "filter", "reinjection"), chain, ())

    assert {name: entry["port"] for name, entry in got.items()} == {
        "front": 25, "submission": 587, "filter": 10024, "reinjection": 10025,
    }  # fmt: skip
    assert got["filter"]["session"]["protocol"] == "lmtp"
    assert got["filter"]["session"]["messages_per_session"] == 1
    assert got["submission"]["session"]["starttls"]
    assert got["submission"]["session"]["username"] == "load"
    assert not got["reinjection"]["session"]["starttls"]


def test_login_of_the_profile_goes_before_that_of_the_chain() -> None:
    chain = opened(submission=parse_address("127.0.0.1:587"), login=Login(username="theirs", password_env="SECRET"))
    wanted = profile_at("submission", session='username = "mine"\npassword_env = "MINE"')

    got = find_entries(wanted, chain, ())["submission"]["session"]

    assert "username" not in got  # as the profile says


def test_filter_is_spoken_to_as_the_profile_says() -> None:
    got = find_entries(profile_at("filter", session='protocol = "smtp"\nmessages_per_session = 5'), opened(), ())

    assert got["filter"]["session"]["protocol"] == "smtp"
    assert got["filter"]["session"]["messages_per_session"] == 5


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        ("filter", 'set filter = "127.0.0.1:10024" in the chain file'),
        ("reinjection", 'set reinjection = "127.0.0.1:10025" in the chain file'),
        ("submission", 'set submission = "127.0.0.1:587" in the chain file'),
        ("pickup", "set postfix.config_directory in the chain file"),
    ],
)
def test_entry_that_a_chain_has_not_is_named_with_the_key_to_set(entry: str, want: str) -> None:
    with pytest.raises(UsageError, match=want):
        find_entries(profile_at(entry), opened(filter=None, reinjection=None), ())


def test_sendmail_is_told_which_postfix_it_belongs_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sendmail").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    chain = opened(postfix=PostfixParts(config_directory=tmp_path, queue_directory=None))

    got = find_entries(profile_at("pickup"), chain, ())

    assert got["pickup"]["command"] == [str(tmp_path / "sendmail"), "-C", str(tmp_path)]


def test_reference_chain_has_only_a_front() -> None:
    with pytest.raises(UsageError, match="entry filter: the reference chain has no stations"):
        find_entries(profile_at("filter"), opened(kind="reference"), ())


def test_entry_may_not_be_a_public_address() -> None:
    with pytest.raises(SafetyError, match="neither a loopback nor a private address"):
        find_entries(profile_at("filter"), opened(filter=parse_address("192.0.2.1:10024")), ())


def test_protocol_without_the_filter_is_refused() -> None:
    with pytest.raises(UsageError, match="run it with --entry filter, or remove it"):
        find_entries(profile_at("front", session='protocol = "lmtp"'), opened(), ())


@pytest.mark.parametrize(
    ("names", "want"),
    [
        (["back"], 'got "back", want one of front, inside, submission'),
        (["front", "front"], r"got \['front', 'front'\], want one or more different ones"),
    ],
)
def test_entries_on_the_command_line_are_checked(names: list[str], want: str) -> None:
    with pytest.raises(ProfileError, match=f"--entry: {want}"):
        profile_at("front").at_entries(names)


def test_sweep_is_about_the_whole_chain() -> None:
    text = 'about = "x"\n{}[processes]\nlevels = [1, 2]\n'

    with pytest.raises(ProfileError, match="a sweep is about the whole chain"):
        parse_profile(text.format('entries = ["filter"]\n'), "x.toml")
    with pytest.raises(ProfileError, match="a sweep is about the whole chain"):
        parse_profile(text.format(""), "x.toml").at_entries(["filter"])


# -- pickup -----------------------------------------------------------------------------------------------


def message(number: int = 0) -> OutgoingMessage:
    return MessageFactory(Message(recipients=2), 1, "abcd0123").make_message(number)


def send(tmp_path: Path, script: str, what: OutgoingMessage, timeout: str = "20s") -> Transaction:
    program = tmp_path / "sendmail"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    session = Session(reply_timeout=timeout)  # type: ignore[arg-type]

    async def carry() -> Transaction:
        pickup = await Entry.parse("pickup", {"command": [str(program), "-C", "etc"]}, session).open()
        return await pickup.send(what)

    return asyncio.run(carry())


def test_message_reaches_sendmail_as_a_program_on_the_host_writes_it(tmp_path: Path) -> None:
    what = message()._replace(head=b"Subject: dots\r\n", body=b"\r\n..\r\n...two\r\nend\r\n")

    got = send(tmp_path, f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/content', what)

    assert (got.outcome, got.code, got.recipients, got.usable) == ("accepted", None, 2, True)
    assert (tmp_path / "content").read_bytes() == b"Subject: dots\n\n.\n..two\nend\n"
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments == ["-C", "etc", "-i", "-f", what.sender, "--", *what.recipients]


def test_exit_status_is_the_answer_and_the_words_are_kept(tmp_path: Path) -> None:
    got = send(tmp_path, "cat > /dev/null; echo 'postdrop: warning: mail_queue_enter' >&2; exit 75", message())

    assert got.outcome == "refused"
    assert got.reply == "sendmail ended with status 75: postdrop: warning: mail_queue_enter"


def test_nobody_knows_what_a_killed_sendmail_has_done(tmp_path: Path) -> None:
    got = send(tmp_path, "cat > /dev/null; kill -9 $$", message())

    assert (got.outcome, got.reply) == ("unknown", "sendmail was ended by SIGKILL")


def test_sendmail_that_hangs_is_ended_and_its_message_unknown(tmp_path: Path) -> None:
    begun = time.monotonic()

    got = send(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60", message(), "200ms")

    assert got.outcome == "unknown"
    assert "had not ended after 0.4 s" in got.reply
    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_program_that_reads_nothing_is_refused_not_an_error_of_ours(tmp_path: Path) -> None:
    large = MessageFactory(Message(size="1MiB"), 1, "abcd0123").make_message(0)  # type: ignore[arg-type]

    got = send(tmp_path, "exit 64", large)

    assert (got.outcome, got.reply) == ("refused", "sendmail ended with status 64")


def test_no_such_program_is_a_session_that_does_not_open(tmp_path: Path) -> None:
    entry = Entry.parse("pickup", {"command": [str(tmp_path / "none")]}, Session())

    with pytest.raises(SessionError, match="no such program"):
        asyncio.run(entry.open())
