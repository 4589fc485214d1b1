"""Ask Postfix and amavisd for what they are set to: postconf and postmap, and amavisd's own evaluation of its Perl files.

What may not be read, or is not there, is left out with the reason; a rule that
needs it then says that it cannot tell.
"""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from loadgen.audit.facts import AccessMap, Facts, FilterMap, Service, names_in, parse_command, split_command
from loadgen.chain import postfix
from loadgen.chain.amavis_reading import read_amavis
from loadgen.errors import ChainError

__all__ = ["read_facts"]

_RESTRICTIONS = (
    "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_recipient_restrictions",
    "smtpd_relay_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions",
)  # fmt: skip
_CHECKS = ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks", "milter_header_checks")
_INDEXES = {"hash": ".db", "btree": ".db", "dbm": ".pag", "cdb": ".cdb", "lmdb": ".lmdb"}
_TEXTS = ("regexp", "pcre", "cidr", "texthash", "sqlite")
_FILTER = re.compile(r"\bFILTER\s+(\S+)")


def read_facts(directory: Path, feed: str, amavis_configuration: Path | None) -> Facts:
    """Return what can be read of a chain's configuration.

    Args:
        directory: Of Postfix's configuration.
        feed: Name of the service that feeds the filter, as far as it is known; a wrong one does not matter.
        amavis_configuration: As for `read_amavis`.

    Raises:
        ChainError: Postfix's cannot be read at all.
    """
    directory = directory.absolute()
    main = _read_pairs(postfix.ask_postconf(directory, "-x"))
    explicit = _read_pairs(postfix.ask_postconf(directory, "-n"))
    services = _read_services(directory)
    access, checks = _find_maps(main, services)
    filters, unread = _find_filters(directory, access, checks)
    known, why = read_amavis(amavis_configuration)
    tables = dict.fromkeys([*(one.table for one in access), *(table for _, table in checks)])
    return Facts(
        directory=directory,
        main=main,
        explicit=frozenset(explicit),
        services=services,
        map_types=frozenset(postfix.ask_postconf(directory, "-m").split()),
        filter_maps=filters,
        access_maps=access,
        stale_tables={table: problem for table in tables if (problem := _find_staleness(table))},
        unread_tables=unread,
        amavis=known,
        amavis_unread=why,
        postfix_version=tuple(int(n) for n in re.findall(r"\d+", main.get("mail_version", ""))[:3]),
        feed_name=feed if feed in {one.name for one in services} else "",
    )


def _read_pairs(text: str) -> dict[str, str]:
    """Return the lines of postconf, name to value."""
    return {
        name.strip(): value.strip()
        for line in text.splitlines()
        if "=" in line
        for name, _, value in [line.partition("=")]
    }


def _read_services(directory: Path) -> tuple[Service, ...]:
    fields: dict[tuple[str, str], dict[str, str]] = {}
    for line in postfix.ask_postconf(directory, "-F").splitlines():
        key, _, value = line.partition(" =")
        name, kind, column = key.rsplit("/", 2)
        fields.setdefault((name, kind), {})[column] = value.strip()
    found = []
    for (name, kind), columns in fields.items():
        words = split_command(columns["command"])
        program, options, stray = parse_command(words)
        found.append(
            Service(
                name,
                kind,
                columns["private"],
                columns["chroot"],
                columns["process_limit"],
                program,
                options,
                words,
                stray,
            )
        )
    return tuple(found)


def _find_maps(
    main: dict[str, str], services: Sequence[Service]
) -> tuple[tuple[AccessMap, ...], list[tuple[str, str]]]:
    """Return the access tables of all restriction lists, and parameter and table of all header and body checks."""
    access, checks = [], []
    places = [(f"main.cf, {name}", name, main.get(name, "")) for name in (*_RESTRICTIONS, *_CHECKS)]
    places += [
        (f"master.cf, {one.label}, -o {name}", name, one.options[name])
        for one in services for name in (*_RESTRICTIONS, *_CHECKS) if name in one.options
    ]  # fmt: skip
    for where, name, text in places:
        words = list(names_in(text))
        if name in _CHECKS:
            checks += [(where, word) for word in words if ":" in word]
            continue
        for position, (word, table) in enumerate(pairwise(words)):
            if word.startswith("check_") and word.endswith("_access") and ":" in table:
                access.append(AccessMap(name, where, word, table, position))
    return tuple(access), list(dict.fromkeys(checks))


def _find_filters(
    directory: Path, access: Sequence[AccessMap], checks: Sequence[tuple[str, str]]
) -> tuple[tuple[FilterMap, ...], dict[str, str]]:
    found, unread = [], {}
    for table, parameter, one in [*((a.table, a.where, a) for a in access), *((t, where, None) for where, t in checks)]:
        try:
            text = _list_table(directory, table)
        except (ChainError, OSError) as error:
            unread[table] = str(error)
            continue
        if actions := tuple(dict.fromkeys(_FILTER.findall(text))):
            found.append(FilterMap(table, parameter, actions, one))
    return tuple(found), unread


def _list_table(directory: Path, table: str) -> str:
    """Return the entries of a table as text."""
    kind, _, name = table.partition(":")
    if kind in ("inline", "static"):
        return name
    if kind in _TEXTS:
        return Path(name).read_text(errors="replace")
    if kind in _INDEXES:
        # the index is what counts, but a table that this Postfix cannot open still tells by its source
        source = Path(name)
        return (
            postfix.ask_postmap(directory, "-s", table) if Path(name + _INDEXES[kind]).exists() else source.read_text()
        )
    raise ChainError(f"tables of type {kind} cannot be listed")


def _find_staleness(table: str) -> str:
    kind, _, name = table.partition(":")
    source = Path(name)
    if kind in _TEXTS:
        stray = next((ending for ending in (".db", ".lmdb", ".cdb") if Path(name + ending).exists()), None)
        if not os.access(source, os.R_OK):
            return f"{name} cannot be read"
        return (
            f"{name}{stray} beside it: postmap is for indexed tables, this one is read as text"
            if stray and kind != "texthash"
            else ""
        )
    if kind not in _INDEXES:
        return ""
    index = Path(name + _INDEXES[kind])
    if not index.exists():
        return f"{index} does not exist"
    if source.exists() and source.stat().st_mtime > index.stat().st_mtime + 1:
        return f"{source} is newer than {index.name}"
    return ""
