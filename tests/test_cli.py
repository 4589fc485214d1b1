"""The command line from outside: what it prints, where, and with which exit code."""

import socket
from pathlib import Path

import pytest

from loadgen.chain import amavis, install, postfix, submission
from loadgen.records import RunWriter
from tests.command import loadgen, write_profile


def test_help_names_the_commands_and_ends_with_examples() -> None:
    said = loadgen("--help")

    assert said.returncode == 0
    for command in ("run", "report", "profiles", "lab"):
        assert f"  {command}" in said.stdout
    assert "loadgen run quick" in said.stdout.splitlines()[-1] + said.stdout.splitlines()[-2]


def test_profiles_lists_each_with_its_about() -> None:
    said = loadgen("profiles")

    assert said.returncode == 0
    assert any(line.startswith("quick") and "1 to 16 sessions" in line for line in said.stdout.splitlines())


def test_dry_run_prints_the_timeline_and_makes_nothing(tmp_path: Path) -> None:
    said = loadgen("run", "quick", "--chain", "reference", "--dry-run", cwd=tmp_path)

    assert said.returncode == 0
    assert "step 4: 16 sessions, warm-up 2 s, hold 8 s" in said.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "want"),
    [
        pytest.param(["run", "quik"], 2, 'did you mean "quick"?', id="misspelt-profile"),
        pytest.param(
            ["run", "quick", "--chain", "labb"], 2, "want lab, reference, local, or the path", id="unknown-chain"
        ),
        pytest.param(["run", "quick", "--processes", "0"], 2, "--processes: got 0, want 1 to 200", id="no-processes"),
        pytest.param(["run"], 2, "Missing argument", id="no-profile"),
        pytest.param(["run", "quick", "--speed", "9"], 2, "No such option", id="unknown-option"),
        pytest.param(["report", "nowhere"], 2, "nowhere: no such directory", id="no-run"),
        pytest.param(["lab", "down", "nosuch"], 2, 'no lab "nosuch"', id="no-such-lab"),
    ],
)
def test_wrong_call_says_what_to_do_and_changes_nothing(
    arguments: list[str], code: int, want: str, tmp_path: Path
) -> None:
    said = loadgen(*arguments, cwd=tmp_path)

    assert said.returncode == code
    assert want in said.stderr
    assert "Traceback" not in said.stderr
    assert list(tmp_path.iterdir()) == []


def chain_file(path: Path, front: str, extra: str = "") -> Path:
    path.write_text(f'front = "{front}"\nsink = "127.0.0.1:18026"\n{extra}')
    return path


@pytest.mark.parametrize(
    ("front", "profile_extra", "code", "want"),
    [
        pytest.param("192.0.2.1:25", "", 5, "192.0.2.1 is neither a loopback nor a private", id="public-target"),
        pytest.param(
            "127.0.0.1:1",
            '[message]\nrecipient_domain = "gmail.com"',
            5,
            "recipient domain gmail.com",
            id="real-recipient",
        ),
        pytest.param(
            "127.0.0.1:1", '[message]\nsender_domain = "gmail.com"', 5, "sender domain gmail.com", id="real-sender"
        ),
        pytest.param("127.0.0.1:1", "", 6, "127.0.0.1:1: Connection refused", id="front-not-running"),
    ],
)
def test_refused_or_unreachable_target_leaves_no_run(
    front: str, profile_extra: str, code: int, want: str, tmp_path: Path
) -> None:
    chain = chain_file(tmp_path / "chain.toml", front)
    profile = write_profile(tmp_path / "p.toml", [(1, "1s")], profile_extra)

    said = loadgen("run", profile, "--chain", chain, "--output", tmp_path / "runs")

    assert said.returncode == code, said.stderr
    assert want in said.stderr
    assert not list((tmp_path / "runs").glob("*")) if (tmp_path / "runs").exists() else True


