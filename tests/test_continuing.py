"""Going on with an earlier run: what counts, what is left out, and what is refused."""

import sqlite3
from pathlib import Path

import pytest

from loadgen.continuing import take_over
from loadgen.errors import RunFileError, UsageError
from loadgen.host import describe_host
from loadgen.profile import Profile
from loadgen.records import RunReader, RunWriter
from tests.make_rows import make_profile
from tests.make_run import Made, change, make_run, set_meta

PROFILE = make_profile("[processes]\nlevels = [1, 2]\n")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    directory = make_run(tmp_path / "earlier", Made(concurrencies=(2, 4), hold_s=5))
    set_meta(directory, "workload_hash", PROFILE.workload_hash)
    set_meta(directory, "host", describe_host(None))
    return directory


def take(earlier: Path, tmp_path: Path, profile: Profile = PROFILE) -> tuple[Path, object]:
    later = tmp_path / "later"
    later.mkdir()
    return later, take_over(earlier, later, profile)


def count(directory: Path, table: str) -> int:
    with RunReader(directory) as reader:
        return int(reader.query(f"SELECT count(*) FROM {table}")[0][0])


def test_everything_finished_is_taken_over_and_the_earlier_run_stays_as_it_is(earlier: Path, tmp_path: Path) -> None:
    before = (earlier / "run.sqlite").read_bytes()

    later, taken = take(earlier, tmp_path)

    for table in ("message", "arrival", "session", "step", "phase", "sample"):
        assert count(later, table) == count(earlier, table) > 0
    assert (earlier / "run.sqlite").read_bytes() == before
    assert taken.messages == count(earlier, "message")  # type: ignore[attr-defined]
    assert taken.sessions == 1004, "sessions of step 1 are numbered from 1000"  # type: ignore[attr-defined]


def test_step_that_did_not_end_is_left_out_with_its_messages(earlier: Path, tmp_path: Path) -> None:
    change(earlier, "DELETE FROM phase WHERE step = 1 AND phase = 'end'")

    later, _ = take(earlier, tmp_path)

    with RunReader(later) as reader:
        for table in ("step", "phase", "message", "session"):
            assert {step for (step,) in reader.query(f"SELECT step FROM {table}")} == {0}
        assert reader.query("SELECT count(*) FROM arrival WHERE id NOT IN (SELECT id FROM message)") == [(0,)]


def test_new_part_begins_after_the_old_one(earlier: Path, tmp_path: Path) -> None:
    _, taken = take(earlier, tmp_path)

    with RunReader(earlier) as reader:
        (last,) = reader.query("SELECT max(at) FROM phase")[0]
    assert taken.ended_at > last  # type: ignore[attr-defined]


def test_record_goes_on_where_it_stopped(earlier: Path, tmp_path: Path) -> None:
    later, _ = take(earlier, tmp_path)

    with RunWriter(later, new=False) as writer:
        writer.write_rows("step", [(2, 1, "stock", 5, None, 1.0, 1.0)])

    assert count(later, "step") == 3
    with RunReader(later) as reader:
        assert reader.meta["status"] == "running"


def test_unfinished_record_beside_the_file_is_taken_over_too(earlier: Path, tmp_path: Path) -> None:
    db = sqlite3.connect(earlier / "run.sqlite")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("INSERT INTO remark VALUES (1, 'x', 'y', 'in the log beside the file')")
    db.commit()

    later, _ = take(earlier, tmp_path)

    db.close()
    with RunReader(later) as reader:
        assert reader.query("SELECT count(*) FROM remark WHERE text LIKE 'in the log%'") == [(1,)]


def test_another_workload_is_refused(earlier: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made with another profile"):
        take(earlier, tmp_path, make_profile("[processes]\nlevels = [1, 2, 3]\n"))


def test_another_machine_is_refused(earlier: Path, tmp_path: Path) -> None:
    set_meta(earlier, "host", describe_host(None) | {"hostname": "elsewhere"})

    with pytest.raises(UsageError, match="made on another machine"):
        take(earlier, tmp_path)


def test_older_format_is_refused(earlier: Path, tmp_path: Path) -> None:
    set_meta(earlier, "format", 1)

    with pytest.raises(UsageError, match="only format 3 can be continued"):
        take(earlier, tmp_path)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no such directory"):
        take(tmp_path / "nothing", tmp_path)
