"""amavisd: the private daemon's configuration, starting it; any daemon's settings, changed and brought into force.

One self-contained file given with -c, never Debian's conf.d. SpamAssassin runs
with the stock rules, without network tests and without learning, so that no
step finds another state than the one before; everything passes, so that every
message comes out at the other end.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from loadgen.chain.spec import Address
from loadgen.collect.daemons import AmavisDaemon
from loadgen.errors import ChainError, CollectorError

__all__ = [
    "amavisd_version",
    "find_amavisd",
    "find_problem",
    "reload_amavisd",
    "render_overrides",
    "render_perl",
    "replace_text",
    "spamassassin_version",
    "start_amavisd",
    "write_configuration",
    "write_overrides",
]

_SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
# a misspelt name is an error under strict; and a configuration ends with something true
_MARK = "\n# set by loadgen, which takes it away again\nuse strict;\n"
_END_MARK = "1;\n# end of what loadgen set\n"
_STOCK_RULES = Path("/usr/share/spamassassin")
_SITE_RULES = Path("/etc/spamassassin")

_TEMPLATE = """\
use strict;
$max_servers = {processes};
$max_requests = 20;
$daemon_user = 'amavis';
@daemon_groups = ('amavis');
$mydomain = 'lab.test';
$myhostname = 'mx.lab.test';
@mynetworks = qw(127.0.0.0/8);
@local_domains_maps = ( [".$mydomain", '.loadgen.test'] );
$MYHOME = '{home}';
$TEMPBASE = "$MYHOME/tmp";
$db_home = "$MYHOME/db";
$helpers_home = "$MYHOME/var";
$lock_file = "$MYHOME/amavisd.lock";
$pid_file = "$MYHOME/amavisd.pid";
$QUARANTINEDIR = undef;
$virus_quarantine_to = undef;
$spam_quarantine_to = undef;
$banned_quarantine_to = undef;
$bad_header_quarantine_to = undef;
$log_level = 2;
$do_syslog = 0;
$logfile = "$MYHOME/amavis.log";
$enable_db = 1;
$enable_zmq = 0;
$inet_socket_port = {filter.port};
$inet_socket_bind = '{filter.host}';
$forward_method = 'smtp:[{reinjection.host}]:{reinjection.port}';
$notify_method = $forward_method;
$enable_dkim_verification = 0;
$enable_dkim_signing = 0;
@bypass_virus_checks_maps = (1);
@av_scanners = ();
@av_scanners_backup = ();
$final_spam_destiny = D_PASS;
$final_virus_destiny = D_PASS;
$final_banned_destiny = D_PASS;
$final_bad_header_destiny = D_PASS;
$sa_local_tests_only = 1;
$sa_configpath = '{rules}';
$sa_siteconfigpath = '{site}';
$sa_tag_level_deflt = 2.0;
$sa_tag2_level_deflt = 6.2;
$sa_kill_level_deflt = 999;
1;
"""

_WAITING = """\
package Amavis::Custom;
use strict;
sub new {{ my($class, $connection, $message) = @_; bless {{}}, $class }}
sub checks {{ select(undef, undef, undef, {wait_s:.6f}); 1 }}
package Amavis::Conf;
1;
"""


def find_amavisd() -> str | None:
    """Return the path of `amavisd` (or `amavisd-new`), or None where it is not installed."""
    return shutil.which("amavisd", path=_SEARCH) or shutil.which("amavisd-new", path=_SEARCH)


def amavisd_version() -> str | None:
    """Return amavisd's version, or None where it is not installed."""
    return _first_line([program, "-V"]) if (program := find_amavisd()) else None


def spamassassin_version() -> str | None:
    """Return SpamAssassin's version, or None where it is not installed."""
    return _first_line([program, "-V"]) if (program := shutil.which("spamassassin", path=_SEARCH)) else None


def write_configuration(
    directory: Path, *, filter_: Address, reinjection: Address, processes: int, wait_s: float = 0.0
) -> Path:
    """Write `amavisd.conf` and the site rules below *directory*, make its home, and return the file's path.

    With *wait_s* every scan waits that long without using a CPU, by amavisd's own hook for additional checks.
    """
    home = directory / "amavis"
    for path in (home, home / "tmp", home / "db", home / "var"):
        path.mkdir()
        shutil.chown(path, "amavis", "amavis")
        path.chmod(0o750)
    site = directory / "spamassassin"
    site.mkdir()
    for plugins in sorted(_SITE_RULES.glob("*.pre")):
        shutil.copy(plugins, site)
    (site / "local.cf").write_text("bayes_auto_learn 0\nbayes_auto_expire 0\n")
    path = directory / "amavisd.conf"  # owned by root and not writable by its user, as amavisd demands
    path.write_text(
        _TEMPLATE.format(
            processes=processes,
            home=home,
            filter=filter_,
            reinjection=reinjection,
            rules=_STOCK_RULES,
            site=site,
        )
        + (_WAITING.format(wait_s=wait_s) if wait_s else "")
    )
    path.chmod(0o644)
    return path


