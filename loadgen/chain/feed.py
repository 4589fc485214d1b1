"""The feed's settings as Postfix has them, and what they must be for a number of processes on both sides.

Pure: `loadgen.chain.postfix` reads and writes them. What is written in the
two files is kept apart from what it comes to, because only the former can be
put back as it was.
"""

from dataclasses import dataclass, replace

from loadgen.errors import ChainError

__all__ = ["FeedState", "FeedText", "plan_feed"]


@dataclass(frozen=True)
class FeedText:
    """What master.cf and main.cf say, word for word."""

    service: str
    """Name of the feed's service; its type is unix."""
    process_limit: str
    """A number, or "-" for the default."""
    options: tuple[tuple[str, str], ...]
    """`-o name=value` of the service, sorted by name."""
    destination_limit: str | None
    """`<feed>_destination_concurrency_limit`; None: main.cf does not have it."""
    initial_concurrency: str | None
    """`<feed>_initial_destination_concurrency`; None: main.cf does not have it."""
    reinjection: str | None = None
    """Name of the service that takes mail back, such as "127.0.0.1:10025", type inet; None: not in this master.cf."""
    reinjection_limit: str = "-"
    """Its process limit."""


@dataclass(frozen=True)
class FeedState:
    """What was found."""

    text: FeedText
    command: str
    """lmtp or smtp."""
    processes: int | None
    """maxproc of the feed with the default filled in; None: no limit."""
    destination_concurrency: int | None
    """In effect; None: no limit."""
    initial_concurrency: int
    """In effect."""
    reinjection_processes: int | None
    """Most processes of the service that takes mail back; None: no limit, or no such service here."""

    @property
    def width(self) -> int | None:
        """Messages that it hands over at once, by whichever limit is the lower one; None: no limit."""
        return min((n for n in (self.processes, self.destination_concurrency) if n is not None), default=None)


def plan_feed(
    found: FeedState, *, feed_processes: int, filter_servers: int, options: tuple[tuple[str, str], ...] = ()
) -> FeedText:
    """Return what the files must say for these process counts, given what they said when they were *found*.

    The destination concurrency limit and its initial value are raised where they are lower than the feed's
    processes, the reinjection service is widened where it is narrower than the filter, and nothing is lowered.

    Raises:
        ChainError: an option that postconf could not write, or not write back.
    """
    had = dict(found.text.options)
    for name, value in options:
        for word in (value, had.get(name, "")):
            if word.split() not in ([], [word]):
                raise ChainError(
                    f'{found.text.service}: -o {name}="{word}": postconf cannot write a value with white space; '
                    "separate its parts with commas, or leave this option alone"
                )
    text = replace(
        found.text,
        process_limit=str(feed_processes) if found.processes != feed_processes else found.text.process_limit,
        options=tuple(sorted({**had, **dict(options)}.items())),
    )
    if found.destination_concurrency is not None and found.destination_concurrency < feed_processes:
        text = replace(text, destination_limit=str(feed_processes))
    if found.initial_concurrency < feed_processes:
        text = replace(text, initial_concurrency=str(feed_processes))
    if found.reinjection_processes is not None and found.reinjection_processes < filter_servers:
        text = replace(text, reinjection_limit=str(filter_servers))
    return text
