"""Postfix: the private instance's configuration, starting and stopping it; any instance's settings, read and changed.

The configuration is that of the integration guide, sections 2.2 and 2.3, on
loopback ports, with what the guide lacks for a measurement: long queue ids,
a log file of its own, XFORWARD accepted at reinjection (so that both passes
of a message can be joined), and destination limits out of the way of maxproc.
`postconf` is called only here.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from loadgen.chain.feed import FeedState, FeedText
from loadgen.chain.spec import Address
from loadgen.errors import ChainError

__all__ = [
    "DEFAULT_PROCESS_LIMIT",
    "FEED",
    "ask_postconf",
    "ask_postmap",
    "find_postfix",
    "find_sendmail",
    "find_transport",
    "postfix_version",
    "read_feed",
    "read_main",
    "read_options",
    "read_settings",
    "reload_postfix",
    "start_postfix",
    "stop_postfix",
    "write_configuration",
    "write_feed",
]

FEED = "amavisfeed"

DEFAULT_PROCESS_LIMIT = 150
"""Of a private instance: every session of the generator needs an smtpd, and this is the backlog of every master socket."""

_SERVICES = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_REINJECTION_OPTIONS = (
    "content_filter=",
    "smtpd_delay_reject=no",
    "smtpd_client_restrictions=permit_mynetworks,reject",
    "smtpd_helo_restrictions=",
    "smtpd_sender_restrictions=",
    "smtpd_recipient_restrictions=permit_mynetworks,reject",
    "smtpd_relay_restrictions=permit_mynetworks,reject",
    "smtpd_data_restrictions=reject_unauth_pipelining",
    "smtpd_end_of_data_restrictions=",
    "smtpd_restriction_classes=",
    "mynetworks=127.0.0.0/8",
    "smtpd_error_sleep_time=0",
    "smtpd_soft_error_limit=1001",
    "smtpd_hard_error_limit=1000",
    "smtpd_client_connection_count_limit=0",
    "smtpd_client_connection_rate_limit=0",
    "receive_override_options=no_header_body_checks,no_unknown_recipient_checks,no_milters",
    "local_header_rewrite_clients=",
    "smtpd_milters=",
    "local_recipient_maps=",
    "relay_recipient_maps=",
    "smtpd_authorized_xforward_hosts=127.0.0.0/8",
)
_FEED_OPTIONS = (
    "lmtp_data_done_timeout=1200",
    "lmtp_send_xforward_command=yes",
    "lmtp_tls_note_starttls_offer=no",
)


def find_postfix() -> str | None:
    """Return the path of `postfix`, or None where it is not installed."""
    return shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def find_sendmail() -> str | None:
    """Return the path of Postfix's `sendmail`, or None where it is not installed."""
    return shutil.which("sendmail", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib")


def postfix_version() -> str | None:
    """Return Postfix's version, or None where it is not installed."""
    if find_postfix() is None:
        return None
    # -d needs no main.cf, which Debian does not ship before the package is configured
    result = _run(["postconf", "-dh", "mail_version"])
    return result.stdout.strip() or None


def write_configuration(
    directory: Path, *, front: Address, reinjection: Address, filter_: Address, sink: Address, processes: int,
    feed_options: Mapping[str, str], more_services: str = "",
) -> None:  # fmt: skip
    """Write `etc/main.cf` and `etc/master.cf` of a private instance below *directory*, and make its directories.

    *more_services* are lines of master.cf as they are.
    """
    etc = directory / "etc"
    for name in ("etc", "spool", "data", "log"):
        (directory / name).mkdir()
    shutil.chown(directory / "data", "postfix")
    limit = max(processes, 20)
    main = {
        "compatibility_level": "3.6",
        "queue_directory": directory / "spool",
        "data_directory": directory / "data",
        "command_directory": _postconf_default("command_directory"),
        "daemon_directory": _postconf_default("daemon_directory"),
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        "syslog_name": directory.name,
        "maillog_file": directory / "log" / "maillog",
        "maillog_file_prefixes": directory,
        "enable_long_queue_ids": "yes",
        "myhostname": "mx.lab.test",
        "mydestination": "",
        "mynetworks": "127.0.0.0/8",
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "alias_maps": "",
        "local_recipient_maps": "",
        "notify_classes": "",
        "smtpd_peername_lookup": "no",
        "smtp_dns_support_level": "disabled",
        "default_process_limit": DEFAULT_PROCESS_LIMIT,
        "content_filter": f"{FEED}:[{filter_.host}]:{filter_.port}",
        f"{FEED}_destination_concurrency_limit": limit,
        f"{FEED}_initial_destination_concurrency": limit,
        "relayhost": f"[{sink.host}]:{sink.port}",
    }
    (etc / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
    (etc / "master.cf").write_text(
        f"{front} inet n - n - - smtpd\n"
        + _SERVICES
        + f"{FEED} unix - - n - {processes} lmtp\n"
        + "".join(f"    -o {option}\n" for option in _FEED_OPTIONS)
        + "".join(f"    -o {name}={value}\n" for name, value in feed_options.items())
        + f"{reinjection} inet n - n - - smtpd\n"
        + "".join(f"    -o {option}\n" for option in _REINJECTION_OPTIONS)
        + more_services
    )


def start_postfix(config_directory: Path) -> None:
    """Start the instance; returns when its master process runs.

    Raises:
        ChainError: with what `postfix start` or the log said.
    """
    result = _run(["postfix", "-c", str(config_directory), "start"])
    if result.returncode:
        log = config_directory.parent / "log" / "maillog"
        tail = log.read_text(errors="replace")[-500:] if log.is_file() else ""
        raise ChainError(
            f"{config_directory}: postfix start: exit {result.returncode}: {result.stderr.strip()} {tail}".strip()
        )


def stop_postfix(config_directory: Path) -> None:
    """Stop the instance at once; nothing happens when it does not run."""
    _run(["postfix", "-c", str(config_directory), "abort"])


def read_settings(config_directory: Path) -> dict[str, str]:
    """Return main.cf (explicit settings) and master.cf as Postfix itself reads them, by name of the file.

    Raises:
        ChainError: postconf cannot read the directory.
    """
    texts = {}
    for name, flag in (("main.cf", "-n"), ("master.cf", "-Mf")):
        result = _run(["postconf", "-c", str(config_directory), flag])
        if result.returncode:
            raise ChainError(f"{config_directory}: postconf {flag}: {result.stderr.strip()}")
        texts[name] = result.stdout
    return texts


def read_feed(config_directory: Path, feed: str, reinjection: Address | None) -> FeedState:
    """Return the settings of the service *feed* (type unix), and of the one that takes mail back at *reinjection*.

    Raises:
        ChainError: postconf cannot read the directory, or there is no such service.
    """
    fields = _read_master(config_directory, "-F")
    if (feed, "unix", "process_limit") not in fields:
        raise ChainError(f'{config_directory}/master.cf: no service "{feed} unix"; name the feed with postfix.feed')
    names = _main_parameters(feed)
    default, limit, initial = (
        int(text) for text in _postconf(config_directory, "-xh", "default_process_limit", *names).stdout.splitlines()
    )
    back = None if reinjection is None else _find_listener(fields, reinjection)
    text = FeedText(
        service=feed,
        process_limit=fields[feed, "unix", "process_limit"],
        options=tuple(
            sorted((k[2], v) for k, v in _read_master(config_directory, "-P").items() if k[:2] == (feed, "unix"))
        ),
        destination_limit=_explicit(config_directory, names[0]),
        initial_concurrency=_explicit(config_directory, names[1]),
        reinjection=back,
        reinjection_limit="-" if back is None else fields[back, "inet", "process_limit"],
    )
    return FeedState(
        text=text,
        command=fields[feed, "unix", "command"].split()[0],
        processes=_process_limit(text.process_limit, default),
        destination_concurrency=limit or None,  # 0 means no limit, as it does for processes
        initial_concurrency=initial,
        reinjection_processes=None if back is None else _process_limit(text.reinjection_limit, default),
    )


def write_feed(config_directory: Path, wanted: FeedText, present: FeedText) -> None:
    """Make both files say what is *wanted*, touching only what differs from the *present*; in force after a reload.

    With the two swapped it puts back what was there.

    Raises:
        ChainError: Postfix knows no such option (nothing is written then), or postconf fails (part may be).
    """
    service, had, want = f"{wanted.service}/unix", dict(present.options), dict(wanted.options)
    for name in want.keys() - had.keys():
        if "unknown parameter" in _postconf(config_directory, "-dh", name).stderr:
            raise ChainError(f'{service}: -o {name}={want[name]}: Postfix knows no "{name}", so it would do nothing')
    changes: dict[str, list[str]] = {"-F": [], "-P": [], "-PX": [], "-e": [], "-X": []}
    if wanted.process_limit != present.process_limit:
        changes["-F"].append(f"{service}/process_limit={wanted.process_limit}")
    if wanted.reinjection_limit != present.reinjection_limit:
        changes["-F"].append(f"{wanted.reinjection}/inet/process_limit={wanted.reinjection_limit}")
    changes["-P"] += [f"{service}/{name}={value}" for name, value in want.items() if had.get(name) != value]
    changes["-PX"] += [f"{service}/{name}" for name in had if name not in want]
    values = zip(
        _main_parameters(wanted.service),
        (wanted.destination_limit, wanted.initial_concurrency),
        (present.destination_limit, present.initial_concurrency),
        strict=True,
    )
    for name, value, old in values:
        if value is None and old is not None:
            changes["-X"].append(name)
        elif value is not None and value != old:
            changes["-e"].append(f"{name}={value}")
    for flag, arguments in changes.items():
        if arguments:
            _postconf(config_directory, flag, *arguments)


def reload_postfix(config_directory: Path) -> None:
    """Let the instance read its configuration again; its old processes end as soon as they are idle.

    Raises:
        ChainError: with what `postfix reload` said; the old settings then stay in force.
    """
    # a relative directory would make it fail
    result = _run(["postfix", "-c", str(config_directory.absolute()), "reload"])
    if result.returncode:
        said = result.stderr.strip() or "its log says why"
        raise ChainError(f"{config_directory}: postfix reload: exit {result.returncode}: {said}")


def ask_postconf(config_directory: Path, *arguments: str) -> str:
    """Return what `postconf` prints about an instance.

    Raises:
        ChainError: it cannot read the directory, or does not know the question.
    """
    return _postconf(config_directory, *arguments).stdout


def ask_postmap(config_directory: Path, *arguments: str) -> str:
    """Return what `postmap` prints.

    Raises:
        ChainError: with what it said.
    """
    result = _run(["postmap", "-c", str(config_directory), *arguments])
    if result.returncode:
        raise ChainError(f"postmap {' '.join(arguments)}: {result.stderr.strip()[-300:]}")
    return result.stdout


def read_main(config_directory: Path | None, *names: str) -> list[str]:
    """Return the values of main.cf parameters, expanded; None: Postfix's own default directory (or MAIL_CONFIG).

    Raises:
        ChainError: postconf cannot read it.
    """
    where = () if config_directory is None else ("-c", str(config_directory))
    result = _run(["postconf", *where, "-xh", *names])
    if result.returncode:
        raise ChainError(f"postconf: {result.stderr.strip()}")
    return result.stdout.splitlines()


def read_options(config_directory: Path, option: str) -> dict[tuple[str, str], str]:
    """Return service and type to the value of `-o option=value`, for the services that have it."""
    return {key[:2]: value for key, value in _read_master(config_directory, "-P").items() if key[2] == option}


def find_transport(config_directory: Path, domain: str) -> str:
    """Return what transport_maps say of *domain*, such as "smtp:[127.0.0.1]:11026"; empty when nothing.

    Raises:
        ChainError: postconf cannot read the directory.
    """
    (maps,) = read_main(config_directory, "transport_maps")
    for table in re.findall(r"[a-z_]+:(?:\{[^}]*\}|[^\s,]+)", maps):
        result = _run(["postmap", "-c", str(config_directory), "-q", domain, table])
        if result.returncode == 0 and result.stdout.strip():
            return result.stdout.strip()
    return ""


def _main_parameters(feed: str) -> tuple[str, str]:
    """Return the names of the two limits that are the queue manager's; as `-o` in master.cf they would do nothing."""
    return f"{feed}_destination_concurrency_limit", f"{feed}_initial_destination_concurrency"


def _read_master(config_directory: Path, flag: str) -> dict[tuple[str, str, str], str]:
    """Return what `postconf -F` (fields) or `-P` (options) prints, by service, type and name."""
    found = {}
    for line in _postconf(config_directory, flag).stdout.splitlines():
        key, _, value = line.partition(" =")
        service, kind, name = key.rsplit("/", 2)
        found[service, kind, name] = value.strip()
    return found


def _find_listener(fields: dict[tuple[str, str, str], str], address: Address) -> str | None:
    """Return the inet service that listens at *address*: one bound to that host before one bound to all."""
    bound: dict[str, str] = {}
    for service, kind, name in fields:
        host, _, port = service.rpartition(":")
        if kind == "inet" and name == "service" and _port_number(port) == address.port:
            bound[host.removeprefix("[").removesuffix("]")] = service
    near = ("localhost",) if address.host in ("127.0.0.1", "::1") else ()
    return next((bound[host] for host in (address.host, *near, "", "0.0.0.0", "::") if host in bound), None)


def _port_number(port: str) -> int | None:
    try:
        return int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
    except OSError:
        return None


def _process_limit(text: str, default: int) -> int | None:
    return (default if text == "-" else int(text)) or None


def _explicit(config_directory: Path, name: str) -> str | None:
    """Return a value as main.cf has it, or None when main.cf does not have it."""
    line = _postconf(config_directory, "-n", name).stdout
    return line.partition("=")[2].strip() if line.strip() else None


def _postconf(config_directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    result = _run(["postconf", "-c", str(config_directory), *arguments])
    if result.returncode:
        raise ChainError(f"{config_directory}: postconf {' '.join(arguments)}: {result.stderr.strip()}")
    return result


def _postconf_default(name: str) -> str:
    result = _run(["postconf", "-dh", name])
    if result.returncode:
        raise ChainError(f"postconf -dh {name}: {result.stderr.strip()}; is the postfix package whole?")
    return result.stdout.strip()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run one of Postfix's commands in a session of its own, so that Ctrl-C reaches only us."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"}
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, start_new_session=True, env=environment,
        timeout=60, check=False,
    )  # fmt: skip
