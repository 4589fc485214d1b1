"""Find the chain that this host has, from Postfix's own settings, amavisd's evaluation of its own, and its processes.

What is found becomes a `Chain`, or a chain file with a comment on each key;
what cannot be found is named with the key to set. Only what a measurement needs is looked for.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from loadgen.chain import postfix
from loadgen.chain.amavis_reading import read_amavis
from loadgen.chain.spec import Address, AmavisParts, Chain, PostfixParts
from loadgen.errors import ChainError

__all__ = [
    "Discovery",
    "discover",
    "find_amavis_configuration",
    "find_local_chain",
    "find_mail_log",
    "make_local_chain",
    "render_chain_file",
]

_PID_FILES = (
    "/run/amavis/amavisd.pid",
    "/var/run/amavis/amavisd.pid",
    "/var/run/amavisd/amavisd.pid",
    "/var/amavis/amavisd.pid",
)
_CONFIGURATIONS = ("/etc/amavis/conf.d", "/etc/amavisd/amavisd.conf", "/etc/amavisd.conf")
_MAIL_LOGS = ("/var/log/mail.log", "/var/log/maillog")
_NEXT_HOP = re.compile(r"^(?P<transport>[^:]+):\[?(?P<host>[^\]:]+)\]?:(?P<port>\d+)$")
_SUBMISSION_PORTS = (587, 465)

_KEYS: tuple[tuple[str, str], ...] = (
    ("front", "where mail comes in"),
    ("sink", "where mail for the load's recipient domain is delivered to: loadgen listens there during a run"),
    ("filter", "where amavisd listens"),
    ("reinjection", "where it hands mail back"),
    ("submission", "where users of the host hand in their mail; only for --entry submission"),
    ("feed_processes", "messages that the feed hands over at once"),
    ("filter_servers", "$max_servers of amavisd"),
    ("destination_concurrency_limit", "of the feed, in main.cf"),
    ("reinjection_processes", "most processes of the service that takes mail back"),
    ("postfix.config_directory", "of Postfix"),
    ("postfix.queue_directory", "its queue is counted there"),
    ("postfix.maillog", "its log; without it messages cannot be followed"),
    ("postfix.syslog_name", "how its lines begin in that log"),
    ("postfix.feed", "service in master.cf that feeds the filter"),
    ("amavis.pid_file", "of amavisd; its processes are found by it"),
    ("amavis.log", "its own log; left out where it logs to the mail log"),
    ("amavis.configuration", "its configuration, a file or Debian's directory"),
)
"""What a chain file can say of a chain that runs already, and what each is for people."""

_NEEDED = ("filter", "reinjection", "front", "sink", "feed_processes", "amavis.pid_file")
"""Without one of these nothing is measured."""


@dataclass
class Discovery:
    """What was found of a chain, and what was not."""

    found: dict[str, Any] = field(default_factory=dict)
    """Key of the chain file, with its table, to value."""
    missing: dict[str, str] = field(default_factory=dict)
    """Key to why it was not found, and what to do."""

    def look(self, key: str, find: Callable[[], Any]) -> Any:
        """Note what *find* returns under *key*, or why it could not be found; return the value or None."""
        try:
            value = find()
        except ChainError as error:
            self.missing[key] = str(error)
            return None
        if value is not None:
            self.found[key] = value
        return value


def find_local_chain(domain: str) -> Chain:
    """Return the chain of this host that takes mail for *domain* through a filter to our sink.

    Raises:
        ChainError: no Postfix here, no filter configured, or the domain is not routed to a sink; says what to do.
    """
    return make_local_chain(discover(domain))


def make_local_chain(known: Discovery) -> Chain:
    """Return the chain that was found.

    Raises:
        ChainError: something without which nothing is measured was not; says what to do.
    """
    for key in _NEEDED:
        if key in known.missing:
            raise ChainError(f"local: {known.missing[key]}")
    found = known.found
    tables: dict[str, dict[str, Any]] = {"": {}, "postfix": {}, "amavis": {}}
    for key, value in found.items():
        table, _, name = key.rpartition(".")
        tables[table][name] = value
    same = found.get("feed_processes") if found.get("feed_processes") == found.get("filter_servers") else None
    etc = found["postfix.config_directory"]
    return Chain(
        kind="local", name="local", about=f"the Postfix in {etc} and the amavisd of this host", processes=same,
        postfix=PostfixParts(**tables["postfix"]), amavis=AmavisParts(**tables["amavis"]), **tables[""],
    )  # fmt: skip


def discover(domain: str, filtering: str = "", amavis: dict[str, Any] | None = None) -> Discovery:
    """Return what can be found of this host's chain.

    Args:
        domain: Recipient domain of the load.
        filtering: transport:[host]:port of a filter that only a table names; empty: where main.cf and master.cf say.
        amavis: Settings as amavisd evaluates them, where it has been asked already; None: it is asked.

    Raises:
        ChainError: no Postfix on this host.
    """
    if postfix.find_postfix() is None:
        raise ChainError("local: no Postfix on this host; give a chain file, or use --chain lab")
    directory, queue, content_filter, log, syslog_name = postfix.read_main(
        None, "config_directory", "queue_directory", "content_filter", "maillog_file", "syslog_name"
    )
    etc = Path(directory)
    known = Discovery({"postfix.config_directory": etc, "postfix.queue_directory": Path(queue)})
    known.found["postfix.syslog_name"] = syslog_name
    values = _find_amavis(known, amavis)
    feed, filter_ = known.look("filter", lambda: _find_filter(etc, content_filter, filtering)) or ("", None)
    if filter_ is not None:
        known.found |= {"filter": filter_, "postfix.feed": feed}
    forward = "" if content_filter else str(values.get("forward_method") or "")
    back = known.look("reinjection", lambda: _find_reinjection(etc, forward))
    known.look("front", lambda: _find_front(etc, back))
    known.look("submission", lambda: _find_submission(etc))
    known.look("sink", lambda: _find_sink(etc, domain))
    known.look("postfix.maillog", lambda: find_mail_log(log))
    if feed:
        state = known.look("feed_processes", lambda: postfix.read_feed(etc, feed, back))
        if state is not None:
            limits = {
                "feed_processes": state.width, "destination_concurrency_limit": state.destination_concurrency,
                "reinjection_processes": state.reinjection_processes,
            }  # fmt: skip
            known.found |= limits
    known.found = {key: value for key, value in known.found.items() if value is not None}
    return known


def render_chain_file(known: Discovery) -> str:
    """Return a chain file (TOML) with what was found, a comment on each key, and a commented line for what was not."""
    lines = ["# The chain of this host, as 'loadgen check --write' found it."]
    table = ""
    for key, about in _KEYS:
        place, _, name = key.rpartition(".")
        if key not in known.found and key not in known.missing:
            continue
        if place != table:
            table = place
            lines += ["", f"[{place}]"]
        if key in known.found:
            lines.append(f"{name} = {_render(known.found[key])}  # {about}")
        else:
            lines += [f"# not found: {known.missing[key]}", f"# {name} =  # {about}"]
    return "\n".join(lines) + "\n"


def _render(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _find_filter(etc: Path, content_filter: str, filtering: str) -> tuple[str, Address]:
    """Return the feed's name and where it hands mail to: as main.cf says, else a service of master.cf, else *filtering*."""
    own = [value for value in postfix.read_options(etc, "content_filter").values() if value]
    for text in (content_filter, *own, filtering):
        if (hop := _NEXT_HOP.match(text)) is not None:
            return hop["transport"], Address(host=_literal(hop["host"]), port=int(hop["port"]))
    raise ChainError(
        f'content_filter is "{content_filter}", want transport:[host]:port, such as amavisfeed:[127.0.0.1]:10024; '
        "describe a chain that filters in another way in a chain file"
    )


