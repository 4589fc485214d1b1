"""The lab: a private, real Postfix and amavisd on loopback ports, up in seconds and gone without trace.

Owns the directory in which every lab has a place of its own, the choice of
ports, bringing up, taking down, and finding what a crash left behind. The
system's own Postfix and amavisd are never touched: every command names the
lab's configuration, and a process is only ended when it has files of this lab
open. A lab belongs to the process that made it, or, after `loadgen lab up`,
to nobody until `loadgen lab down`.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadgen.chain import amavis, postfix, submission
from loadgen.chain.journal import forget_below
from loadgen.chain.layout import DEFAULT_PROCESS_LIMIT, FEED, Layout, Places, find_entry_options, write_postfix
from loadgen.chain.ports import find_free_ports, wait_for_banner
from loadgen.chain.spec import Address, AmavisParts, Chain, PostfixParts
from loadgen.errors import ChainError

__all__ = [
    "LABS",
    "Lab",
    "bring_up",
    "find_lacks",
    "list_labs",
    "missing_requirements",
    "remove_abandoned",
    "take_down",
]

LABS = Path("/var/lib/loadgen/labs")
"""On the system's own disk, not in memory: the queue's fsync belongs to the measurement."""

_LISTENERS = ("front", "filter", "reinjection", "sink")

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Lab:
    """One lab as its directory describes it."""

    name: str
    directory: Path
    chain: Chain
    owner: int | None
    """Process that made it and will take it down; None: kept until `lab down`."""
    owner_started_at: float | None
    running: bool
    """Both daemons are alive."""

    @property
    def abandoned(self) -> bool:
        """Nobody will take it down: its owner is gone, or it is kept but no longer runs."""
        if self.owner is None:
            return not self.running
        return not _is_alive(self.owner, self.owner_started_at)


def missing_requirements() -> list[str]:
    """Return what keeps a lab from running here, in words; empty when it can run."""
    missing = []
    if os.geteuid() != 0:
        missing.append("root (Postfix starts only as root)")
    if postfix.find_postfix() is None:
        missing.append("Postfix (package postfix)")
    if amavis.find_amavisd() is None:
        missing.append("amavisd (package amavisd-new)")
    if amavis.spamassassin_version() is None:
        missing.append("SpamAssassin (package spamassassin)")
    return missing


def find_lacks(chain: Chain) -> dict[str, str]:
    """Return the stations that a lab could have and this one has not: name to what to do about it."""
    if chain.submission is not None:
        return {}
    missing = ", ".join(submission.find_missing()) or "nothing any more"
    return {"submission": f"when the lab was made it missed packages (now: {missing}); see 'loadgen lab install'"}


def bring_up(
    *,
    processes: int,
    filter_servers: int | None = None,
    layout: Layout | None = None,
    feed_options: Mapping[str, str] | None = None,
    wait_s: float = 0.0,
    keep: bool = False,
    name: str | None = None,
) -> Lab:
    """Bring up a lab and return it once all its stations answer.

    Labs left behind by a crash are removed first.

    Args:
        processes: maxproc of the feed, and $max_servers of amavisd unless that is given.
        filter_servers: $max_servers of amavisd where the two sides are to differ.
        layout: Which of the guide's variants it is; None: the recommended one.
        feed_options: `-o` options of the feed besides the guide's.
        wait_s: What every scan waits without using a CPU, as look-ups and scanners of others make it.
        keep: Leave it up when this process ends.
        name: Directory name below `LABS`; default: a free number.

    Raises:
        ChainError: something is missing, the name is taken, or a daemon does not start.
    """
    if missing := missing_requirements():
        raise ChainError(f"lab: missing {', '.join(missing)}; see 'loadgen lab install', or use --chain reference")
    remove_abandoned()
    directory, chain = _claim(
        processes, filter_servers or processes, layout or Layout(), feed_options or {}, wait_s, name
    )
    try:
        with ThreadPoolExecutor() as pool:
            starts = [
                pool.submit(amavis.start_amavisd, directory / "amavisd.conf"),
                pool.submit(postfix.start_postfix, directory / "etc"),
            ]
            for start in starts:
                start.result()
        assert chain.filter is not None  # noqa: S101 (set by _claim)
        assert chain.reinjection is not None  # noqa: S101 (set by _claim)
        wait_for_banner(chain.filter, "lab's amavisd", _START_TIMEOUT_S)
        wait_for_banner(chain.reinjection, "lab's reinjection smtpd", _START_TIMEOUT_S)
        wait_for_banner(chain.front, "lab's front smtpd", _START_TIMEOUT_S)
        if keep:
            (directory / "chain.toml").write_text(_describe_as_file(chain))
            _write_state(directory, chain, owner=None)
    except BaseException:
        take_down(directory)
        raise
    return _read_lab(directory)


def take_down(directory: Path) -> None:
    """End the lab's daemons and remove its directory; what is already gone is no error.

    Raises:
        ChainError: *directory* is not a lab.
    """
    if directory.parent != LABS:
        raise ChainError(f"{directory}: not a lab; labs live in {LABS}")
    if (directory / "etc" / "main.cf").is_file() and postfix.find_postfix():
        postfix.stop_postfix(directory / "etc")
    # amavisd's own stop command waits for seconds; nothing here is worth waiting for
    left = [p for pid in _processes_using(directory) if (p := _find_process(pid)) is not None]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(left, timeout=_STOP_TIMEOUT_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_STOP_TIMEOUT_S)
    forget_below(directory)
    shutil.rmtree(directory, ignore_errors=True)
    # a process that was just killed may have been creating a file
    if directory.exists():
        shutil.rmtree(directory)


def remove_abandoned() -> list[str]:
    """Take down labs that a crash left behind, half-made ones included; return their names."""
    removed = []
    if LABS.is_dir():
        with _locked():
            # under the lock a lab has its state from the moment its directory exists
            half_made = [d for d in LABS.iterdir() if d.is_dir() and not (d / "lab.json").is_file()]
        for directory in half_made:
            take_down(directory)
            removed.append(directory.name)
    for lab in list_labs():
        if lab.abandoned:
            take_down(lab.directory)
            removed.append(lab.name)
    return removed


def list_labs() -> list[Lab]:
    """Return every lab on this host, running or not.

    Raises:
        ChainError: there may be some, and only root can look at them.
    """
    if not LABS.is_dir():
        return []
    if os.geteuid() != 0:
        raise ChainError(f"{LABS}: labs belong to root; run this command as root, for example with sudo")
    with _locked():
        labs = []
        for directory in sorted(LABS.iterdir()):
            with suppress(
                FileNotFoundError, NotADirectoryError
            ):  # the lock file, half-made, or being taken down at this moment
                labs.append(_read_lab(directory))
        return labs


def _claim(
    processes: int,
    servers: int,
    layout: Layout,
    feed_options: Mapping[str, str],
    wait_s: float,
    name: str | None,
) -> tuple[Path, Chain]:
    """Make the directory of a new lab with its configuration, and mark it as ours."""
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise ChainError(
            f'lab name: got "{name}", want lower-case letters, digits and dashes, such as "four-processes"'
        )
    LABS.mkdir(parents=True, exist_ok=True)
    with _locked():
        taken: set[int] = set()
        for other in LABS.glob("*/lab.json"):
            state = json.loads(other.read_text())
            used = (state["chain"].get(part) for part in (*_LISTENERS, "submission", "inside"))
            taken |= {place["port"] for place in used if place is not None}
        number = 1
        while name is None:
            candidate = f"lab{number}"
            name = candidate if not (LABS / candidate).exists() else None
            number += 1
        directory = LABS / name
        can_submit = not submission.find_missing()
        ports = find_free_ports(len(_LISTENERS) + can_submit + layout.has_inside, taken)
        at = {"filter": layout.filter_host, "reinjection": layout.reinjection_host}
        places = Places(
            **{part: Address(host=at.get(part, "127.0.0.1"), port=ports.pop(0)) for part in _LISTENERS},
            inside=Address(host="127.0.0.1", port=ports.pop(0)) if layout.has_inside else None,
        )
        submitted_at = Address(host="127.0.0.1", port=ports.pop(0)) if can_submit else None
        chain = Chain(
            kind="lab",
            name="lab",
            about=f"private Postfix and amavisd in {directory}",
            front=places.front,
            sink=places.sink,
            filter=places.filter,
            reinjection=places.reinjection,
            inside=places.inside,
            submission=submitted_at,
            processes=processes if processes == servers else None,
            feed_processes=processes,
            filter_servers=servers,
            destination_concurrency_limit=processes if layout.limit == "main.cf" else max(processes, 20),
            reinjection_processes=DEFAULT_PROCESS_LIMIT,
            postfix=PostfixParts(
                config_directory=directory / "etc",
                queue_directory=directory / "spool",
                maillog=directory / "log" / "maillog",
                syslog_name=directory.name,
                feed=FEED,
            ),
            amavis=AmavisParts(
                pid_file=directory / "amavis" / "amavisd.pid",
                log=directory / "amavis" / "amavis.log",
                configuration=directory / "amavisd.conf",
            ),
        )
        try:
            directory.mkdir()
        except FileExistsError:
            raise ChainError(f'lab "{name}" exists already; use another --name, or take it down first') from None
        _write_state(directory, chain, owner=os.getpid())
    try:
        chain = _configure(directory, chain, places, servers, layout, feed_options, wait_s)
    except BaseException:
        take_down(directory)
        raise
    return directory, chain


def _configure(
    directory: Path,
    chain: Chain,
    places: Places,
    servers: int,
    layout: Layout,
    feed_options: Mapping[str, str],
    wait_s: float,
) -> Chain:
    """Write all files of a lab, and return its chain with what they have added to it."""
    assert chain.feed_processes is not None  # noqa: S101 (set by _claim)
    more = ""
    if chain.submission is not None:
        more = submission.describe_service(directory, chain.submission, *find_entry_options(layout))
    write_postfix(
        directory, places, processes=chain.feed_processes, layout=layout, feed_options=feed_options, more_services=more
    )
    if chain.submission is not None:
        chain = chain.model_copy(update={"login": submission.prepare(directory)})
        _write_state(directory, chain, owner=os.getpid())
    amavis.write_configuration(
        directory, filter_=places.filter, reinjection=places.reinjection, processes=servers, wait_s=wait_s
    )
    return chain


def _describe_as_file(chain: Chain) -> str:
    """Return the chain file with which `loadgen run --chain` measures a lab that is up."""
    assert chain.postfix is not None  # noqa: S101 (set by _claim)
    assert chain.amavis is not None  # noqa: S101 (set by _claim)
    inside = f'inside = "{chain.inside}"\n' if chain.inside is not None else ""
    submitted, login = "", ""
    if chain.submission is not None and chain.login is not None:
        submitted = f'submission = "{chain.submission}"\n'
        login = f"""
