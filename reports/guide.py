"""The settings to make: the lines as the integration guide writes them, and commands that make them.

Pure: the configuration as read and what to set in, texts out. What is not
known of a chain is written as the guide has it.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Proposal", "write_commands", "write_lines"]

_GUIDE_OPTIONS = ("lmtp_data_done_timeout=1200", "lmtp_send_xforward_command=yes", "lmtp_tls_note_starttls_offer=no")
_COLUMNS = ("service", "type", "private", "unpriv", "chroot", "wakeup", "maxproc", "command")


@dataclass(frozen=True)
class Proposal:
    """What to set, and where."""

    feed_processes: int
    filter_servers: int
    feed_options: Mapping[str, str]
    """`-o` options of the feed to add or change."""
    amavis: Mapping[str, int | str]
    """Settings of amavisd besides `$max_servers`."""
    feed: str = "amavisfeed"
    master_cf: str = ""
    """As postconf -Mf prints it; empty: not known."""
    config_directory: str = "/etc/postfix"
    destination_concurrency_limit: int | None = None
    reinjection_processes: int | None = None
    reinjection: str = ""
    """Name and type of the reinjection service, such as "127.0.0.1:10025/inet"."""


def write_lines(proposal: Proposal) -> list[str]:
    """Return the lines of master.cf, amavisd.conf and, where a limit is in the way, main.cf."""
    columns, options = _feed_entry(proposal)
    columns[6] = str(proposal.feed_processes)
    options.update(proposal.feed_options)
    lines = ["# master.cf", " ".join(columns), *(f"    -o {name}={value}" for name, value in options.items())]
    lines += ["# amavisd.conf", f"$max_servers = {proposal.filter_servers};"]
    lines += [f"${name} = {_perl(value)};" for name, value in sorted(proposal.amavis.items())]
    if _destination_is_low(proposal):
        lines += ["# main.cf", *(f"{name} = {proposal.feed_processes}" for name in _destination_names(proposal))]
    return lines


def write_commands(proposal: Proposal) -> list[str]:
    """Return shell commands that make the settings; amavisd's own file is edited by hand, and a comment says so."""
    here = "" if proposal.config_directory == "/etc/postfix" else f" -c {shlex.quote(proposal.config_directory)}"
    commands = [f"postconf{here} -F '{proposal.feed}/unix/process_limit={proposal.feed_processes}'"]
    commands += [
        f"postconf{here} -P {shlex.quote(f'{proposal.feed}/unix/{name}={value}')}"
        for name, value in proposal.feed_options.items()
    ]
    if _destination_is_low(proposal):
        commands += [f"postconf{here} -e {name}={proposal.feed_processes}" for name in _destination_names(proposal)]
    limit = proposal.reinjection_processes
    if limit is not None and limit < proposal.filter_servers and proposal.reinjection:
        commands.append(f"postconf{here} -F {shlex.quote(f'{proposal.reinjection}/process_limit=-')}")
    wanted = [f"$max_servers = {proposal.filter_servers};"]
    wanted += [f"${name} = {_perl(value)};" for name, value in sorted(proposal.amavis.items())]
    commands.append(f"# in amavisd's configuration: {' '.join(wanted)}")
    return [*commands, "amavisd reload", f"postfix{here} reload"]


def _feed_entry(proposal: Proposal) -> tuple[list[str], dict[str, str]]:
    """Return the columns and the options of the feed's entry, as it is or as the guide has it."""
    lines = iter(proposal.master_cf.splitlines())
    for line in lines:
        columns = line.split()
        if not line[:1].isspace() and len(columns) >= len(_COLUMNS) and columns[0] == proposal.feed:
            words = columns[8:]
            for more in lines:
                if not more[:1].isspace():
                    break
                words += more.split()
            options = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-o" and "=" in words[i + 1]]
            return columns[:8], dict(option.split("=", 1) for option in options)
    return [proposal.feed, "unix", "-", "-", "n", "-", "2", "lmtp"], dict(
        option.split("=", 1) for option in _GUIDE_OPTIONS
    )


def _destination_names(proposal: Proposal) -> tuple[str, str]:
    return (
        f"{proposal.feed}_destination_concurrency_limit",
        f"{proposal.feed}_initial_destination_concurrency",
    )


def _destination_is_low(proposal: Proposal) -> bool:
    limit = proposal.destination_concurrency_limit
    return limit is not None and limit < proposal.feed_processes


def _perl(value: int | str) -> str:
    if isinstance(value, int):
        return str(int(value))
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
