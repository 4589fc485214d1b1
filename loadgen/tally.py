"""What is known of the messages while a run goes on: enough to steer by, no more.

Pure bookkeeping over the rows that pass through the conductor. The report's
accounting is worked out afterwards from the record; this one answers "is
anything of ours still in the chain?" and feeds the progress line.
"""

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Tally"]


class Tally:
    """Counts of the whole run, and the ids that are on their way."""

    def __init__(self) -> None:
        self.accepted = 0
        self.delivered = 0
        self.failed = 0
        """Refused, not sent or unknown at the front."""
        self.on_the_way: set[str] = set()
        """Accepted or unknown, and not yet seen at the sink nor known to be blocked."""
        self._early: set[str] = set()

    def add_messages(self, rows: Iterable[Sequence[Any]]) -> None:
        """Count rows of the table `message`."""
        for row in rows:
            message_id, outcome = row[0], row[10]
            if outcome == "accepted":
                self.accepted += 1
            elif outcome != "dropped":
                self.failed += 1
            if outcome in ("accepted", "unknown"):
                # its arrival may have been reported first: rows come in batches from two processes
                if message_id in self._early:
                    self._early.discard(message_id)
                else:
                    self.on_the_way.add(message_id)

    def add_arrivals(self, rows: Iterable[Sequence[Any]]) -> None:
        """Count rows of the table `arrival`."""
        for row in rows:
            self.delivered += 1
            if row[0] in self.on_the_way:
                self.on_the_way.discard(row[0])
            else:
                self._early.add(row[0])

    def add_gone(self, message_ids: Iterable[str]) -> None:
        """Count messages that were blocked or bounced: they will not arrive."""
        self.on_the_way.difference_update(message_ids)
