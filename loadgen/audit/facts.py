"""What a chain's configuration says, as Postfix and amavisd themselves read it. Plain data; no file is opened here."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "AccessMap", "Facts", "FilterMap", "Hop", "Service", "listens_at", "names_in", "parse_command", "parse_hop", "parse_method",
    "split_command",
]  # fmt: skip

_HOP = re.compile(r"^(?P<transport>[^:\s]+):(?P<hop>.*)$")
_BRACKETS = re.compile(r"^\[(?P<host>[^\]]+)\](?::(?P<port>[^:]+))?$")
_BARE = re.compile(r"^(?P<host>[^:\[\]]+)(?::(?P<port>[^:]+))?$")
_OPTION = re.compile(r"^(?P<name>[a-z0-9_$][\w$.-]*)\s*=\s*(?P<value>.*)$", re.DOTALL)


@dataclass(frozen=True)
class Service:
    """One line of master.cf."""

    name: str
    kind: str
    """inet, unix, fifo, pass or unix-dgram."""
    private: str
    chroot: str
    process_limit: str
    program: str
    options: Mapping[str, str]
    """`-o name=value`."""
    words: tuple[str, ...] = ()
    """The command, word for word."""
    stray: tuple[str, ...] = ()
    """Words of the command that belong to no option: mostly what white space around "=" leaves behind."""

    @property
    def label(self) -> str:
        """Return what postconf calls it."""
        return f"{self.name}/{self.kind}"


@dataclass(frozen=True)
class Hop:
    """One place that says where mail is filtered: transport:[host]:port."""

    where: str
    text: str
    transport: str
    host: str
    """Empty: not given."""
    port: str
    bracketed: bool


@dataclass(frozen=True)
class AccessMap:
    """One `check_..._access table` of a restriction list."""

    parameter: str
    where: str
    """The parameter, with the service where it is an option."""
    kind: str
    """Such as check_recipient_access."""
    table: str
    """type:name."""
    position: int
    """In the list, from 0."""


@dataclass(frozen=True)
class FilterMap:
    """A table that sends mail to a filter by FILTER actions."""

    table: str
    parameter: str
    actions: tuple[str, ...]
    """What follows FILTER, once each."""
    access: AccessMap | None
    """None: a table of header_checks and the like."""


@dataclass(frozen=True)
class Facts:
    """Everything that a rule may ask about."""

    directory: Path
    main: Mapping[str, str]
    """Every parameter of main.cf, defaults included, expanded."""
    explicit: frozenset[str]
    """Those that main.cf itself sets."""
    services: tuple[Service, ...]
    map_types: frozenset[str] = frozenset()
    """What `postconf -m` lists."""
    filter_maps: tuple[FilterMap, ...] = ()
    access_maps: tuple[AccessMap, ...] = ()
    stale_tables: Mapping[str, str] = field(default_factory=dict)
    """Table to what is wrong with its files."""
    unread_tables: Mapping[str, str] = field(default_factory=dict)
    """Table to why its entries cannot be listed."""
    amavis: Mapping[str, Any] = field(default_factory=dict)
    """Variables of amavisd's configuration, without sigil; empty: not known."""
    amavis_unread: str = ""
    """Why they are not known."""
    postfix_version: tuple[int, ...] = ()
    feed_name: str = ""
    """What the chain file calls the feed; empty: whatever is found."""

    def find(self, name: str, kind: str) -> Service | None:
        """Return the service of that name and kind."""
        return next((one for one in self.services if (one.name, one.kind) == (name, kind)), None)

    def value(self, service: Service | None, name: str) -> str:
        """Return a parameter as *service* sees it: its own option, else main.cf's, else the default."""
        if service is not None and name in service.options:
            return self.expand(service.options[name])
        return self.main.get(name, "")

    def where(self, service: Service | None, name: str) -> str:
        """Return where the value that `value` returns is written."""
        if service is not None and name in service.options:
            return f"master.cf, {service.label}, -o {name}"
        return f"main.cf, {name}" if name in self.explicit else f"default of {name}"

    def expand(self, text: str) -> str:
        """Return *text* with `$name` and `${name}` filled in, as far as they are parameters."""
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self.main.get(found[1], found[0]), text)

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Every place that names a filter, that of main.cf first."""
        found = []
        if text := self.main.get("content_filter", ""):
            found.append(parse_hop("main.cf, content_filter", text))
        found += [
            parse_hop(f"master.cf, {service.label}, -o content_filter", text)
            for service in self.services
            if (text := self.expand(service.options.get("content_filter", "")))
        ]
        found += [
            parse_hop(f"{table.table} ({table.parameter})", action)
            for table in self.filter_maps
            for action in table.actions
        ]
        return tuple(hop for hop in found if hop is not None)

    @property
    def feeds(self) -> tuple[Service, ...]:
        """The services that hand mail to the filter, each once."""
        names = dict.fromkeys([*([self.feed_name] if self.feed_name else []), *(hop.transport for hop in self.hops)])
        return tuple(service for name in names if (service := self.find(name, "unix")) is not None)

    @property
    def reinjection(self) -> Service | None:
        """The service that takes mail back: where amavisd forwards to, else the one without a filter of its own."""
        place = parse_method(str(self.amavis.get("forward_method") or ""))
        for service in self.services:
            if place is not None and service.kind == "inet" and listens_at(service, place):
                return service
        filtered = {hop.where for hop in self.hops}
        for service in self.services:
            if service.kind == "inet" and service.options.get("content_filter") == "":
                return service
        loopback = [
            one for one in self.services if one.kind == "inet" and one.name.startswith(("127.", "localhost:", "[::1]"))
        ]
        return next((one for one in loopback if f"master.cf, {one.label}, -o content_filter" not in filtered), None)

    @property
    def listeners(self) -> tuple[Service, ...]:
        """The smtpd services that take mail from outside, the one that takes it back aside."""
        back = self.reinjection
        return tuple(one for one in self.services if one.kind == "inet" and one.program == "smtpd" and one is not back)


def split_command(text: str) -> tuple[str, ...]:
    """Return the words of a command of master.cf, as postconf shows it; braces hold one word together."""
    return tuple(re.findall(r"\{[^}]*\}|\S+", text))


def parse_command(words: Sequence[str]) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Return program, options and stray words of a command."""
    options: dict[str, str] = {}
    program, stray = (words[0] if words else ""), []
    position = 1
    while position < len(words):
        word = words[position]
        if word == "-o" and position + 1 < len(words):
            position += 1
            setting = words[position]
            inner = setting[1:-1].strip() if setting.startswith("{") else setting
            found = _OPTION.match(inner)
            if found is not None:
                options[found["name"]] = found["value"].strip()
            else:
                stray.append(setting)
        elif not re.fullmatch(r"-[a-zA-Z]+", word):
            stray.append(word)
        position += 1
    return program, options, tuple(stray)


