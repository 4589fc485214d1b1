"""Where the parts of a chain are: the one description the other rooms get.

`Chain` is plain data. The lab and the reference chain make one when they come
up; a chain file (TOML) is parsed into one for a chain that runs already. The
traffic room is given only its front and sink addresses, the collector all of it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

__all__ = ["Address", "AmavisParts", "Chain", "HostPort", "Login", "PostfixParts", "parse_address"]


class Address(BaseModel):
    """A host (IP literal or name) and a TCP port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address that *text* such as "127.0.0.1:25" or "[::1]:25" names.

    Raises:
        ValueError: no port, or a port outside 1..65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f'got "{text}", want host:port, such as "127.0.0.1:25"')
    return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))


HostPort = Annotated[Address, BeforeValidator(lambda v: parse_address(v) if isinstance(v, str) else v)]


class _Parts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PostfixParts(_Parts):
    """One Postfix instance, as the collector needs to know it."""

    config_directory: Path | None = Path("/etc/postfix")
    """None: it has none here (the reference chain, whose log alone looks like Postfix's)."""
    queue_directory: Path | None = Path("/var/spool/postfix")
    """None: it has none here."""
    maillog: Path | None = None
    """Where its log lines go; None: the log is not followed."""
    syslog_name: str | None = None
    """Its lines in a log that several instances share; None: every line is its own."""
    feed: str = "amavisfeed"
    """Name of the service in master.cf that feeds the filter."""


class AmavisParts(_Parts):
    """One amavisd."""

    pid_file: Path | None = None
    log: Path | None = None
    """Its own log file; None when it logs to the maillog (syslog), where its lines are then looked for."""
    configuration: Path | None = None
    """Its configuration file, or Debian's directory conf.d; only a sweep that may change it needs it."""


class Login(_Parts):
    """An account of the submission service; the password itself is nowhere but where this says."""

    username: str
    password_env: str | None = None
    """Environment variable that holds it."""
    password_file: Path | None = None
    """File whose first line it is."""

    @model_validator(mode="after")
    def _one_password(self) -> "Login":
        if (self.password_env is None) == (self.password_file is None):
            raise ValueError("got both or none of password_env and password_file, want one of them")
        return self


class Chain(_Parts):
    """One chain under test."""

    kind: Literal["lab", "reference", "file", "local"]
    name: str
    """What reports call it: "lab", "reference", or the chain file's name."""
    about: str = ""
    front: HostPort
    sink: HostPort
    """Where the chain delivers: our sink listens here."""
    filter: HostPort | None = None
    reinjection: HostPort | None = None
    inside: HostPort | None = None
    """Another front, whose mail is not filtered."""
    submission: HostPort | None = None
    """Where users of the host hand in their mail, with STARTTLS."""
    login: Login | None = None
    """For `submission`; None: it asks for none."""
    processes: int | None = None
    """Process count when it is the same on both sides; None: not known."""
    feed_processes: int | None = None
    """maxproc of the feed."""
    filter_servers: int | None = None
    """$max_servers."""
    destination_concurrency_limit: int | None = None
    reinjection_processes: int | None = None
    """Most processes the reinjection service may have; None: not known."""
    postfix: PostfixParts | None = None
    amavis: AmavisParts | None = None
    collector: tuple[str, ...] | None = None
    """Command that starts a collector on the chain's host, such as ssh mx1 loadgen collect; None: that is this host."""
    reference_status: Path | None = None
    """Unix socket of a reference chain that answers each connection with one JSON object of its gauges."""
    law: str = ""
    """Reference chain only: the law of its service times, for people."""
    known_delivered_per_s: dict[int, float] = {}
    """Reference chain only: messages in service to the exact throughput, msg/s."""
