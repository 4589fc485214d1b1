"""The head of a log line: time, host, tag, process; as syslog, journald, postlogd and amavisd write it.

The time stamp is skipped: it has a resolution of a second. The instant of a
row is the one at which its line was read, at most a sampling interval late.
"""

import re
from typing import Any, NamedTuple

__all__ = ["OWN_DOMAIN", "LogLine", "Row", "message_key", "split_line"]

Row = tuple[str, tuple[Any, ...]]
"""Name of a table and one row of it, as in `records.TABLES`."""

OWN_DOMAIN = "@loadgen.invalid"
"""Right-hand side of the Message-ID of our own messages; `message.id` is its left-hand side."""

LONGEST_TEXT = 500
"""Characters of a log line's text that are kept in a row."""

_HEAD = re.compile(
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)"
    r" (?P<host>\S+) (?P<tag>[^\s\[\]:]+(?::[^\s\[\]:]+)*)(?:\[(?P<pid>\d+)\])?: (?P<text>.*)",
    re.ASCII | re.DOTALL,
)


class LogLine(NamedTuple):
    """One line, taken apart as far as every program agrees."""

    tag: str
    pid: str
    text: str


def split_line(line: str) -> LogLine | None:
    """Return the parts of *line*, or None when it does not begin like a log line."""
    match = _HEAD.fullmatch(line)
    return LogLine(match["tag"], match["pid"] or "", match["text"]) if match else None


def message_key(message_id: str) -> str:
    """Return a Message-ID as the table `message` has it: without brackets, our own without their domain."""
    return message_id.strip().removeprefix("<").removesuffix(">").removesuffix(OWN_DOMAIN)