def parse_hop(where: str, text: str) -> Hop | None:
    """Return what transport:nexthop in *text* says; None for none at all."""
    found = _HOP.match(text.strip())
    if found is None:
        return Hop(where, text, text.strip(), "", "", False) if text.strip() else None
    for pattern, bracketed in ((_BRACKETS, True), (_BARE, False)):
        if (place := pattern.match(found["hop"].strip())) is not None:
            return Hop(where, text, found["transport"], place["host"], place["port"] or "", bracketed)
    return Hop(where, text, found["transport"], found["hop"], "", False)


def parse_method(text: str) -> tuple[str, str] | None:
    """Return host and port of one of amavisd's methods, such as smtp:[127.0.0.1]:10025."""
    found = re.match(r"^\w+:\[?(?P<host>[^\]:]+)\]?:(?P<port>[\w*]+)", text)
    return (found["host"], found["port"]) if found is not None else None


def listens_at(service: Service, place: tuple[str, str]) -> bool:
    """Return whether *service* (inet) takes connections at host and port."""
    host, _, port = service.name.rpartition(":")
    host = host.strip("[]")
    near = ("127.0.0.1", "localhost", "::1", "*")
    return port == place[1] and (host in ("", "0.0.0.0", "::", place[0]) or (host in near and place[0] in near))


def names_in(text: str) -> Iterator[str]:
    """Yield the words of a list, separated by commas or white space."""
    yield from (word for word in re.split(r"[\s,]+", text) if word)
