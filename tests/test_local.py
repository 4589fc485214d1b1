"""The chain of this host, found from Postfix's own settings: a configuration of its own stands in for /etc/postfix."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadgen.chain import local, postfix
from loadgen.chain.choice import choose_chain
from loadgen.chain.local import discover, find_local_chain, render_chain_file
from loadgen.chain.spec import Address
from loadgen.errors import ChainError
from tests.command import loadgen

pytestmark = pytest.mark.skipif(postfix.find_postfix() is None, reason="needs Postfix")

MASTER = """\
smtp inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
amavisfeed unix - - n - 4 lmtp
    -o lmtp_data_done_timeout=1200
127.0.0.1:10025 inet n - n - 7 smtpd
    -o content_filter=
    -o mynetworks=127.0.0.0/8
"""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make this the host's Postfix, by the variable that Postfix itself reads, with an amavisd of two children."""
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "main.cf").write_text(
        "content_filter = amavisfeed:[127.0.0.1]:10024\n"
        f"queue_directory = {tmp_path / 'spool'}\nmaillog_file = /var/log/own.log\n"
        "transport_maps = inline:{ loadgen.test=smtp:[127.0.0.1]:11026 }\n"
    )
    (directory / "master.cf").write_text(MASTER)
    monkeypatch.setenv("MAIL_CONFIG", str(directory))
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60 & echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    shell.stdout.readline()
    pid_file = tmp_path / "amavisd.pid"
    pid_file.write_text(f"{shell.pid}\n")
    monkeypatch.setattr(local, "_PID_FILES", (str(pid_file),))
    monkeypatch.setattr(local, "_CONFIGURATIONS", (str(tmp_path),))
    yield directory
    subprocess.run(["pkill", "-P", str(shell.pid)], check=False)
    shell.kill()
    shell.communicate()


def change(etc: Path, name: str, old: str, new: str) -> None:
    path = etc / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_everything_a_measurement_needs_is_found(etc: Path, tmp_path: Path) -> None:
    chain = find_local_chain("loadgen.test")

    assert chain.kind == "local"
    assert chain.filter == Address(host="127.0.0.1", port=10024)
    assert chain.reinjection == Address(host="127.0.0.1", port=10025)
    assert chain.sink == Address(host="127.0.0.1", port=11026)
    assert (chain.feed_processes, chain.filter_servers, chain.reinjection_processes) == (4, 2, 7)
    assert chain.destination_concurrency_limit == 20
    assert chain.postfix is not None
    assert chain.postfix.config_directory == etc
    assert chain.postfix.queue_directory == tmp_path / "spool"
    assert chain.postfix.maillog == Path("/var/log/own.log")
    assert chain.postfix.feed == "amavisfeed"
    assert chain.amavis is not None
    assert chain.amavis.configuration == tmp_path


def test_domain_that_is_not_routed_to_a_sink_is_told_how_to(etc: Path) -> None:
    with pytest.raises(ChainError, match=r"other\.test is not routed to a sink .* postconf -e 'transport_maps=inline"):
        find_local_chain("other.test")


def test_host_without_a_content_filter_is_told_what_is_wanted(etc: Path) -> None:
    change(etc, "main.cf", "content_filter = amavisfeed:[127.0.0.1]:10024\n", "")

    with pytest.raises(ChainError, match='content_filter is "", want transport'):
        find_local_chain("loadgen.test")


def test_missing_reinjection_is_named_with_its_key(etc: Path) -> None:
    change(etc, "master.cf", "    -o content_filter=\n", "")

    with pytest.raises(ChainError, match="name it with reinjection in a chain file"):
        find_local_chain("loadgen.test")


def test_missing_amavisd_is_named_with_its_key(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_PID_FILES", ("/nowhere/amavisd.pid",))

    with pytest.raises(ChainError, match=r"name its amavis\.pid_file in a chain file"):
        find_local_chain("loadgen.test")


def test_front_is_the_smtpd_on_port_25_wherever_it_stands(etc: Path) -> None:
    change(
        etc,
        "master.cf",
        "smtp inet n - n - - smtpd\n",
        "2525 inet n - n - - smtpd\n192.0.2.1:25 inet n - n - - smtpd\n",
    )

    assert find_local_chain("loadgen.test").front == Address(host="192.0.2.1", port=25)


def test_filter_that_one_service_names_is_found(etc: Path) -> None:
    change(etc, "main.cf", "content_filter = amavisfeed:[127.0.0.1]:10024\n", "")
    change(etc, "master.cf", "smtp inet n - n - - smtpd\n", (
        "smtp inet n - n - - smtpd\n    -o content_filter=amavisfeed:[127.0.0.1]:10040\n"
    ))  # fmt: skip

    assert find_local_chain("loadgen.test").filter == Address(host="127.0.0.1", port=10040)


def test_what_is_found_is_written_as_a_chain_file_that_says_the_same(etc: Path, tmp_path: Path) -> None:
    path = tmp_path / "chain.toml"
    path.write_text(render_chain_file(discover("loadgen.test")))

    read = choose_chain(str(path)).chain

    known = find_local_chain("loadgen.test")
    assert read is not None
    same = ("front", "sink", "filter", "reinjection", "feed_processes", "filter_servers", "destination_concurrency_limit",
            "reinjection_processes", "postfix", "amavis")  # fmt: skip
    assert {name: getattr(read, name) for name in same} == {name: getattr(known, name) for name in same}
    for line in path.read_text().splitlines():
        assert not line or line.startswith(("#", "[")) or "  # " in line, line


def test_what_is_not_found_is_named_with_its_key_and_what_to_do(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_PID_FILES", ("/nowhere/amavisd.pid",))
    change(etc, "main.cf", "transport_maps = inline:{ loadgen.test=smtp:[127.0.0.1]:11026 }\n", "")

    text = render_chain_file(discover("loadgen.test"))

    assert "# not found: loadgen.test is not routed to a sink" in text
    assert "# sink =" in text
    assert "# not found: no amavisd runs" in text
    assert "# pid_file =" in text
    assert 'filter = "127.0.0.1:10024"' in text


def test_check_writes_the_file_and_never_over_another(etc: Path, tmp_path: Path) -> None:
    path = tmp_path / "chain.toml"

    said = loadgen("check", "--write", path)
    assert f"written: {path}" in said.stderr
    before = path.read_text()
    assert 'feed = "amavisfeed"' in before

    assert "there is one already" in loadgen("check", "--write", path).stderr
    assert path.read_text() == before
    assert "want --chain local" in loadgen("check", "--chain", path, "--write", tmp_path / "other.toml").stderr
    assert not (tmp_path / "other.toml").exists()
