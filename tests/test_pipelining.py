"""Pipelined envelopes and LMTP: what is written when, and whose reply is whose."""

import asyncio
from typing import Any

import pytest

from loadgen.profile import Message, Session
from loadgen.traffic.connect import Endpoint
from loadgen.traffic.message import MessageFactory, OutgoingMessage
from loadgen.traffic.session import SmtpSession, Transaction
from tests.scripted_server import serve

ONE = MessageFactory(Message(), 1, "abcd0123").make_message(0)
THREE = MessageFactory(Message(recipients=3), 1, "abcd0123").make_message(0)


class Conversation:
    """A server that answers each write it gets with the next of its answers, and keeps what it got."""

    def __init__(self, answers: list[bytes], offers: bytes = b"PIPELINING") -> None:
        self.answers = answers
        self.offers = offers
        self.got: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 stub ESMTP\r\n")
        self.got.append(await reader.readline())
        writer.write(b"250-stub\r\n250-" + self.offers + b"\r\n250 SIZE\r\n")
        for answer in self.answers:
            got = await reader.read(65536)
            self.got.append(got)
            if not got:
                return
            writer.write(answer)
        await reader.read()

    def hold(self, message: OutgoingMessage, **settings: Any) -> Transaction:
        """Send *message* to this server and return the transaction."""

        async def main() -> Transaction:
            async with serve(self) as port:
                session = await SmtpSession.open(
                    Endpoint("127.0.0.1", port, Session(reply_timeout="2s", **settings))  # type: ignore[arg-type]
                )
                transaction = await session.send(message)
                session.abort()
                return transaction

        return asyncio.run(main())


def commands(written: bytes) -> list[bytes]:
    return [line.split(b" ")[0] for line in written.split(b"\r\n")[:-1]]


def test_envelope_goes_out_in_one_write_where_the_server_offers_it() -> None:
    server = Conversation([b"250 ok\r\n" * 4 + b"354 go\r\n", b"250 taken\r\n"])

    got = server.hold(THREE)

    assert (got.outcome, got.reply, got.recipients) == ("accepted", "taken", 3)
    assert commands(server.got[1]) == [b"MAIL", b"RCPT", b"RCPT", b"RCPT", b"DATA"]
    assert server.got[2] == THREE.head + THREE.body + b".\r\n"


