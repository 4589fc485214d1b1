"""A profile: the load to apply, parsed once from TOML into one frozen, checked value.

Owns every key a profile may have, with its default and its limits; unknown
keys are errors, so a typo cannot silently change a measurement. Where the
profile comes from (a shipped name or a path) is also decided here.
`profiles/README.md` documents the same keys for users.
"""

import difflib
import hashlib
import ipaddress
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from loadgen.checkedtoml import Domain, Duration, Size, check_toml
from loadgen.errors import ProfileError
from loadgen.expectations import Expect

__all__ = [
    "ENTRIES",
    "SIZE_MIXES",
    "Limits",
    "Message",
    "Others",
    "OwnVariant",
    "Pacing",
    "Processes",
    "Profile",
    "Session",
    "StepEntry",
    "Timing",
    "Variants",
    "list_profiles",
    "load_profile",
    "parse_profile",
]

ENTRIES = ("front", "inside", "submission", "pickup", "filter", "reinjection")
"""Where a message can be put into the chain, from the outside inwards."""

SIZE_MIXES: dict[str, tuple[tuple[int, float], ...]] = {
    # SPECmail2001 Architecture White Paper 1.00 (2001), section 4.2.1.1: size in KB to share in per cent
    "specmail2001": (
        (1_000, 10.20), (2_000, 30.71), (3_000, 20.59), (4_000, 10.78), (5_000, 5.88),
        (6_000, 3.74), (10_000, 7.44), (100_000, 9.79), (1_000_000, 0.69), (2_675_000, 0.18),
    ),
}  # fmt: skip
"""Named mixes of message sizes: bytes to share (any unit; shares are normalised)."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Others(_Table):
    """A share of the messages that is addressed otherwise, for a chain that does not filter all mail."""

    share: Annotated[float, Field(gt=0, lt=1, strict=False)]
    """Of all messages."""
    sender_domain: Domain | None = None
    recipient_domain: Domain | None = None
    subject: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")] | None = None
    """Instead of random words."""

    @model_validator(mode="after")
    def _differs(self) -> "Others":
        if self.sender_domain is None and self.recipient_domain is None and self.subject is None:
            raise ValueError("differs in nothing; give sender_domain, recipient_domain or subject")
        return self


class Message(_Table):
    """What is sent."""

    size: Annotated[Size, Field(ge=1024, le=1 << 30)] | None = None
    mix: str | None = None
    recipients: Annotated[int, Field(ge=1, le=1000)] = 1
    attachments: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.0
    """Share of messages that carry an attachment."""
    html: Annotated[float, Field(ge=0, le=1, strict=False)] = 0.3
    """Share of the others that are multipart/alternative, text and HTML; the rest is plain text."""
    sender_domain: Domain = "sender.loadgen.test"
    recipient_domain: Domain = "loadgen.test"
    others: Others | None = None

    @property
    def domains(self) -> tuple[tuple[str, str], ...]:
        """Every domain of an envelope, after whose it is: "sender" or "recipient"."""
        others = self.others
        named = [("recipient", self.recipient_domain), ("sender", self.sender_domain)]
        if others is not None:
            named += [
                (role, domain)
                for role, domain in (("recipient", others.recipient_domain), ("sender", others.sender_domain))
                if domain is not None
            ]
        return tuple(named)

    @model_validator(mode="after")
    def _one_size(self) -> "Message":
        if self.size is not None and self.mix is not None:
            raise ValueError("got both size and mix, want one of them")
        if self.mix is not None and self.mix not in SIZE_MIXES:
            raise ValueError(f'mix: got "{self.mix}", want one of {", ".join(SIZE_MIXES)}')
        return self

    @property
    def size_shares(self) -> tuple[tuple[int, float], ...]:
        """Bytes to share, whichever way the size was given; 4 KiB when it was not."""
        return SIZE_MIXES[self.mix] if self.mix is not None else ((self.size or 4096, 1.0),)


class Pacing(_Table):
    """When a session sends its next message."""

    kind: Literal["delivered", "accepted", "rate"] = "delivered"
    arrivals: Literal["poisson", "constant"] = "poisson"
    """Only for kind = "rate"."""
    delivery_timeout_s: Duration = Field(default=60.0, alias="delivery_timeout")
    """Only for kind = "delivered": go on with the next message when one has not arrived after this long."""


class Session(_Table):
    """How a session is opened and kept."""

    messages_per_session: Annotated[int, Field(ge=1)] | None = None
    """Reconnect after this many messages; None: one connection for the whole step."""
    protocol: Literal["smtp", "lmtp"] | None = None
    """What is spoken to a filter directly; None: what its feed speaks. Everything else is spoken to in SMTP."""
    pipelining: bool = True
    """The envelope goes out in one write where the server offers PIPELINING; false: one command at a time."""
    starttls: bool = False
    username: str | None = None
    password_env: str | None = None
    """Name of the environment variable that holds the password; never the password itself."""
    password_file: str | None = None
    """Path of the file whose first line is the password, instead of the variable."""
    source: str | None = None
    """Loopback network from whose addresses the sessions come in turn, such as "127.1.0.0/24"; None: the kernel chooses."""
    connect_timeout_s: Duration = Field(default=30.0, alias="connect_timeout")
    reply_timeout_s: Duration = Field(default=300.0, alias="reply_timeout")
    """Longest wait for one reply (RFC 5321, 4.5.3.2); twice that after the final dot."""

    @field_validator("source")
    @classmethod
    def _is_loopback(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            network = ipaddress.ip_network(value)
        except ValueError:
            network = None
        if network is None or not network.is_loopback or network.num_addresses > 1 << 16:
            raise ValueError(f'got "{value}", want a network of up to 65536 loopback addresses, such as "127.1.0.0/24"')
        return value

    @property
    def source_addresses(self) -> tuple[str, ...]:
        """The addresses of `source`; none where the kernel is to choose."""
        return tuple(map(str, ipaddress.ip_network(self.source).hosts())) if self.source is not None else ()

    @model_validator(mode="after")
    def _whole_credentials(self) -> "Session":
        passwords = [name for name in ("password_env", "password_file") if getattr(self, name) is not None]
        if len(passwords) != (self.username is not None):
            got = " and ".join(passwords) or "none of them"
            raise ValueError(f"got {got}, want one of password_env and password_file with username, none without it")
        if self.protocol == "lmtp" and (self.starttls or self.username is not None):
            raise ValueError('got protocol = "lmtp" with starttls or username, want them with "smtp" only')
        return self


class Limits(_Table):
    """Where the load stops by itself."""

    backlog: Annotated[int, Field(ge=1)] = 2000
    """Messages in the chain at once (accepted, not yet delivered)."""
    free_disk: Size = 1 << 30
    """Free bytes on the file system of the queue."""
    messages: Annotated[int, Field(ge=1)] = 1_000_000
    """Messages in the whole run."""
    worker_loss: Literal["end", "go-on"] = "end"
    """What becomes of the run when one of several workers is lost; the step it happens in is not valid in any case."""


class Timing(_Table):
    """How long the parts of a step last."""

    warm_up_s: Duration = Field(default=10.0, alias="warm_up")
    """The least; what looks like more of it in the hold is cut (MSER-5) where a step has a `hold_limit`."""
    precision: Annotated[float, Field(ge=0.002, le=0.5, strict=False)] = 0.05
    """Half of the 95 % interval of the throughput, as a share of it: a step with a `hold_limit` ends once this is reached."""
    drain_s: Duration = Field(default=120.0, alias="drain")


class StepEntry(_Table):
    """One `[[step]]` table."""

    concurrency: Annotated[int, Field(ge=1, le=10_000)]
    hold_s: Duration = Field(alias="hold")
    """With `hold_limit`: the shortest."""
    hold_limit_s: Duration | None = Field(default=None, alias="hold_limit")
    """Hold on until the throughput is known as exactly as `timing.precision` says, at most this long; None: `hold`."""
    rate_per_s: Annotated[float, Field(gt=0, le=100_000, strict=False)] | None = Field(default=None, alias="rate")

    @model_validator(mode="after")
    def _limit_is_no_shorter(self) -> "StepEntry":
        if self.hold_limit_s is not None and self.hold_limit_s < self.hold_s:
            raise ValueError(f"hold_limit: got {self.hold_limit_s:g} s, want at least hold, {self.hold_s:g} s")
        return self


class Processes(_Table):
    """Which process counts a sweep tries, and how it measures each."""

    levels: Annotated[
        tuple[Annotated[int, Field(ge=1, le=200)], ...] | None,
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ] = None
    """Every one of these, `repeats` times, in random order."""
    search: Literal["auto"] | None = None
    """Choose the levels from what was measured before."""
    max: Annotated[int, Field(ge=2, le=200)] = 16
    """Most processes the search tries; memory may bound it earlier."""
    repeats: Annotated[int, Field(ge=1, le=50)] = 3
    """Measurements of a level; the search repeats only those that decide."""
    within: Annotated[float, Field(ge=0.005, le=0.5, strict=False)] = 0.05
    """Recommend the fewest processes whose throughput is within this share of the best."""
    hold_s: Duration = Field(default=8.0, alias="hold")
    hold_limit_s: Duration = Field(default=30.0, alias="hold_limit")

    @model_validator(mode="after")
    def _one_way(self) -> "Processes":
        if (self.levels is None) == (self.search is None):
            raise ValueError('got both or none of levels and search, want one: levels = [1, 2, 4], or search = "auto"')
        if self.levels is not None and (not self.levels or len(set(self.levels)) != len(self.levels)):
            raise ValueError(f"levels: got {list(self.levels)}, want one or more different process counts")
        if self.hold_limit_s < self.hold_s:
            raise ValueError(f"hold_limit: got {self.hold_limit_s:g} s, want at least hold, {self.hold_s:g} s")
        return self


class OwnVariant(_Table):
    """A change that the user wants to try."""

    about: str = ""
    feed: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Annotated[str, Field(pattern=r"^[^\n\r{}]*$")]] = {}
    """Options of the feed's service: name to value, as `-o name=value`."""
    amavis: dict[Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$")], int | str] = {}
    """Settings of amavisd: name without the sigil to value."""
    spare: Annotated[int, Field(ge=-100, le=100)] = 0
    """Filter processes beyond the feed's."""

    @model_validator(mode="after")
    def _changes_something(self) -> "OwnVariant":
        if not self.feed and not self.amavis and not self.spare:
            raise ValueError("changes nothing; give feed, amavis or spare")
        for name in ("max_servers", "inet_socket_port", "inet_socket_bind", "pid_file", "lock_file", "forward_method"):
            if name in self.amavis:
                raise ValueError(f"amavis.{name}: the sweep and the chain need this one; try something else")
        return self


class Variants(_Table):
    """Which changes a sweep tries beside the stock settings."""

    known: bool = True
    """Try the mends this tool knows."""
    blocks: Annotated[int, Field(ge=2, le=50)] = 3
    """Rounds in which every variant and stock are measured once each, in random order."""
    own: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")], OwnVariant] = {}


_SWEEPS_ENTER_AT_THE_FRONT = 'but a sweep is about the whole chain; want "front" alone'


def _check_entries(names: object) -> object:
    """Return the names of entries as a tuple.

    Raises:
        ValueError: an unknown one, one twice, or none at all.
    """
    if not isinstance(names, list | tuple):
        return names
    if unknown := [name for name in names if name not in ENTRIES]:
        raise ValueError(f'got "{unknown[0]}", want one of {", ".join(ENTRIES)}')
    if not names or len(set(names)) != len(names):
        raise ValueError(f"got {list(names)}, want one or more different ones of {', '.join(ENTRIES)}")
    return tuple(names)


class Profile(_Table):
    """One load, whole and defaulted."""

    about: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)] = 1
    runs: Annotated[int, Field(ge=1, le=100)] = 1
    """How many runs make one result: two starts of a chain differ more than the seconds of one."""
    entries: Annotated[tuple[str, ...], BeforeValidator(_check_entries)] = ("front",)
    """Where messages are put into the chain; several: each step is taken once for each, in turn."""
    message: Message = Message()
    pacing: Pacing = Pacing()
    session: Session = Session()
    limits: Limits = Limits()
    timing: Timing = Timing()
    step: Annotated[tuple[StepEntry, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = ()
    processes: Processes | None = None
    variants: Variants | None = None
    expect: Expect = Expect()

    @model_validator(mode="after")
    def _steps_or_levels(self) -> "Profile":
        if not self.step and self.processes is None:
            raise ValueError("step: got none, want at least one [[step]] table, or [processes] for a sweep")
        if self.step and self.processes is not None:
            raise ValueError("step: got [[step]] and [processes], want one of them; a sweep makes its own steps")
        if self.variants is not None and self.processes is None:
            raise ValueError("variants: only a sweep tries them; add [processes], or remove [variants]")
        if self.processes is not None and self.pacing.kind != "delivered":
            raise ValueError(
                f'pacing.kind: got "{self.pacing.kind}", but a sweep keeps the queue full by itself; remove it'
            )
        if self.processes is not None and self.entries != ("front",):
            raise ValueError(f"entries: got {', '.join(self.entries)}, {_SWEEPS_ENTER_AT_THE_FRONT}")
        if self.processes is not None and self.runs > 1:
            raise ValueError(f"runs: got {self.runs}, but a sweep repeats its levels by itself; remove it")
        if self.processes is None and self.expect.recommended_processes is not None:
            raise ValueError("expect.recommended_processes: only a sweep recommends; add [processes], or remove it")
        return self

    @model_validator(mode="after")
    def _steps_fit_the_pacing(self) -> "Profile":
        for number, entry in enumerate(self.step, start=1):
            if self.pacing.kind == "rate" and entry.rate_per_s is None:
                raise ValueError(f'step[{number}].rate: missing; pacing.kind = "rate" needs it, such as rate = 20')
            if self.pacing.kind != "rate" and entry.rate_per_s is not None:
                raise ValueError(
                    f'step[{number}].rate: got {entry.rate_per_s:g}, but pacing.kind is "{self.pacing.kind}"; '
                    'set kind = "rate", or leave rate out'
                )
        return self

    def at_entries(self, names: Sequence[str]) -> "Profile":
        """Return the same load, put into the chain at these entries instead.

        Raises:
            ProfileError: no such entry, or a sweep.
        """
        try:
            entries = _check_entries(names)
        except ValueError as error:
            raise ProfileError(f"--entry: {error}") from None
        if self.processes is not None and entries != ("front",):
            raise ProfileError(f"--entry: got {', '.join(names)}, {_SWEEPS_ENTER_AT_THE_FRONT}")
        return self.model_copy(update={"entries": entries})

    @property
    def workload_hash(self) -> str:
        """Digest of everything that decides what is measured: equal workloads, equal hash.

        What a run is called, how often it is made, and what is expected of it do not.
        """
        text = self.model_dump_json(exclude={"about", "runs", "expect"})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def list_profiles() -> dict[str, str]:
    """Return the shipped profiles: name to TOML text, in alphabetical order."""
    entries = [entry for entry in files("profiles").iterdir() if entry.name.endswith(".toml")]
    return {e.name.removesuffix(".toml"): e.read_text("utf-8") for e in sorted(entries, key=lambda e: e.name)}


def load_profile(name_or_path: str) -> tuple[str, str, Profile]:
    """Return name, TOML text and checked value of a shipped profile or of a TOML file.

    A name without a slash and without `.toml` is a shipped profile.

    Raises:
        ProfileError: there is no such profile, or it says something wrong.
    """
    shipped = list_profiles()
    if name_or_path in shipped:
        text = shipped[name_or_path]
        return name_or_path, text, parse_profile(text, name_or_path)
    path = Path(name_or_path)
    if "/" not in name_or_path and path.suffix != ".toml":
        near = difflib.get_close_matches(name_or_path, shipped, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"shipped ones are {', '.join(shipped)}"
        raise ProfileError(f'"{name_or_path}": no such profile; {hint}')
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not UTF-8 at byte {error.start}; a profile is a TOML text file") from error
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}; shipped profiles are {', '.join(shipped)}") from error
    return path.stem, text, parse_profile(text, str(path))


def parse_profile(text: str, where: str) -> Profile:
    """Return the profile that TOML *text* describes; *where* names it in errors.

    Raises:
        ProfileError: not TOML, an unknown key, or a value outside its limits.
    """
    try:
        return check_toml(Profile, text, where)
    except ValueError as error:
        raise ProfileError(str(error)) from None
