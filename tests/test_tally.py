from loadgen.tally import Tally


def message(message_id: str, outcome: str = "accepted") -> tuple[object, ...]:
    return (message_id, 0, 0, 1, 1, 0.0, 0.0, 0.0, 0.0, 0.0, outcome, 250, "")


def test_a_message_is_on_its_way_until_it_arrives() -> None:
    tally = Tally()
    tally.add_messages([message("a.1"), message("a.2")])
    tally.add_arrivals([("a.1", 0.0, 1, 1)])

    assert set(tally.on_the_way) == {"a.2"}


def test_an_arrival_reported_before_its_message_counts() -> None:
    tally = Tally()
    tally.add_arrivals([("a.1", 0.0, 1, 1)])
    tally.add_messages([message("a.1")])

    assert not tally.on_the_way
    assert (tally.accepted, tally.delivered) == (1, 1)


def test_refused_dropped_and_unsent_messages_are_never_on_their_way() -> None:
    tally = Tally()
    tally.add_messages([message("a.1", "refused"), message("a.2", "dropped"), message("a.3", "not_sent")])

    assert not tally.on_the_way
    assert tally.failed == 2


def test_an_unknown_message_may_still_arrive() -> None:
    tally = Tally()
    tally.add_messages([message("a.1", "unknown")])

    assert set(tally.on_the_way) == {"a.1"}


def test_a_blocked_message_is_not_waited_for() -> None:
    tally = Tally()
    tally.add_messages([message("a.1")])
    tally.add_gone(["a.1"])

    assert not tally.on_the_way


def test_message_in_several_copies_is_on_its_way_until_the_last_has_arrived() -> None:
    tally = Tally()
    tally.add_arrivals([("a.1", 0.0, 10, 1)])
    tally.add_messages([("a.1", 0, 0, 1, 60, 0.0, 0.0, 0.0, 0.0, 0.0, "accepted", 250, "")])
    tally.add_arrivals([("a.1", 0.0, 40, 1)])
    assert tally.delivered == 0

    tally.add_arrivals([("a.1", 0.0, 10, 1)])

    assert (tally.delivered, dict(tally.on_the_way)) == (1, {})


def test_instants_of_delivery_are_kept_in_their_order() -> None:
    tally = Tally()
    tally.add_messages([message("a.1"), message("a.2")])
    tally.add_arrivals([("a.2", 5.0, 1, 1), ("a.3", 4.0, 1, 1), ("a.1", 6.0, 1, 1)])
    tally.add_messages([message("a.3")])

    assert tally.completed_at == [4.0, 5.0, 6.0]
    assert tally.completed_at[tally.find(4.5) :] == [5.0, 6.0]
