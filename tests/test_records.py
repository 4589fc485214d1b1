import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.errors import RunFileError
from loadgen.records import TABLES, RunReader, RunWriter, make_run_directory


def test_a_second_run_in_the_same_second_gets_its_own_directory(tmp_path: Path) -> None:
    first = make_run_directory(tmp_path, "quick", 0.0)
    second = make_run_directory(tmp_path, "quick", 0.0)

    assert first.name == "1970-01-01T00-00-00Z-quick"
    assert second.name == "1970-01-01T00-00-00Z-quick-2"


def test_unwritable_output_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunFileError, match="choose a writable place with --output"):
        make_run_directory(tmp_path / "file", "quick", 0.0)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        writer.write_rows("arrival", [("a.1", 1.5, 1, 4096), ("a.2", 2.5, 2, 100)])
        writer.write_meta("chain", {"kind": "lab"})

    with RunReader(tmp_path) as reader:
        assert list(reader.rows("arrival", "WHERE at > ?", (2,))) == [("a.2", 2.5, 2, 100)]
        assert reader.meta["chain"] == {"kind": "lab"}


def test_repeated_queue_entry_keeps_both_rows_but_a_message_only_its_last(tmp_path: Path) -> None:
    row = ["a.1", 0, 0, 1, 1, 0, 0, 0, 0, 0, "unknown", None, ""]
    with RunWriter(tmp_path) as writer:
        writer.write_rows("message", [row])
        writer.write_rows("message", [[*row[:10], "accepted", 250, ""]])

    with RunReader(tmp_path) as reader:
        assert [r[10] for r in reader.rows("message")] == ["accepted"]


def test_plain_sqlite_reads_a_run_while_it_is_written(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        writer.write_rows("sample", [(0.25, "queue.active", 3.0)])
        writer.commit()

        got = sqlite3.connect(tmp_path / "run.sqlite").execute("SELECT value FROM sample").fetchall()

    assert got == [(3.0,)]


def test_killed_writer_leaves_what_it_committed(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from loadgen.records import RunWriter
writer = RunWriter(Path({str(tmp_path)!r}))
writer.write_rows("arrival", [(f"a.{{n}}", n, 1, 1) for n in range(1000)])
writer.commit()
writer.write_rows("arrival", [("a.lost", 0, 1, 1)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", program], check=False)
    assert process.returncode == -signal.SIGKILL

    with RunReader(tmp_path) as reader:
        assert reader.query("SELECT count(*) FROM arrival") == [(1000,)]
        assert reader.meta["status"] == "running"


@pytest.mark.parametrize(
    ("prepare", "want"),
    [
        pytest.param(lambda p: None, "no such directory", id="missing"),
        pytest.param(lambda p: p.mkdir(), "no run.sqlite in it", id="no-run"),
        pytest.param(
            lambda p: (p.mkdir(), (p / "run.sqlite").write_text("hello " * 500)),
            "no run that loadgen wrote",
            id="foreign",
        ),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, prepare: object, want: str) -> None:
    path = tmp_path / "run"
    prepare(path)  # type: ignore[operator]

    with pytest.raises(RunFileError, match=want):
        RunReader(path)


def test_unknown_format_names_the_versions_it_reads(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        writer.write_meta("format", 99)
        writer.write_meta("version", "7.0")

    with pytest.raises(
        RunFileError, match=r"format 99, this version reads 1, 2, 3; use the loadgen that wrote it \(7.0\)"
    ):
        RunReader(tmp_path)


def test_a_run_in_a_read_only_place_can_be_read(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        writer.write_rows("arrival", [("a.1", 1.0, 1, 1)])
    for path in (tmp_path / "run.sqlite", tmp_path):
        path.chmod(0o555)
    # root may write anywhere: only another user meets the restriction
    program = f"""
import os
from pathlib import Path
from loadgen.records import RunReader
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
print(RunReader(Path({str(tmp_path)!r})).query("SELECT count(*) FROM arrival"))
"""
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent.is_relative_to("/tmp"):  # noqa: S108
            parent.chmod(parent.stat().st_mode | 0o055)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)

    assert result.stdout.strip() == "[(1,)]", result.stderr


def test_every_table_is_documented_where_it_is_defined() -> None:
    for table, columns in TABLES.items():
        assert len(set(columns)) == len(columns), table