def start_amavisd(configuration: Path) -> None:
    """Start the daemon; returns when it has detached, which is a little before its port answers.

    Raises:
        ChainError: with what it said.
    """
    result = _run(configuration, "start")
    if result.returncode:
        said = (result.stderr or result.stdout).strip()[-500:]
        raise ChainError(f"{configuration}: amavisd start: exit {result.returncode}: {said}")


def render_overrides(text: str, settings: Mapping[str, int | str]) -> str:
    """Return a configuration *text* that ends with *settings* (names without the sigil), in a marked block.

    What comes last counts. An earlier block is replaced; without settings it is taken away, which leaves the very
    text that was there before.

    Raises:
        ChainError: no such name is possible.
    """
    head, found, rest = text.partition(_MARK)
    tail = rest.partition(_END_MARK)[2] if found else ""
    if not settings:
        return head + tail
    lines = []
    for name, value in settings.items():
        if not re.fullmatch(r"[a-zA-Z]\w*", name):
            raise ChainError(f'amavisd setting "{name}": want a name without its sigil, such as max_requests')
        lines.append(f"${name} = {render_perl(value)};\n")
    return f"{head}{_MARK}{''.join(lines)}{_END_MARK}{tail}"


def render_perl(value: int | str) -> str:
    """Return *value* as a Perl literal."""
    if isinstance(value, int):
        return str(int(value))
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def write_overrides(file: Path, settings: Mapping[str, int | str], configuration: Path | None) -> None:
    """Let *file* end with *settings* and with nothing of an earlier call; in force after a reload.

    A daemon that is told to reload what it cannot read ends, so anything but a number of processes is tried first.

    Args:
        file: A configuration file of the daemon's, the last one where it reads several.
        settings: Names without the sigil to values.
        configuration: What the daemon was started with (`-c`); None: it reads its own default files.

    Raises:
        ChainError: amavisd does not accept it; *file* is then as it was.
    """
    old = file.read_text()
    if (new := render_overrides(old, settings)) == old:
        return
    replace_text(file, new)
    if settings.keys() <= {"max_servers"}:
        return
    if problem := find_problem(configuration):
        replace_text(file, old)
        raise ChainError(f"{file}: amavisd does not accept {', '.join(sorted(settings))}: {problem}")


def find_problem(configuration: Path | None) -> str:
    """Return what amavisd has against its configuration, empty when nothing; None: its own default files."""
    result = _run(configuration, "test-config")
    return (result.stderr or result.stdout).strip()[-500:] or "no reason given" if result.returncode else ""


def replace_text(file: Path, text: str) -> None:
    """Replace the whole *file* at once, keeping its owner and its permissions, which amavisd is particular about."""
    state = file.stat()
    new = file.with_name(f"{file.name}.loadgen-new")
    new.write_text(text)
    os.chown(new, state.st_uid, state.st_gid)
    new.chmod(state.st_mode & 0o7777)
    new.replace(file)


def reload_amavisd(pid_file: Path) -> None:
    """Let the daemon read its configuration again: the same process, the port open all the time, new children.

    Raises:
        ChainError: it does not run.
    """
    try:
        os.kill(AmavisDaemon(pid_file, "/proc", _ignore).look(0.0).master.pid, signal.SIGHUP)
    except (CollectorError, OSError) as error:
        raise ChainError(f"amavisd cannot be told to reload: {error}") from error


def _ignore(source: str, kind: str, text: str) -> None:
    """Take a remark that tells nothing: the daemon is looked at only once."""


def _run(configuration: Path | None, command: str) -> subprocess.CompletedProcess[str]:
    program = find_amavisd()
    if program is None:
        raise ChainError("amavisd is not installed; 'loadgen lab install' installs it on Debian")
    named = () if configuration is None else ("-c", str(configuration))
    return subprocess.run(
        [program, *named, command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        start_new_session=True, timeout=60, check=False,
    )  # fmt: skip


def _first_line(command: list[str]) -> str | None:
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    lines = result.stdout.strip().splitlines()
    return lines[0] if lines else None