def test_domain_named_in_the_chain_file_passes_the_domain_check(tmp_path: Path) -> None:
    chain = chain_file(tmp_path / "chain.toml", "127.0.0.1:1", '[allow]\ndomains = ["firma.de"]\n')
    profile = write_profile(tmp_path / "p.toml", [(1, "1s")], '[message]\nrecipient_domain = "firma.de"')

    said = loadgen("run", profile, "--chain", chain, "--output", tmp_path / "runs")

    assert said.returncode == 6  # safe, and only then found not to be running


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('front = "127.0.0.1"\nsink = "127.0.0.1:1"', 'front: got "127.0.0.1", want host:port'),
        ('front = "127.0.0.1:25"', "sink: missing"),
        ("", "got none of lab, reference and front, want exactly one"),
        ('fornt = "127.0.0.1:25"\nsink = "127.0.0.1:1"', "unknown key fornt; did you mean front?"),
        ("[lab]\nprocesses = 0", "lab.processes: got 0, want at least 1"),
    ],
    ids=["no-port", "no-sink", "empty", "misspelt", "zero-processes"],
)
def test_bad_chain_file_says_where_and_what(text: str, want: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)

    said = loadgen("run", "quick", "--chain", tmp_path / "c.toml", "--output", tmp_path / "runs")

    assert said.returncode == 2
    assert want in said.stderr


def test_occupied_sink_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as front, socket.socket() as holder:
        front.bind(("127.0.0.1", 0))
        front.listen()
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        chain = tmp_path / "chain.toml"
        port = holder.getsockname()[1]
        chain.write_text(f'front = "127.0.0.1:{front.getsockname()[1]}"\nsink = "127.0.0.1:{port}"\n')
        # the front must greet before anything of ours is started
        front.settimeout(20)
        import threading

        def greet() -> None:
            connection, _ = front.accept()
            connection.sendall(b"220 stub\r\n")
            connection.recv(100)
            connection.close()

        threading.Thread(target=greet, daemon=True).start()
        said = loadgen("run", "quick", "--chain", chain, "--output", tmp_path / "runs")

    assert said.returncode == 2, said.stderr
    assert f"127.0.0.1:{port}: cannot listen there" in said.stderr


def test_unwritable_output_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    said = loadgen("run", "quick", "--chain", "reference", "--output", tmp_path / "file")

    assert said.returncode == 2
    assert "choose a writable place with --output" in said.stderr


def test_old_run_format_is_refused_with_its_number(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        writer.write_meta("format", 0)

    said = loadgen("report", tmp_path)

    assert said.returncode == 2
    assert "format 0, this version reads 1" in said.stderr
    assert not (tmp_path / "report.html").exists()


def test_install_preseeds_postfix_before_installing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postfix, "find_postfix", lambda: None)
    monkeypatch.setattr(amavis, "find_amavisd", lambda: None)
    monkeypatch.setattr(amavis, "spamassassin_version", lambda: None)
    monkeypatch.setattr(submission, "find_missing", lambda: ["sasl2-bin"])

    got = [command.describe() for command in install.plan_commands()]

    assert got == [
        "apt-get update",
        "echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections",
        "apt-get install --yes --no-install-recommends postfix amavisd-new spamassassin sasl2-bin",
    ]


def test_dry_run_shows_every_step_at_every_entry(tmp_path: Path) -> None:
    said = loadgen(
        "run", "quick", "--chain", "reference", "--dry-run", "--entry", "front", "--entry", "filter", cwd=tmp_path
    )

    steps = [line for line in said.stdout.splitlines() if line.startswith("step ")]
    assert len(steps) == 8
    assert "step 1: 1 sessions into the front" in steps[0]
    assert "step 2: 1 sessions into the filter" in steps[1]


def test_unknown_entry_is_refused_with_those_there_are(tmp_path: Path) -> None:
    said = loadgen("run", "quick", "--chain", "reference", "--entry", "back", cwd=tmp_path)

    assert said.returncode == 2
    assert '--entry: got "back", want one of front, inside, submission, pickup, filter, reinjection' in said.stderr
    assert list(tmp_path.iterdir()) == []
