import email
import email.policy
from collections import Counter
from typing import Any

import pytest

from loadgen.profile import Message
from loadgen.traffic.message import ID_HEADER, MessageFactory, OutgoingMessage


def unstuff(message: OutgoingMessage) -> bytes:
    return message.head + message.body.replace(b"\r\n..", b"\r\n.")


def make(count: int, seed: int = 1, run_id: str = "abcd0123", **settings: Any) -> list[OutgoingMessage]:
    factory = MessageFactory(Message(**settings), seed, run_id)
    return [factory.make_message(number) for number in range(count)]


def without_run(message: OutgoingMessage) -> list[bytes]:
    lines = unstuff(message).split(b"\r\n")
    return [line for line in lines if not line.startswith((b"Date:", b"Message-ID:", b"X-Loadgen-ID:"))]


def test_same_seed_makes_the_same_mail_in_every_run() -> None:
    first = [without_run(m) for m in make(30, run_id="aaaa1111", attachments=0.3)]
    second = [without_run(m) for m in make(30, run_id="bbbb2222", attachments=0.3)]

    assert first == second


def test_another_seed_makes_other_mail() -> None:
    assert without_run(make(1, seed=1)[0]) != without_run(make(1, seed=2)[0])


def test_every_message_is_unique_and_carries_its_id_twice() -> None:
    messages = make(300)

    assert len({unstuff(m) for m in messages}) == 300
    for message in messages[:20]:
        parsed = email.message_from_bytes(unstuff(message))
        assert parsed[ID_HEADER] == message.id
        assert parsed["Message-ID"] == f"<{message.id}@loadgen.invalid>"


def test_subjects_bodies_senders_and_recipients_vary() -> None:
    messages = make(200)
    subjects = {email.message_from_bytes(unstuff(m))["Subject"] for m in messages}

    assert len(subjects) > 150
    assert len({m.body for m in messages}) > 40
    assert len({m.sender for m in messages}) > 40
    assert len({m.recipients for m in messages}) > 40


@pytest.mark.parametrize("size", [1024, 4096, 30_000, 200_000])
@pytest.mark.parametrize("kind", [{"html": 0}, {"html": 1}, {"attachments": 1}], ids=["text", "html", "attachment"])
def test_size_is_kept_within_a_few_per_cent(size: int, kind: dict[str, Any]) -> None:
    for message in make(6, size=f"{size}B", **kind):
        # MIME alone takes several hundred bytes, which the smallest messages cannot hide
        assert message.size_bytes == pytest.approx(size, rel=0.03, abs=420 if size == 1024 else 100)
        assert message.size_bytes == len(unstuff(message))


def test_structure_is_valid_mime() -> None:
    kinds: Counter[str] = Counter()
    for message in make(60, attachments=0.3, html=0.5):
        parsed = email.message_from_bytes(unstuff(message), policy=email.policy.default)
        kinds[parsed.get_content_type()] += 1
        assert all(not part.defects for part in parsed.walk())

    assert set(kinds) == {"text/plain", "multipart/alternative", "multipart/mixed"}


def test_sizes_follow_the_mix() -> None:
    sizes = Counter(round(m.size_bytes, -3) for m in make(2000, mix="specmail2001"))

    assert sizes[2000] / 2000 == pytest.approx(0.307, abs=0.04)
    assert sizes[100_000] / 2000 == pytest.approx(0.098, abs=0.03)


def test_lines_are_within_smtp_limits_and_dots_are_stuffed() -> None:
    for message in make(50, attachments=0.3):
        wire = message.head + message.body
        assert max(len(line) for line in wire.split(b"\r\n")) <= 998
        assert b"\r\n.\r\n" not in wire
        assert b"\n" not in wire.replace(b"\r\n", b"")
        assert wire.endswith(b"\r\n")


def test_recipients_of_one_message_differ() -> None:
    for message in make(20, recipients=10):
        assert len(set(message.recipients)) == 10
        assert all(r.endswith("@loadgen.test") for r in message.recipients)


def test_others_are_a_share_of_the_mail_that_is_addressed_otherwise() -> None:
    others = {"share": 0.25, "recipient_domain": "plain.test", "subject": "A special offer"}
    messages = make(2000, others=others)

    mine = [m for m in messages if m.recipients[0].endswith("@plain.test")]
    assert len(mine) == pytest.approx(500, abs=60)
    assert {email.message_from_bytes(unstuff(m))["Subject"] for m in mine} == {"A special offer"}
    assert all(m.sender.endswith("@sender.loadgen.test") for m in mine)
    assert email.message_from_bytes(unstuff(mine[0]))["To"] == mine[0].recipients[0]
    # the rest is the mail that it would be without them
    same = [m for m, plain in zip(messages, make(2000), strict=True) if without_run(m) == without_run(plain)]
    assert len(same) == 2000 - len(mine)
