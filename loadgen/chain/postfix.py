"""Postfix: starting and stopping an instance, its settings read and changed. `postconf` is called only here."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from loadgen.chain.feed import FeedState, FeedText
from loadgen.chain.spec import Address
from loadgen.errors import ChainError

__all__ = [
    "ask_postconf",
    "ask_postmap",
    "find_postfix",
    "find_sendmail",
    "find_transport",
    "index_table",
    "list_listeners",
    "postfix_version",
    "read_default",
    "read_feed",
    "read_main",
    "read_options",
    "read_settings",
    "reload_postfix",
    "start_postfix",
    "stop_postfix",
    "write_feed",
]


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


def index_table(config_directory: Path, path: Path) -> None:
    """Make the index of a table of type hash from its source at *path*.

    Raises:
        ChainError: with what postmap said.
    """
    result = _run(["postmap", "-c", str(config_directory), f"hash:{path}"])
    if result.returncode:
        raise ChainError(f"postmap {path}: {result.stderr.strip()[-300:]}")


def read_main(config_directory: Path | None, *names: str) -> list[str]:
    """Return the values of main.cf parameters, expanded; None: Postfix's own default directory (or MAIL_CONFIG).

    Raises:
        ChainError: postconf cannot read it.
    """
    where = () if config_directory is None else ("-c", str(config_directory))
    result = _run(["postconf", *where, "-xh", *names])
    if result.returncode:
        said = result.stderr.strip()
        hint = "; configure Postfix, or give a chain file with --chain" if "main.cf: No such file" in said else ""
        raise ChainError(f"{said}{hint}")
    return result.stdout.splitlines()


def read_default(name: str) -> str:
    """Return what this Postfix was built with, whatever a configuration says.

    Raises:
        ChainError: postconf does not know it.
    """
    result = _run(["postconf", "-dh", name])
    if result.returncode:
        raise ChainError(f"postconf -dh {name}: {result.stderr.strip()}; is the postfix package whole?")
    return result.stdout.strip()


def read_options(config_directory: Path, option: str) -> dict[tuple[str, str], str]:
    """Return service and type to the value of `-o option=value`, for the services that have it."""
    return {key[:2]: value for key, value in _read_master(config_directory, "-P").items() if key[2] == option}


def list_listeners(config_directory: Path, program: str) -> list[Address]:
    """Return where the inet services listen that run *program*, in the order of master.cf; all interfaces: 127.0.0.1.

    Raises:
        ChainError: postconf cannot read the directory.
    """
    found = []
    for (service, kind, name), value in _read_master(config_directory, "-F").items():
        if kind != "inet" or name != "command" or value.split()[0] != program:
            continue
        host, _, port = service.rpartition(":")
        number = _port_number(port)
        if number is not None:
            host = host.removeprefix("[").removesuffix("]")
            anywhere = host in ("", "0.0.0.0", "::", "localhost")
            found.append(Address(host="127.0.0.1" if anywhere else host, port=number))
    return found


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


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run one of Postfix's commands in a session of its own, so that Ctrl-C reaches only us."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"}
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, start_new_session=True, env=environment,
        timeout=60, check=False,
    )  # fmt: skip
