"""Postfix: the private instance's configuration, starting and stopping it, asking it for its settings.

The configuration is that of the integration guide, sections 2.2 and 2.3, on
loopback ports, with what the guide lacks for a measurement: long queue ids,
a log file of its own, XFORWARD accepted at reinjection (so that both passes
of a message can be joined), and destination limits out of the way of maxproc.
`postconf` is called only here.
"""

import os
import shutil
import subprocess
from pathlib import Path

from loadgen.chain.spec import Address
from loadgen.errors import ChainError

__all__ = [
    "find_postfix",
    "postfix_version",
    "read_settings",
    "start_postfix",
    "stop_postfix",
    "write_configuration",
]

FEED = "amavisfeed"

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


def postfix_version() -> str | None:
    """Return Postfix's version, or None where it is not installed."""
    if find_postfix() is None:
        return None
    # -d needs no main.cf, which Debian does not ship before the package is configured
    result = _run(["postconf", "-dh", "mail_version"])
    return result.stdout.strip() or None


def write_configuration(
    directory: Path, *, front: Address, reinjection: Address, filter_: Address, sink: Address, processes: int
) -> None:
    """Write `etc/main.cf` and `etc/master.cf` of a private instance below *directory*, and make its directories."""
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
        # every session of the generator needs an smtpd, and this is the listen backlog of every master socket
        "default_process_limit": 150,
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
        + f"{reinjection} inet n - n - - smtpd\n"
        + "".join(f"    -o {option}\n" for option in _REINJECTION_OPTIONS)
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
