"""amavisd's log lines to rows: what it decided on each message, and where the time went.

Pure: text in, rows out. The same lines come from its own log file and, with
another head, from syslog, where long ones are cut into pieces that begin and
end with three dots. Times are in milliseconds in the log and in
seconds in the rows.
"""

import re

from loadgen.collect.logline import LONGEST_TEXT, Row, message_key, split_line

__all__ = ["AmavislogParser"]

_TASK = re.compile(r"\((?P<id>\d+-\d+(?:-\d+)?)\) (?P<rest>.*)", re.ASCII | re.DOTALL)
_ALERT = re.compile(r"\((!+)\)(.*)", re.DOTALL)
_VERDICT = re.compile(r"(Passed|Blocked) ([A-Z]+(?:-[A-Z]+)*(?:-\d+)?)\b", re.ASCII)
_QUEUE_ID = re.compile(r", Queue-ID: ([0-9A-Za-z]+)(?=,|$)", re.ASCII)
_HITS = re.compile(r", Hits: (-?\d{1,6}(?:\.\d{1,6})?)(?=,|$)", re.ASCII)
_SIZE = re.compile(r", size: (\d{1,15})(?=,|$)", re.ASCII)
_QUEUED_AS = re.compile(r", queued_as: ([0-9A-Za-z]+)(?=[,/]|$)", re.ASCII)
_ELAPSED = re.compile(r", (\d{1,9}) ms$", re.ASCII)
_TIMING = re.compile(r"(?:size: \d+, )?TIMING \[total (\d{1,9}) ms[^\]]*\] - (.*)", re.ASCII | re.DOTALL)
_SA_TIMING = re.compile(r"TIMING-SA total (\d{1,9}) ms - (.*)", re.ASCII | re.DOTALL)
# of SpamAssassin's own sections only those that wait for others are of interest
_SA_SECTION = re.compile(r"(\w*(?:dns|razor|pyzor|dcc)\w*): (\d{1,9}(?:\.\d{1,3})?) \(\d+(?:\.\d+)?%\)", re.ASCII)
# the percentage is followed by the cumulative one without a gap: "SMTP DATA: 38 (24%)26"
_SECTION = re.compile(r"(.+): (\d{1,9}(?:\.\d{1,3})?) \(\d+%\)\d+", re.ASCII)
_LONGEST_WHOLE = 1 << 16


class AmavislogParser:
    """Reads the lines of one amavisd."""

    def __init__(self, *, own_file: bool) -> None:
        """Begin.

        Args:
            own_file: Every line is amavisd's; otherwise only those tagged like it, and pieces are joined.
        """
        self._own_file = own_file
        self._pieces: dict[str, str] = {}

    def parse(self, line: str, at: float) -> list[Row]:
        """Return the rows that *line*, read at the instant *at*, gives rise to."""
        parts = split_line(line)
        if parts is None:
            return []
        if self._own_file:
            return _parse_text(parts.text, at)
        if not parts.tag.rpartition("/")[2].startswith("amavis"):
            return []
        return [row for text in self._join(parts.pid, parts.text) for row in _parse_text(text, at)]

    def _join(self, pid: str, text: str) -> list[str]:
        """Return the texts that are complete now that *text* has come from the process *pid*."""
        complete = []
        begun = self._pieces.pop(pid, None)
        task = _TASK.fullmatch(text)
        rest = task["rest"] if task else text
        if begun is not None:
            if rest.startswith("...") and len(begun) < _LONGEST_WHOLE:
                text = begun + rest.removeprefix("...")
            else:
                complete.append(begun)
        if text.endswith("..."):
            self._pieces[pid] = text.removesuffix("...")
        else:
            complete.append(text)
        return complete


def _parse_text(text: str, at: float) -> list[Row]:
    """Return the rows of one whole line."""
    task = _TASK.fullmatch(text)
    am_id, rest = (task["id"], task["rest"]) if task else ("", text)
    if (alert := _ALERT.match(rest)) is not None:
        # logged with an alert mark, but it is what a reload does
        if "Re-exec server during HUP" in rest:
            return []
        return [_remark(at, "warning" if alert[1] == "!" else "error", text)]
    if am_id:
        if (verdict := _VERDICT.match(rest)) is not None:
            return _parse_verdict(am_id, verdict, rest, at)
        if (timing := _TIMING.fullmatch(rest)) is not None:
            return _parse_timing(am_id, timing[1], timing[2], at)
        if (timing := _SA_TIMING.fullmatch(rest)) is not None:
            waits = _SA_SECTION.findall(timing[2])
            return [("timing", (at, am_id, f"SA {name}", float(value) / 1000)) for name, value in waits]
        return []
    if rest.startswith("starting. (warm)"):
        return [_remark(at, "reload", text)]
    if rest.startswith("starting. ") or (rest.startswith("Daemon [") and "terminated" in rest):
        return [_remark(at, "restart", text)]
    return []


def _parse_verdict(am_id: str, verdict: "re.Match[str]", text: str, at: float) -> list[Row]:
    """Return the row of a message; none for the line about one of its recipients, which says the same again."""
    elapsed = _ELAPSED.search(text)
    if elapsed is None and ", tag=" in text:
        return []
    # the last mail_id is amavisd's own; before it are texts of others, in the order of the template
    head, found, tail = text.rpartition(", mail_id: ")
    if not found:
        head, found, tail = text.rpartition(", Hits: ")
        tail = found + tail
    queue_id = _QUEUE_ID.search(head)
    message_id = ""
    _, found, after = head[queue_id.end() if queue_id else 0 :].partition(", Message-ID: ")
    if found:
        message_id = message_key(after.partition(", Resent-Message-ID: ")[0])
    hits, size, queued_as = _HITS.search(f"{tail}"), _SIZE.search(tail), _QUEUED_AS.search(tail)
    row = (
        at, am_id, verdict[1], verdict[2], queue_id[1] if queue_id else "", queued_as[1] if queued_as else "",
        message_id[:LONGEST_TEXT], float(hits[1]) if hits else None, int(size[1]) if size else None,
        int(elapsed[1]) / 1000 if elapsed else None,
    )  # fmt: skip
    return [("scan", row)]


def _parse_timing(am_id: str, total: str, sections: str, at: float) -> list[Row]:
    found = (_SECTION.fullmatch(part) for part in sections.split(", "))
    seconds = [("total", int(total) / 1000)]
    seconds += [(match[1][:LONGEST_TEXT], float(match[2]) / 1000) for match in found if match]
    return [("timing", (at, am_id, name, value)) for name, value in seconds]


def _remark(at: float, kind: str, text: str) -> Row:
    return "remark", (at, "amavisd", kind, text[:LONGEST_TEXT])
