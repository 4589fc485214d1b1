"""What is known of the messages while a run goes on: enough to steer by, no more.

Pure bookkeeping over the rows that pass through the conductor. The report's
accounting is worked out afterwards from the record; this one answers "is
anything of ours still in the chain?" and feeds the progress line.
"""

from bisect import bisect_left, insort
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
        self.on_the_way: dict[str, int] = {}
        """Accepted or unknown, and not known to be blocked: id to the recipients whose copy is still to come."""
        self.completed_at: list[float] = []
        """Instants of delivery, ascending."""
        self._early: dict[str, int] = {}
        self._early_at: dict[str, float] = {}

    def add_messages(self, rows: Iterable[Sequence[Any]]) -> None:
        """Count rows of the table `message`."""
        for row in rows:
            message_id, outcome = row[0], row[10]
            if outcome == "accepted":
                self.accepted += 1
            elif outcome != "dropped":
                self.failed += 1
            if outcome in ("accepted", "unknown"):
                # copies may have been reported first: rows come in batches from two processes
                left = row[4] - self._early.pop(message_id, 0)
                if left > 0:
                    self.on_the_way[message_id] = left
                else:
                    self._complete(self._early_at.pop(message_id))

    def add_arrivals(self, rows: Iterable[Sequence[Any]]) -> None:
        """Count rows of the table `arrival`; a message is delivered with the copy for its last recipient."""
        for message_id, at, recipients, _ in rows:
            if message_id not in self.on_the_way:
                self._early_at[message_id] = at
                self._early[message_id] = self._early.get(message_id, 0) + recipients
                continue
            self.on_the_way[message_id] -= recipients
            if self.on_the_way[message_id] <= 0:
                del self.on_the_way[message_id]
                self._early_at.pop(message_id, None)
                self._complete(at)

    def add_gone(self, message_ids: Iterable[str]) -> None:
        """Count messages that were blocked or bounced: they will not arrive."""
        for message_id in message_ids:
            self.on_the_way.pop(message_id, None)

    def find(self, at: float) -> int:
        """Return the position in `completed_at` of the first delivery not before *at*."""
        return bisect_left(self.completed_at, at)

    def _complete(self, at: float) -> None:
        self.delivered += 1
        insort(self.completed_at, at)  # almost always at the end
