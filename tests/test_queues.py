from pathlib import Path

import pytest

from loadgen.chain.spec import Chain, PostfixParts, parse_address
from loadgen.collect.queues import QUEUES, list_queue_ids, make_samplers
from loadgen.collect.sampler import Target
from loadgen.errors import CollectorError


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for queue in QUEUES:
        (tmp_path / queue).mkdir()
    return tmp_path


def put(spool: Path, *names: str) -> None:
    for name in names:
        path = spool / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def sample(spool: Path) -> dict[str, float]:
    address = parse_address("127.0.0.1:25")
    chain = Chain(kind="file", name="c", front=address, sink=address, postfix=PostfixParts(queue_directory=spool))
    values: dict[str, float] = {}
    for sampler in make_samplers(Target(chain)):
        values.update(sampler.sample(0.0))
    return values


def test_every_queue_is_counted_by_itself(spool: Path) -> None:
    put(spool, "incoming/4jZ3dc1rMWzJ9C1", "active/4jZ3dc1rMWzJ9C2", "active/383E920CA16", "maildrop/8582220CA52")

    got = sample(spool)

    assert (got["queue.incoming"], got["queue.active"], got["queue.maildrop"]) == (1, 2, 1)
    assert (got["queue.deferred"], got["queue.hold"]) == (0, 0)
    assert got["queue.free_bytes"] > 0


@pytest.mark.parametrize(
    "directory", ["deferred", "deferred/4", "deferred/4/A"], ids=["flat", "hashed", "hashed-twice"]
)
def test_deferred_mail_is_found_however_deep_the_queue_is_hashed(spool: Path, directory: str) -> None:
    put(spool, f"{directory}/4jZ3fW2FBGzJB5b")

    assert sample(spool)["queue.deferred"] == 1


def test_what_is_no_queue_file_is_not_counted(spool: Path) -> None:
    put(spool, "active/.keep", "deferred/4/.nfs000001", "hold/lost+found")

    assert sum(value for name, value in sample(spool).items() if name != "queue.free_bytes") == 0


def test_queue_ids_are_listed_with_their_queue(spool: Path) -> None:
    put(spool, "active/4jZ3dc1rMWzJ9C1", "deferred/4/4jZ3fW2FBGzJB5b")

    assert sorted(list_queue_ids(spool)) == [("active", "4jZ3dc1rMWzJ9C1"), ("deferred", "4jZ3fW2FBGzJB5b")]


def test_a_message_that_moved_during_the_listing_is_named_once_where_it_is_now(spool: Path) -> None:
    put(spool, "incoming/4jZ3dc1rMWzJ9C1", "active/4jZ3dc1rMWzJ9C1")

    assert list_queue_ids(spool) == [("active", "4jZ3dc1rMWzJ9C1")]


def test_a_missing_queue_is_no_reading_rather_than_an_empty_queue(tmp_path: Path) -> None:
    with pytest.raises(CollectorError, match="incoming: No such file"):
        sample(tmp_path)


def test_a_chain_without_postfix_has_no_queue_samplers() -> None:
    address = parse_address("127.0.0.1:25")

    assert make_samplers(Target(Chain(kind="reference", name="r", front=address, sink=address))) == []
