"""Which chain is chosen, and what is said about it."""

import os
from pathlib import Path

import pytest

from loadgen.chain import amavis, lab, postfix
from loadgen.chain.choice import choose_chain
from loadgen.errors import ChainError


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "missing_requirements", list)


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postfix, "find_postfix", lambda: None)
    monkeypatch.setattr(amavis, "find_amavisd", lambda: None)
    monkeypatch.setattr(amavis, "spamassassin_version", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def test_lab_is_taken_where_it_can_run(able: None) -> None:
    got = choose_chain(None)

    assert got.lab is not None
    assert got.lab.processes == 2
    assert got.why == "chain: lab, real Postfix and amavisd are installed and this is root"


def test_reference_is_taken_elsewhere_and_says_everything_that_is_missing(unable: None) -> None:
    got = choose_chain(None)

    assert got.reference is not None
    for missing in ("not a mail server", "root", "postfix", "amavisd-new", "spamassassin"):
        assert missing in got.why
    assert len(got.why.splitlines()) == 1


def test_lab_that_was_asked_for_and_cannot_run_is_an_error_with_the_way_out(unable: None) -> None:
    with pytest.raises(ChainError, match="lab: missing root .* see 'loadgen lab install', or use --chain reference"):
        choose_chain("lab")


def test_only_root_can_look_at_labs(unable: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lab, "LABS", tmp_path)

    with pytest.raises(ChainError, match="labs belong to root"):
        lab.list_labs()


def test_processes_apply_to_both_sides(able: None) -> None:
    wanted = choose_chain("reference", processes=6)

    assert wanted.reference is not None
    assert (wanted.reference.feed_processes, wanted.reference.filter_servers) == (6, 6)
    assert choose_chain("lab", processes=6).lab == choose_chain(None, processes=6).lab


def test_processes_of_a_chain_that_runs_already_are_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "mx.toml"
    path.write_text('front = "127.0.0.1:25"\nsink = "127.0.0.1:11026"\n')

    with pytest.raises(ChainError, match="describes a chain that runs already"):
        choose_chain(str(path), processes=4)


def test_chain_file_with_unequal_sides_has_no_common_process_count(tmp_path: Path) -> None:
    path = tmp_path / "mx.toml"
    path.write_text('front = "[::1]:25"\nsink = "127.0.0.1:11026"\nfeed_processes = 8\nfilter_servers = 4\n')

    got = choose_chain(str(path)).chain

    assert got is not None
    assert (got.front.host, got.front.port) == ("::1", 25)
    assert got.processes is None


RUNNING = 'front = "127.0.0.1:25"\nsink = "127.0.0.1:11026"\nfeed_processes = 2\nfilter_servers = 2\n'


def test_apply_needs_root_and_says_so_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mx.toml"
    path.write_text(RUNNING)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)

    with pytest.raises(ChainError, match="--apply: changing the settings of Postfix and amavisd needs root"):
        choose_chain(str(path), apply=True)

    assert not choose_chain(str(path)).apply


def test_apply_is_refused_for_a_chain_of_our_own() -> None:
    with pytest.raises(ChainError, match="leave --apply out"):
        choose_chain("reference", apply=True)


def test_lab_settings_may_put_the_sides_out_of_step_and_let_scans_wait(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(
        '[lab]\nprocesses = 8\nfilter_servers = 2\nwait = "700ms"\nfeed_options = { lmtp_connection_cache_on_demand = "no" }\n'
    )

    settings = choose_chain(str(path)).lab

    assert settings is not None
    assert (settings.processes, settings.filter_servers) == (8, 2)
    assert settings.wait_s == pytest.approx(0.7)
    assert settings.feed_options == {"lmtp_connection_cache_on_demand": "no"}
