"""Opening a session: connect, greet, and where asked for secure it and log in.

A session that is neither secured nor logged in is opened by the protocol that
will carry it: aiosmtplib's own opening takes several times as long as a
whole transaction, which is felt where every message has a connection of its
own. The rest is aiosmtplib's.
"""

import asyncio
import os
import ssl
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import aiosmtplib

from loadgen.profile import Session
from loadgen.traffic.dialogue import Broken, Dialogue, Reply

__all__ = ["Endpoint", "OpenTimes", "Opened", "SessionError", "open_plain", "open_secured"]

LOCAL_HOSTNAME = "generator.loadgen.test"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where sessions are opened, and how."""

    host: str
    """An IP literal: a name would be looked up by the loop for every session."""
    port: int
    session: Session
    sources: tuple[str, ...] = ()
    """Addresses that sessions come from, in turn; none: the kernel chooses."""

    def source_of(self, number: int) -> tuple[str, int] | None:
        """Return the address and port that session *number* comes from."""
        return (self.sources[number % len(self.sources)], 0) if self.sources else None


@dataclass(frozen=True, slots=True)
class OpenTimes:
    """How long the parts of opening a session took, in seconds; None for a part that did not happen."""

    connect_s: float | None
    """TCP connect to the 220 banner."""
    ehlo_s: float | None
    tls_s: float | None
    auth_s: float | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that is open."""

    dialogue: Dialogue
    times: OpenTimes
    offers: frozenset[str]
    """Keywords of the server's answer to EHLO or LHLO, upper case."""


class SessionError(Exception):
    """A session could not be opened; the text says at which step and why."""


async def open_plain(endpoint: Endpoint, number: int) -> Opened:
    """Connect and greet; *number* is the session's.

    Raises:
        SessionError: at any of these steps.
    """
    loop, settings = asyncio.get_running_loop(), endpoint.session
    dialogue = Dialogue(loop)
    begun = time.monotonic()
    deadline = begun + settings.connect_timeout_s
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            await loop.create_connection(
                lambda: dialogue, endpoint.host, endpoint.port, local_addr=endpoint.source_of(number)
            )
    except TimeoutError:
        raise SessionError(f"connect: no connection within {settings.connect_timeout_s:g} s") from None
    except OSError as error:
        raise SessionError(f"connect: {_describe(error)}") from error
    try:
        await _expect(dialogue, "connect", 220, deadline)
        connected = time.monotonic()
        dialogue.write(f"{'LHLO' if settings.protocol == 'lmtp' else 'EHLO'} {LOCAL_HOSTNAME}\r\n".encode())
        greeting = await _expect(dialogue, "ehlo", 250, time.monotonic() + settings.connect_timeout_s)
    except BaseException:
        dialogue.close()
        raise
    times = OpenTimes(connected - begun, time.monotonic() - connected, None, None)
    return Opened(dialogue, times, _keywords(greeting.raw))


async def open_secured(endpoint: Endpoint, number: int) -> Opened:
    """Connect, greet, secure and log in, as the settings say; certificates are not verified, as between mail servers.

    Raises:
        SessionError: at any of these steps.
    """
    settings = endpoint.session
    password = _read_password(settings)
    client = aiosmtplib.SMTP(
        hostname=endpoint.host, port=endpoint.port, local_hostname=LOCAL_HOSTNAME, start_tls=False,
        validate_certs=False, timeout=settings.connect_timeout_s, source_address=endpoint.source_of(number),
    )  # fmt: skip
    stage, tls_s, auth_s = "connect", None, None
    begun = time.monotonic()
    try:
        await client.connect()
        connected = time.monotonic()
        stage = "ehlo"
        greeting = await client.ehlo()
        greeted = time.monotonic()
        if settings.starttls:
            stage = "starttls"
            await client.starttls(tls_context=_make_tls_context())
            greeting = await client.ehlo()
            tls_s = time.monotonic() - greeted
        if settings.username is not None:
            stage = "auth"
            before = time.monotonic()
            await client.login(settings.username, password)
            auth_s = time.monotonic() - before
    # ssl.SSLError is an OSError and comes through bare
    except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as error:
        client.close()
        raise SessionError(f"{stage}: {_describe(error)}") from error
    except asyncio.CancelledError:
        client.close()
        raise
    transport = client.transport
    if transport is None:
        raise SessionError("connect: connection lost")
    dialogue = Dialogue(asyncio.get_running_loop())
    dialogue.adopt(cast(asyncio.Transport, transport))
    times = OpenTimes(connected - begun, greeted - connected, tls_s, auth_s)
    return Opened(dialogue, times, _keywords(greeting.message.encode()))


@cache
def _make_tls_context() -> ssl.SSLContext:
    """Return one context for all sessions, which trusts anybody.

    aiosmtplib would make one for each in a thread, and where Locust runs there are no threads but gevent's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _expect(dialogue: Dialogue, stage: str, code: int, deadline: float) -> Reply:
    try:
        reply = await dialogue.read_reply(deadline - time.monotonic())
    except Broken as broken:
        raise SessionError(f"{stage}: {broken}") from None
    if reply.code != code:
        raise SessionError(f"{stage}: {reply.code} {reply.text[:300]}")
    return reply


def _keywords(greeting: bytes) -> frozenset[str]:
    """Return the first word of every line but the first, which is the server's name."""
    lines = greeting.decode("ascii", "replace").upper().splitlines()[1:]
    return frozenset(words[0] for line in lines if (words := line.split()))


def _read_password(settings: Session) -> str:
    if settings.password_file is not None:
        try:
            return Path(settings.password_file).read_text().partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise SessionError(f"auth: {settings.password_file}: {_describe(error)}; password_file names it") from error
    if settings.password_env is None:
        return ""
    password = os.environ.get(settings.password_env)
    if password is None:
        raise SessionError(
            f"auth: environment variable {settings.password_env} is not set; session.password_env names it"
        )
    return password


def _describe(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]
