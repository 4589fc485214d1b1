"""Which chain is chosen, and what is said about it."""

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
