"""SMTP sessions against servers that behave, and against servers that do not."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from loadgen.profile import Message, Session
from loadgen.traffic.connect import Endpoint, SessionError
from loadgen.traffic.message import MessageFactory, OutgoingMessage
from loadgen.traffic.session import SmtpSession, Transaction
from tests.scripted_server import Script, serve

SMALL = MessageFactory(Message(), 1, "abcd0123").make_message(0)
LARGE = MessageFactory(Message(size="4MiB"), 1, "abcd0123").make_message(0)  # type: ignore[arg-type]


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: bool = True) -> None:
    writer.write(b"220 stub ESMTP\r\n")
    await reader.readline()
    writer.write(b"250-stub\r\n250 SIZE\r\n" if size else b"250 stub\r\n")


async def envelope(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
        await reader.readline()
        writer.write(reply)


def exchange(script: Script, message: OutgoingMessage = SMALL, timeout: str = "5s") -> Transaction:
    """Send *message* to a server that follows *script* and return the transaction."""

    async def main() -> Transaction:
        async with serve(script) as port:
            settings = Session(reply_timeout=timeout, connect_timeout="2s")  # type: ignore[arg-type]
            session = await SmtpSession.open(Endpoint("127.0.0.1", port, settings))
            transaction = await session.send(message)
            session.abort()
            return transaction

    return asyncio.run(main())


def test_accepted_message_is_timed_phase_by_phase() -> None:
    received = bytearray()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await envelope(reader, writer)
        received.extend(await reader.readuntil(b"\r\n.\r\n"))
        writer.write(b"250 queued as 4F\r\n")
        await reader.read()

    got = exchange(script)

    assert (got.outcome, got.code, got.reply, got.usable) == ("accepted", 250, "queued as 4F", True)
    assert got.envelope_s is not None
    assert got.data_s is not None
    assert 0 < got.envelope_s + got.data_s <= got.ended_at - got.started_at + 1e-9
    assert bytes(received) == SMALL.head + SMALL.body + b".\r\n"


def test_refused_recipient_keeps_the_first_reply_even_if_the_server_then_hangs() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await reader.readline()
        writer.write(b"250 ok\r\n")
        await reader.readline()
        writer.write(b"450 4.2.0 try later\r\n")
        await reader.read()

    got = exchange(script, timeout="200ms")

    assert (got.outcome, got.code, got.usable) == ("refused", 450, False)


@pytest.mark.parametrize(
    ("when", "code"),
    [("MAIL", 421), ("MAIL", 550), ("DATA", 452)],
    ids=["421-at-mail", "550-at-mail", "452-at-data"],
)
def test_refusal_is_data_with_the_servers_code(when: str, code: int) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        while line := await reader.readline():
            refused = line.startswith(when.encode())
            writer.write(f"{code} no\r\n".encode() if refused else b"250 ok\r\n")

    got = exchange(script)

    assert (got.outcome, got.code) == ("refused", code)
    assert got.usable is (code != 421)


def test_multi_line_reply_is_one_reply() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await reader.readline()
        writer.write(b"550-first\r\n550-sec")
        writer.write(b"ond\r\n550 third\r\n")
        await reader.read()

    assert exchange(script, timeout="300ms").reply == "first second third"


def test_connection_lost_before_the_final_dot_is_not_sent() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await envelope(reader, writer)
        await reader.readexactly(1000)
        writer.transport.abort()

    assert exchange(script, LARGE).outcome == "not_sent"


@pytest.mark.parametrize("end", ["abort", "close"])
def test_connection_lost_after_the_final_dot_is_unknown(end: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await envelope(reader, writer)
        await reader.readuntil(b"\r\n.\r\n")
        getattr(writer.transport, end)()

    got = exchange(script)

    assert (got.outcome, got.usable) == ("unknown", False)


def test_no_answer_to_the_final_dot_is_unknown() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await envelope(reader, writer)
        await reader.read()

    got = exchange(script, timeout="100ms")

    assert got.outcome == "unknown"
    assert "timed out" in got.reply


def test_reply_before_the_whole_message_is_a_refusal_with_its_code() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await envelope(reader, writer)
        await reader.readexactly(1000)
        writer.write(b"552 too big\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    got = exchange(script, LARGE, timeout="3s")

    assert (got.outcome, got.code) == ("refused", 552)


@pytest.mark.parametrize(
    ("nonsense", "want"),
    [
        pytest.param(b"hello there\r\n", "is no reply", id="text"),
        pytest.param(b"\x00\xff\xfe\r\n", "is no reply", id="binary"),
        pytest.param(b"250-" + b"x" * 100_000, "reply too long", id="line-without-end"),
        pytest.param(b"250-more\r\n" * 10_000, "reply too long", id="reply-without-end"),
    ],
)
def test_nonsense_is_a_protocol_error_in_bounded_memory(nonsense: bytes, want: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await reader.readline()
        writer.write(nonsense)
        await reader.read()

    got = exchange(script)

    assert got.outcome == "not_sent"
    assert want in got.reply


def test_cancelled_transaction_still_has_its_fate() -> None:
    async def main() -> Any:
        reached = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await greet(reader, writer)
            await envelope(reader, writer)
            await reader.readuntil(b"\r\n.\r\n")
            reached.set()
            await reader.read()

        async with serve(script) as port:
            session = await SmtpSession.open(Endpoint("127.0.0.1", port, Session()))
            sending = asyncio.create_task(session.send(SMALL))
            await reached.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await sending
            return caught.value

    assert asyncio.run(main()).transaction.outcome == "unknown"


@pytest.mark.parametrize(
    ("banner", "want"),
    [
        pytest.param(b"421 busy\r\n", "connect: 421", id="421-greeting"),
        pytest.param(b"", "connect: ", id="silence"),
        pytest.param(b"220 " + b"x" * 100_000, "connect: ", id="banner-without-end"),
    ],
)
def test_session_that_does_not_open_says_at_which_step(banner: bytes, want: str) -> None:
    async def main() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(banner)
            await reader.read()

        async with serve(script) as port:
            settings = Session(connect_timeout="300ms")  # type: ignore[arg-type]
            await SmtpSession.open(Endpoint("127.0.0.1", port, settings))

    with pytest.raises(SessionError, match=want):
        asyncio.run(main())


def test_refused_connection_says_so() -> None:
    with pytest.raises(SessionError, match="connect: .*(refused|111|Connect)"):
        asyncio.run(SmtpSession.open(Endpoint("127.0.0.1", 1, Session())))


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1)
    )
    path = tmp_path / "pair.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class Collecting:
    """An aiosmtpd handler that keeps what it gets."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        self.contents.append(envelope.original_content)
        return "250 taken"


