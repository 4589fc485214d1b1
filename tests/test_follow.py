from pathlib import Path

import pytest

from loadgen.collect.follow import LogFollower


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "maillog"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_what_was_there_before_is_not_read(log: Path) -> None:
    append(log, "old\n")
    follower = LogFollower(log)
    assert follower.poll(0.0) == []

    append(log, "new\n")

    assert follower.poll(0.25) == ["new"]


def test_another_reader_goes_on_where_the_first_one_was(log: Path) -> None:
    append(log, "old\n")
    first = LogFollower(log)
    first.poll(0.0)
    append(log, "one\ntwo, be")
    first.poll(0.25)
    append(log, "gun\nthree\n")

    second = LogFollower(log, first.place)

    assert second.poll(1.0) == ["two, begun", "three"]


def test_another_reader_of_a_file_that_is_new_meanwhile_takes_all_of_it(log: Path) -> None:
    append(log, "old\n")
    first = LogFollower(log)
    first.poll(0.0)
    log.rename(log.with_suffix(".1"))
    append(log, "one\n")

    assert LogFollower(log, first.place).poll(1.0) == ["one"]


def test_a_file_that_appears_later_is_read_from_its_start(log: Path) -> None:
    follower = LogFollower(log)
    assert follower.poll(0.0) == []
    assert not follower.found

    append(log, "first\nsecond\n")

    assert follower.poll(0.25) == ["first", "second"]
    assert follower.found


def test_a_torn_line_waits_for_its_end(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    append(log, "one\ntwo, be")
    assert follower.poll(0.25) == ["one"]
    assert follower.poll(0.5) == []

    append(log, "gun\n")

    assert follower.poll(0.75) == ["two, begun"]


def test_rename_and_create_loses_nothing_and_keeps_the_order(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    append(log, "a\n")
    old = log.with_suffix(".1")
    log.rename(old)
    append(old, "b\n")  # the writer has not been told yet
    append(log, "c\n")

    assert follower.poll(0.25) == ["a", "b", "c"]


def test_the_renamed_file_is_read_while_its_writer_keeps_it_open(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    old = log.with_suffix(".1")
    log.rename(old)
    log.touch()
    assert follower.poll(0.25) == []
    append(old, "late, and to")
    assert follower.poll(5.0) == []
    append(old, "rn\n")
    append(log, "new\n")

    assert follower.poll(5.25) == ["late, and torn", "new"]


def test_a_renamed_file_is_let_go_after_a_while_with_its_last_words(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    append(log, "no newline")
    old = log.with_suffix(".1")
    log.rename(old)
    append(log, "")
    assert follower.poll(1.0) == []

    assert follower.poll(100.0) == ["no newline"]
    append(old, " any more\n")
    assert follower.poll(101.0) == []


def test_several_rotations_between_two_looks_lose_nothing_that_is_open(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    want = []
    for number in range(3):
        append(log, f"{number}\n")
        want.append(f"{number}")
        log.rename(log.with_suffix(f".{number}"))
        log.touch()
        assert follower.poll(float(number)) == want[-1:]


def test_a_truncated_copy_is_read_from_its_start(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    append(log, "before the copy\n")
    follower.poll(0.25)
    log.write_text("")
    assert follower.poll(0.5) == []

    append(log, "after\n")

    assert follower.poll(0.75) == ["after"]


def test_the_hole_that_truncation_leaves_under_a_writer_is_no_text(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    append(log, "\0" * 100 + "text\n")

    assert follower.poll(0.25) == ["text"]


def test_a_removed_file_is_waited_for(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    log.unlink()
    assert follower.poll(0.25) == []

    append(log, "again\n")

    assert follower.poll(0.5) == ["again"]


def test_bytes_that_are_no_text_do_not_stop_the_following(log: Path) -> None:
    follower = LogFollower(log)
    append(log, "")
    follower.poll(0.0)
    with log.open("ab") as file:
        file.write(b"caf\xe9 \xff\n")

    assert follower.poll(0.25) == ["caf\ufffd \ufffd"]