def _find_reinjection(etc: Path, forward_method: str) -> Address:
    """Return where the filter hands mail back: the inet service without a content filter, else where amavisd says."""
    for (service, kind), value in postfix.read_options(etc, "content_filter").items():
        if kind == "inet" and not value:
            host, _, port = service.rpartition(":")
            if port.isdigit():
                return Address(host=_literal(host.strip("[]") or "127.0.0.1"), port=int(port))
    if (hop := _NEXT_HOP.match(forward_method)) is not None:
        return Address(host=_literal(hop["host"]), port=int(hop["port"]))
    raise ChainError(
        f"{etc}/master.cf: no inet service with -o content_filter= (where the filter hands mail back); "
        "name it with reinjection in a chain file"
    )


def _find_front(etc: Path, reinjection: Address | None) -> Address:
    """Return where mail comes in: the smtpd on port 25, else the first that is none of the others."""
    places = [
        place
        for place in postfix.list_listeners(etc, "smtpd")
        if place.port not in _SUBMISSION_PORTS and place != reinjection
    ]
    for place in sorted(places, key=lambda one: one.port != 25):  # stable: otherwise in the order of the file
        return place
    raise ChainError(f"{etc}/master.cf: no smtpd that takes mail from outside; name its address with front")


def _find_submission(etc: Path) -> Address | None:
    return next((one for one in postfix.list_listeners(etc, "smtpd") if one.port == _SUBMISSION_PORTS[0]), None)


