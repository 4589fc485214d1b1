"""A service station in virtual time: when would each message be done, if the law held exactly?

Pure: the caller says what the clock shows. The station simulates processor
sharing with a queue in front: up to `servers` messages are in service, n of
them progress at X(n)/n each, the others wait in order. Completions happen at
the instants that follow from the law, however late the caller looks, and the
next message starts at that very instant; so the lateness of a real event loop
never adds up, and the capacity is exactly X(servers).
"""

from collections import deque
from collections.abc import Callable

__all__ = ["Station"]

_DONE = 1e-9


class Station:
    """Messages, by key, in service and waiting."""

    def __init__(self, servers: int, throughput_per_s: Callable[[int], float]) -> None:
        """Serve with *servers* servers; *throughput_per_s* gives msg/s for a number of busy ones."""
        self._servers = servers
        self._throughput_per_s = throughput_per_s
        self._now = 0.0
        self._left: dict[str, float] = {}
        self._waiting: deque[str] = deque()

    @property
    def busy(self) -> int:
        """Messages in service."""
        return len(self._left)

    def enter(self, key: str, at: float) -> list[tuple[str, float]]:
        """Let a message in at instant *at*, not before any earlier one, and return what `advance` to it does.

        Every message needs its whole service: time spent before it came in counts for nothing, or senders slow
        enough to find a server free would be served in no time, and the capacity would not be the law's.
        """
        completed = self.advance(at)
        if len(self._left) < self._servers:
            self._left[key] = 1.0
        else:
            self._waiting.append(key)
        return completed

    def advance(self, to: float) -> list[tuple[str, float]]:
        """Move the clock to *to* and return the messages completed on the way with their exact instants."""
        completed: list[tuple[str, float]] = []
        while (due := self.next_completion()) is not None and due <= to:
            self._progress(due)
            for key in [key for key, left in self._left.items() if left <= _DONE]:
                del self._left[key]
                completed.append((key, due))
                if self._waiting:
                    self._left[self._waiting.popleft()] = 1.0
        self._progress(max(to, self._now))
        return completed

    def next_completion(self) -> float | None:
        """Return the instant at which the next message will be done, if none enters before; None when idle."""
        if not self._left:
            return None
        busy = len(self._left)
        return self._now + min(self._left.values()) * busy / self._throughput_per_s(busy)

    def _progress(self, to: float) -> None:
        busy = len(self._left)
        if busy:
            done = (to - self._now) * self._throughput_per_s(busy) / busy
            for key in self._left:
                self._left[key] -= done
        self._now = to
