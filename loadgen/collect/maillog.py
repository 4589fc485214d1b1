"""Postfix's log lines to rows, and the count of messages before and after the filter.

Pure: text in, rows out. Fields are found by their names, not by their places,
since versions insert some (3.11: `tls=`) and leave out others (`conn_use=`).
Free text from elsewhere (addresses, replies, Message-IDs) is only looked at
where Postfix puts it, so that it cannot pass for a field.

A message is in the queue from cleanup's `message-id=` to `removed`. It is in
pass 2 when its smtpd logged the queue id of pass 1 (`orig_queue_id=`,
from XFORWARD). A reinjection service that does not take XFORWARD never does;
then the second of two messages with one Message-ID, both in the queue, is it.
"""

import re
from typing import Any

from loadgen.collect.logline import LONGEST_TEXT, LogLine, Row, message_key, split_line

__all__ = ["MaillogParser"]

_QUEUE_ID = re.compile(r"(?P<id>[0-9A-Za-z]{6,}): (?P<rest>.*)", re.ASCII | re.DOTALL)
_SEVERITY = re.compile(r"(warning|error|fatal|panic): ")
_ORIGIN = re.compile(r", orig_queue_id=([0-9A-Za-z]{6,})(?:,|$)", re.ASCII)
_QUEUED_AS = re.compile(r".*\bqueued as ([0-9A-Za-z]{6,})\b", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_LOST_CONTENT = re.compile(r"(?:lost connection|timeout) after (?:DATA|BDAT)\b")
_SUPPRESSED = re.compile(r"Suppressed \d+ messages|(?:lost|drop).*rate-limiting|rate-limiting.*(?:lost|drop)")
_GONE = ("removed", "canceled")
_REJECTED = {
    "cleanup": ("reject: ", "milter-reject: ", "discard: ", "milter-discard: "),
    # earlier in the dialogue a rejection costs one recipient, not the message
    "smtpd": ("reject: DATA", "reject: END-OF-MESSAGE"),
}


class MaillogParser:
    """Reads the lines of one Postfix instance."""

    def __init__(self, filter_port: int | None = None, syslog_name: str | None = None) -> None:
        """Begin with an empty queue.

        Args:
            filter_port: Deliveries to this port are the feed's.
            syslog_name: Tags begin with it; None: lines of any instance are taken.
        """
        self._filter_port = filter_port
        self._prefix = f"{syslog_name}/" if syslog_name else None
        self._origins: dict[str, str] = {}
        self._passes: dict[str, int] = {}
        self._ids: dict[str, str] = {}
        self._first: dict[str, str] = {}
        self._receiving: dict[str, str] = {}
        self._tells_origin = False
        self._counts = {1: 0, 2: 0}

    def count_in_pass(self, number: int) -> int:
        """Return the messages in the queue that are in pass 1 or 2."""
        return self._counts[number]

    def message_key(self, queue_id: str) -> str | None:
        """Return the Message-ID of a message in the queue, as the table `message` has it."""
        return self._ids.get(queue_id)

    def parse(self, line: str, at: float) -> list[Row]:
        """Return the rows that *line*, read at the instant *at*, gives rise to."""
        parts = split_line(line)
        if parts is None:
            return []
        if parts.tag.startswith(("systemd-journal", "journal", "rsyslogd")):
            return [_remark(at, parts.tag, "suppressed", parts.text)] if _SUPPRESSED.search(parts.text) else []
        instance, _, daemon = parts.tag.rpartition("/")
        if not instance or (self._prefix is not None and not parts.tag.startswith(self._prefix)):
            return []
        if (severity := _SEVERITY.match(parts.text)) is not None:
            kind = "limit" if "has reached its process limit" in parts.text else severity[1]
            return [_remark(at, f"postfix/{daemon}", kind, parts.text)]
        if daemon == "master":
            return _parse_master(parts.text, at)
        if (entry := _QUEUE_ID.fullmatch(parts.text)) is not None:
            return self._parse_entry(daemon, parts, entry["id"], entry["rest"], at)
        if daemon == "smtpd":
            if _LOST_CONTENT.match(parts.text):
                self._forget(self._receiving.pop(parts.pid, ""))
            elif parts.text.startswith("disconnect from "):
                self._receiving.pop(parts.pid, None)
        return []

    def _parse_entry(self, daemon: str, parts: LogLine, queue_id: str, rest: str, at: float) -> list[Row]:
        """Return the rows of a line about one queue file."""
        if rest.startswith("to=<"):
            return self._parse_delivery(daemon, queue_id, rest, at)
        if daemon == "smtpd" and rest.startswith("client="):
            self._receiving[parts.pid] = queue_id
            if (origin := _ORIGIN.search(rest)) is not None:
                self._tells_origin = True
                self._origins[queue_id] = origin[1]
        elif daemon == "cleanup" and rest.startswith("message-id="):
            return [self._enter(queue_id, message_key(rest.removeprefix("message-id=")))]
        elif rest in _GONE or rest.startswith(_REJECTED.get(daemon, ("\n",))):
            self._forget(queue_id)
        return []

    def _enter(self, queue_id: str, message_id: str) -> Row:
        """Note that a message has come into the queue."""
        origin = self._origins.pop(queue_id, "")
        if not origin and not self._tells_origin and message_id:
            origin = self._first.get(message_id, "")
        number = 2 if origin else 1
        self._forget(queue_id)
        self._passes[queue_id] = number
        self._counts[number] += 1
        self._ids[queue_id] = message_id
        if number == 1:
            self._first[message_id] = queue_id
        return "queue_entry", (queue_id, message_id, number, origin)

    def _forget(self, queue_id: str) -> None:
        """Note that a message has left the queue."""
        self._origins.pop(queue_id, None)
        if (number := self._passes.pop(queue_id, None)) is not None:
            self._counts[number] -= 1
        message_id = self._ids.pop(queue_id, None)
        if message_id is not None and self._first.get(message_id) == queue_id:
            del self._first[message_id]

    def _parse_delivery(self, daemon: str, queue_id: str, rest: str, at: float) -> list[Row]:
        """Return the rows of one delivery attempt; none when a field that every version has is missing."""
        # only an address made to look like one could contain this; the first place is then the wrong one
        _, found, tail = rest.partition(">, relay=")
        fields, status = _split_fields(f"relay={tail}" if found else "")
        state, _, text = status.partition(" ")
        if not state.isalpha() or "delays" not in fields:
            return []
        text = text.removeprefix("(").removesuffix(")")
        relay = fields["relay"]
        station = "feed" if self._is_filter(relay, text) else "delivery"
        queued_as = _QUEUED_AS.match(text) if station == "feed" else None
        a, b, c, d = (_number(word) for word in [*fields["delays"].split("/"), "", "", "", ""][:4])
        row: tuple[Any, ...] = (
            at, station, queue_id, relay, int(_number(fields.get("conn_use", "1")) or 1),
            _number(fields.get("delay", "")), a, b, c, d, fields.get("dsn", ""), state, text[:LONGEST_TEXT],
            queued_as[1] if queued_as else "",
        )  # fmt: skip
        rows: list[Row] = [("delivery", row)]
        if state == "deferred":
            dead = text.startswith("delivery temporarily suspended")
            what = f"{queue_id}: {text}"
            rows.append(_remark(at, f"postfix/{daemon}", "dead-destination" if dead else "deferred", what))
        return rows

    def _is_filter(self, relay: str, text: str) -> bool:
        """Return whether an attempt was the feed's; one without a connection names the address in its text."""
        if self._filter_port is None:
            return False
        address = f"]:{self._filter_port}"
        return relay.endswith(address) if relay != "none" else f"{address}:" in text


def _parse_master(text: str, at: float) -> list[Row]:
    if text.startswith("reload -- "):
        return [_remark(at, "postfix/master", "reload", text)]
    if text.startswith(("daemon started -- ", "terminating on signal ")):
        return [_remark(at, "postfix/master", "restart", text)]
    return []


def _split_fields(text: str) -> tuple[dict[str, str], str]:
    """Return the fields before `status=`, and everything behind it."""
    fields: dict[str, str] = {}
    while text:
        key, _, text = text.partition("=")
        if key == "status":
            return fields, text
        value, _, text = text.partition(", ")
        fields.setdefault(key, value)
    return fields, ""


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _remark(at: float, source: str, kind: str, text: str) -> Row:
    return "remark", (at, source, kind, text[:LONGEST_TEXT])