@pytest.mark.parametrize(
    ("offers", "settings"), [(b"HELP", {}), (b"PIPELINING", {"pipelining": False})], ids=["not-offered", "switched-off"]
)
def test_one_command_at_a_time_otherwise(offers: bytes, settings: dict[str, Any]) -> None:
    server = Conversation([b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 taken\r\n"], offers)

    assert server.hold(ONE, **settings).outcome == "accepted"
    assert [commands(written) for written in server.got[1:4]] == [[b"MAIL"], [b"RCPT"], [b"DATA"]]


def test_no_content_follows_a_refused_data() -> None:
    server = Conversation([b"250 ok\r\n250 ok\r\n451 4.3.0 not now\r\n", b"250 ok\r\n"])

    got = server.hold(ONE)

    assert (got.outcome, got.code, got.reply, got.usable) == ("refused", 451, "4.3.0 not now", True)
    assert server.got[2] == b"RSET\r\n"


def test_data_taken_for_nobody_is_ended_with_a_lone_dot_and_named_by_the_refusal() -> None:
    server = Conversation([b"250 ok\r\n550 5.1.1 no such user\r\n354 go\r\n", b"554 5.5.1 no valid recipients\r\n"])

    got = server.hold(ONE)

    assert (got.outcome, got.code, got.usable) == ("refused", 550, True)
    assert server.got[2] == b".\r\n"


def test_message_goes_to_the_recipients_that_were_taken() -> None:
    server = Conversation([b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n", b"250 taken\r\n"])

    got = server.hold(THREE)

    assert (got.outcome, got.recipients) == ("accepted", 2)


def test_refused_sender_is_named_though_later_replies_follow() -> None:
    server = Conversation([b"550 5.7.1 sender no\r\n503 need MAIL\r\n503 need RCPT\r\n", b"250 ok\r\n"])

    got = server.hold(ONE)

    assert (got.outcome, got.code, got.reply) == ("refused", 550, "5.7.1 sender no")


def test_421_in_the_middle_of_a_group_ends_the_session() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 stub\r\n")
        await reader.readline()
        writer.write(b"250-stub\r\n250 PIPELINING\r\n")
        await reader.readline()
        writer.write(b"250 ok\r\n421 4.3.2 shutting down\r\n")
        writer.close()

    async def main() -> Transaction:
        async with serve(script) as port:
            session = await SmtpSession.open(Endpoint("127.0.0.1", port, Session()))
            return await session.send(ONE)

    got = asyncio.run(main())

    assert (got.outcome, got.code, got.usable) == ("refused", 421, False)


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        pytest.param(b"354 go\r\n250 ok\r\n250 ok\r\n", "354 go in reply to MAIL", id="data-first"),
        pytest.param(b"250 stray\r\n250 ok\r\n250 ok\r\n354 go\r\n", "250 ok in reply to DATA", id="one-too-many"),
    ],
)
def test_replies_out_of_order_are_a_protocol_error_and_nothing_is_sent(answer: bytes, want: str) -> None:
    server = Conversation([answer])

    got = server.hold(ONE)

    assert (got.outcome, got.usable) == ("not_sent", False)
    assert want in got.reply


def test_group_with_nonsense_in_it_is_an_error_every_time_it_comes() -> None:
    answer = b"250 ok\r\n250 ok\r\nnonsense\r\n"

    for _ in range(2):
        got = Conversation([answer]).hold(ONE)

        assert got.outcome == "not_sent"
        assert "is no reply" in got.reply


def test_server_that_does_not_read_is_given_up_in_time_and_has_no_message() -> None:
    large = MessageFactory(Message(size="16MiB"), 1, "abcd0123").make_message(0)  # type: ignore[arg-type]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 stub\r\n")
        await reader.readline()
        writer.write(b"250-stub\r\n250 PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def main() -> Transaction:
        async with serve(script) as port:
            settings = Session(reply_timeout="300ms")  # type: ignore[arg-type]
            session = await SmtpSession.open(Endpoint("127.0.0.1", port, settings))
            return await session.send(large)

    got = asyncio.run(main())

    assert (got.outcome, got.reply) == ("not_sent", "timed out while sending")
    assert got.ended_at - got.started_at < 2


def test_lmtp_greets_with_lhlo_and_has_a_reply_for_each_recipient() -> None:
    server = Conversation(
        [b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n", b"250 2.0.0 first\r\n450 4.2.2 second is full\r\n"]
    )

    got = server.hold(THREE, protocol="lmtp")

    assert server.got[0].startswith(b"LHLO ")
    assert (got.outcome, got.recipients, got.reply, got.usable) == ("accepted", 1, "2.0.0 first", True)


def test_connection_lost_among_the_replies_of_lmtp_leaves_the_message_unknown() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 stub\r\n")
        await reader.readline()
        writer.write(b"250-stub\r\n250 PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 ok\r\n" * 4 + b"354 go\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 first\r\n421 4.3.2 going down\r\n")
        writer.close()

    async def main() -> Transaction:
        async with serve(script) as port:
            session = await SmtpSession.open(Endpoint("127.0.0.1", port, Session(protocol="lmtp")))
            return await session.send(THREE)

    got = asyncio.run(main())

    assert (got.outcome, got.recipients) == ("unknown", 3)


def test_lmtp_is_not_secured() -> None:
    with pytest.raises(ValueError, match='want them with "smtp" only'):
        Session(protocol="lmtp", starttls=True)