[login]
username = "{chain.login.username}"
password_file = "{chain.login.password_file}"
"""
    return f"""\
about = "{chain.about}"
front = "{chain.front}"
sink = "{chain.sink}"
filter = "{chain.filter}"
reinjection = "{chain.reinjection}"
{inside}{submitted}feed_processes = {chain.feed_processes}
filter_servers = {chain.filter_servers}
destination_concurrency_limit = {chain.destination_concurrency_limit}

[postfix]
config_directory = "{chain.postfix.config_directory}"
queue_directory = "{chain.postfix.queue_directory}"
maillog = "{chain.postfix.maillog}"
feed = "{chain.postfix.feed}"

[amavis]
pid_file = "{chain.amavis.pid_file}"
log = "{chain.amavis.log}"
configuration = "{chain.amavis.configuration}"
{login}"""


def _write_state(directory: Path, chain: Chain, owner: int | None) -> None:
    state = {
        "chain": chain.model_dump(mode="json"),
        "owner": owner,
        "owner_started_at": None if owner is None else psutil.Process(owner).create_time(),
        "made_at": time.time(),
    }
    temporary = directory / "lab.json.new"
    temporary.write_text(json.dumps(state, indent=2) + "\n")
    temporary.replace(directory / "lab.json")


def _read_lab(directory: Path) -> Lab:
    state = json.loads((directory / "lab.json").read_text())
    pids = [
        _read_pid(directory / "spool" / "pid" / "master.pid"),
        _read_pid(directory / "amavis" / "amavisd.pid"),
    ]
    users = set(_processes_using(directory)) if all(pids) else set()
    return Lab(
        name=directory.name,
        directory=directory,
        chain=Chain.model_validate(state["chain"]),
        owner=state["owner"],
        owner_started_at=state["owner_started_at"],
        running=all(pid in users for pid in pids),
    )


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(pid: int, started_at: float | None) -> bool:
    """Return whether *pid* is still the process it was (a reused number has another start time)."""
    try:
        return abs(psutil.Process(pid).create_time() - (started_at or 0)) < 1.0
    except psutil.NoSuchProcess:
        return False


def _find_process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _processes_using(directory: Path) -> list[int]:
    """Return the Postfix and amavisd processes that work in *directory* or have a file below it open."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # a process may end while we look at it
        with suppress(OSError):
            command = (entry / "comm").read_text().strip()
            if not _is_ours(command, entry, directory):
                continue
            found.append(int(entry.name))
    return found


def _is_ours(command: str, entry: Path, directory: Path) -> bool:
    if not (
        command.startswith(("amavisd", "/usr/sbin/amavi"))
        or str((entry / "exe").readlink()).startswith(("/usr/lib/postfix", "/usr/libexec/postfix"))
        or "perl" in (entry / "exe").readlink().name
    ):
        return False
    links = [entry / "cwd", *(entry / "fd").iterdir()]
    return any(_is_below(link, directory) for link in links)


def _is_below(link: Path, directory: Path) -> bool:
    try:
        return link.readlink().is_relative_to(directory)
    except OSError:  # closed meanwhile
        return False


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock under which labs are made and listed."""
    with (LABS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