def test_starttls_and_auth_open_a_session_on_a_real_server(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "s3cret")
    handler = Collecting()
    logins: list[tuple[bytes, bytes]] = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        logins.append((data.login, data.password))
        return AuthResult(success=True)

    settings = Session(starttls=True, username="load", password_env="MAIL_PASSWORD")

    async def main() -> tuple[Transaction, SmtpSession]:
        def make_server() -> SMTP:
            return SMTP(
                handler, hostname="mx.test", tls_context=certificate, require_starttls=True,
                authenticator=authenticate, auth_required=True,
            )  # fmt: skip

        server = await asyncio.get_running_loop().create_server(make_server, "127.0.0.1", 0)
        async with server:
            session = await SmtpSession.open(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], settings))
            transaction = await session.send(SMALL)
            await session.close()
        return transaction, session

    transaction, session = asyncio.run(main())

    assert transaction.outcome == "accepted"
    assert logins == [(b"load", b"s3cret")]
    assert handler.contents == [SMALL.head + SMALL.body]
    assert session.times.tls_s is not None
    assert session.times.auth_s is not None


def test_missing_password_names_the_variable() -> None:
    settings = Session(username="load", password_env="LOADGEN_NO_SUCH_VARIABLE")

    with pytest.raises(SessionError, match="LOADGEN_NO_SUCH_VARIABLE is not set"):
        asyncio.run(SmtpSession.open(Endpoint("127.0.0.1", 1, settings)))
