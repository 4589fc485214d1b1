"""The journal of a live host: what is put back, what is left alone, and what a kill leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.chain.journal import Journal, forget_below, list_journals
from loadgen.errors import ChainError


def begin(tmp_path: Path) -> Journal:
    return Journal.begin(config_directory=tmp_path, amavis_pid_file=tmp_path / "pid", directory=tmp_path / "journal")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "main.cf"
    path.write_bytes(b"original = \xff\n")
    path.chmod(0o640)
    return path


def test_file_comes_back_to_the_byte_with_its_mode(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")
    assert file.read_bytes() == b"changed\n"
    journal.change(file, b"changed again\n")

    assert journal.restore() == []

    assert file.read_bytes() == b"original = \xff\n"
    assert file.stat().st_mode & 0o777 == 0o640


def test_file_that_was_not_there_is_gone_again(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    journal.change(tmp_path / "99-loadgen", b"$x = 1;\n")

    journal.restore()

    assert not (tmp_path / "99-loadgen").exists()


def test_journal_is_on_the_disk_before_the_file_is_changed(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between writing the journal and writing the file: the file is the original, and known to be."""
    journal = begin(tmp_path)
    replaced = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        replaced.append(Path(target))
        if Path(target) == file:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        journal.change(file, b"changed\n")
    monkeypatch.undo()

    assert replaced == [journal.path, file]
    assert Journal.load(journal.path).restore() == []
    assert file.read_bytes() == b"original = \xff\n"


def test_another_process_puts_back_what_a_killed_one_changed(tmp_path: Path, file: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom loadgen.chain.journal import Journal\n"
        "base = Path(sys.argv[1])\n"
        "journal = Journal.begin(config_directory=base, amavis_pid_file=base / 'pid', directory=base / 'journal')\n"
        "journal.change(base / 'main.cf', b'changed')\njournal.change(base / 'new', b'new')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, cwd=Path(__file__).parent.parent)
    assert file.read_bytes() == b"changed"

    (journal,) = list_journals(tmp_path / "journal")
    assert journal.restore() == []
    journal.remove()

    assert file.read_bytes() == b"original = \xff\n"
    assert not (tmp_path / "new").exists()
    assert list_journals(tmp_path / "journal") == []


def test_journal_of_a_process_that_lives_is_left_to_it(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")

    assert list_journals(tmp_path / "journal") == []


def test_reused_process_id_does_not_keep_a_journal_alive(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")
    data = json.loads(journal.path.read_text())
    journal.path.write_text(json.dumps(data | {"owner_started_at": data["owner_started_at"] - 1000}))

    assert len(list_journals(tmp_path / "journal")) == 1


def test_somebody_elses_version_is_kept_and_named(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")
    file.write_bytes(b"theirs\n")

    (problem,) = journal.restore()

    assert str(file) in problem
    assert "loadgen restore --force" in problem
    assert file.read_bytes() == b"theirs\n"
    assert journal.path.exists()


def test_forced_restoration_keeps_theirs_beside_it(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")
    file.write_bytes(b"theirs\n")

    assert journal.restore(force=True) == []

    assert file.read_bytes() == b"original = \xff\n"
    (beside,) = tmp_path.glob("main.cf.loadgen-*")
    assert beside.read_bytes() == b"theirs\n"


def test_file_that_somebody_removed_is_named_and_comes_back_when_forced(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")
    file.unlink()

    (problem,) = journal.restore()
    assert "removed by somebody else" in problem

    assert journal.restore(force=True) == []
    assert file.read_bytes() == b"original = \xff\n"


def test_journals_of_a_place_that_is_removed_go_with_it_and_no_others(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        journal = Journal.begin(
            config_directory=tmp_path / name, amavis_pid_file=tmp_path / "pid", directory=tmp_path / "journal"
        )
        journal.owner_started_at -= 1000
        journal.change(tmp_path / name / "main.cf", b"changed\n")
    (tmp_path / "journal" / "damaged.json").write_text("{")

    forget_below(tmp_path / "one", tmp_path / "journal")

    left = {path.name: path for path in (tmp_path / "journal").iterdir()}
    assert len(left) == 2
    del left["damaged.json"]
    assert Journal.load(*left.values()).config_directory == tmp_path / "two"


def test_file_changed_by_somebody_else_during_the_run_is_not_changed_further(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")
    file.write_bytes(b"theirs\n")

    with pytest.raises(ChainError, match="somebody else has changed it"):
        journal.change(file, b"changed again\n")

    assert file.read_bytes() == b"theirs\n"


def test_restoring_twice_changes_nothing_more(tmp_path: Path, file: Path) -> None:
    journal = begin(tmp_path)
    journal.change(file, b"changed\n")
    path = journal.path

    Journal.load(path).restore()

    assert Journal.load(path).restore() == []
    assert file.read_bytes() == b"original = \xff\n"


def test_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "1.json").write_text("{")

    with pytest.raises(ChainError, match=r"1\.json: this journal cannot be read"):
        list_journals(tmp_path / "journal")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_who_is_not_root_sees_that_there_is_one_and_is_told_who_can_read_it(tmp_path: Path, file: Path) -> None:
    begin(tmp_path).change(file, b"changed\n")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        try:
            list_journals(tmp_path / "journal")
        except ChainError as error:
            os._exit(7 if "root" in str(error) else 8)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_without_a_journal_nobody_is_told_anything(tmp_path: Path) -> None:
    assert list_journals(tmp_path / "journal") == []
    (tmp_path / "journal").mkdir()
    assert list_journals(tmp_path / "journal") == []
