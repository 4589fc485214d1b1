"""amavisd: the private daemon's configuration, starting it.

One self-contained file given with -c, never Debian's conf.d. SpamAssassin runs
with the stock rules, without network tests and without learning, so that no
step finds another state than the one before; everything passes, so that every
message comes out at the other end.
"""

import os
import shutil
import subprocess
from pathlib import Path

from loadgen.chain.spec import Address
from loadgen.errors import ChainError

__all__ = ["amavisd_version", "find_amavisd", "spamassassin_version", "start_amavisd", "write_configuration"]

_SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
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


def find_amavisd() -> str | None:
    """Return the path of `amavisd` (or `amavisd-new`), or None where it is not installed."""
    return shutil.which("amavisd", path=_SEARCH) or shutil.which("amavisd-new", path=_SEARCH)


def amavisd_version() -> str | None:
    """Return amavisd's version, or None where it is not installed."""
    return _first_line([program, "-V"]) if (program := find_amavisd()) else None


def spamassassin_version() -> str | None:
    """Return SpamAssassin's version, or None where it is not installed."""
    return _first_line([program, "-V"]) if (program := shutil.which("spamassassin", path=_SEARCH)) else None


def write_configuration(directory: Path, *, filter_: Address, reinjection: Address, processes: int) -> Path:
    """Write `amavisd.conf` and the site rules below *directory*, make its home, and return the file's path."""
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


def _run(configuration: Path, command: str) -> subprocess.CompletedProcess[str]:
    program = find_amavisd()
    if program is None:
        raise ChainError("amavisd is not installed; 'loadgen lab install' installs it on Debian")
    return subprocess.run(
        [program, "-c", str(configuration), command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        start_new_session=True, timeout=60, check=False,
    )  # fmt: skip


def _first_line(command: list[str]) -> str | None:
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    lines = result.stdout.strip().splitlines()
    return lines[0] if lines else None