def _find_sink(etc: Path, domain: str) -> Address:
    transport = postfix.find_transport(etc, domain)
    hop = _NEXT_HOP.match(transport)
    if hop is None:
        raise ChainError(
            f'{domain} is not routed to a sink (transport_maps say "{transport}"); route it to an address where loadgen '
            f"can listen, for example: postconf -e 'transport_maps=inline:{{ {domain}=smtp:[127.0.0.1]:11026 }}' "
            f"'relay_domains={domain}', then postfix reload"
        )
    return Address(host=_literal(hop["host"]), port=int(hop["port"]))


def _find_amavis(known: Discovery, asked: dict[str, Any] | None) -> dict[str, Any]:
    """Note what is known of amavisd, and return its settings as it evaluates them; none where it cannot."""
    configuration = find_amavis_configuration()
    values, why = (asked, "") if asked is not None else read_amavis(configuration)
    if configuration is not None:
        known.found["amavis.configuration"] = configuration
    pid_file = known.look("amavis.pid_file", lambda: _find_pid_file(str(values.get("pid_file") or "")))
    if pid_file is not None:
        with_children = known.look("filter_servers", lambda: _count_children(pid_file))
        known.found["filter_servers"] = with_children or values.get("max_servers")
    if why:
        known.missing.setdefault("amavis.log", f"{why}; name its log, unless it logs to the mail log")
    elif values and not int(values.get("do_syslog") or 0) and values.get("logfile"):
        known.found["amavis.log"] = Path(str(values["logfile"]))
    return values


def _find_pid_file(named: str) -> Path:
    for path in map(Path, (*([named] if named else []), *_PID_FILES)):
        if path.is_file():
            return path
    raise ChainError(f"no amavisd runs (no {' or '.join(_PID_FILES)}); name its amavis.pid_file in a chain file")


def _count_children(pid_file: Path) -> int:
    try:
        return len(psutil.Process(int(pid_file.read_text().split()[0])).children())
    except (OSError, ValueError, IndexError, psutil.Error) as error:
        raise ChainError(f"{pid_file}: {error}; is amavisd running?") from error


def find_amavis_configuration() -> Path | None:
    """Return the configuration file of this host's amavisd, or Debian's directory of it; None where there is none."""
    return next((path for path in map(Path, _CONFIGURATIONS) if path.exists()), None)


def find_mail_log(named: str) -> Path:
    """Return the mail log: the one that main.cf has *named*, else where syslog puts it.

    Raises:
        ChainError: there is none.
    """
    path = Path(named) if named else next((path for path in map(Path, _MAIL_LOGS) if path.is_file()), None)
    if path is None:
        raise ChainError(
            f"no mail log ({' or '.join(_MAIL_LOGS)}); where only journald has it, let Postfix write its own: "
            "postconf -e maillog_file=/var/log/mail.log"
        )
    return path


def _literal(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host
