"""What a sweep may change beside the process counts: the known mends, the user's own, and sides out of step.

Pure: names and counts in, a `Setting` for the chain out. A known mend comes
with the defect it mends, so that of two for the same one only the better is
recommended.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from loadgen.chain.tuning import Setting
from loadgen.profile import Variants

__all__ = ["PRESENT", "WIDE_FEED", "Variant", "make_setting", "make_variants"]

PRESENT = "present"
"""The two sides as they were found, where they differ."""
WIDE_FEED = "wide-feed"


@dataclass(frozen=True)
class Variant:
    """One named change."""

    name: str
    about: str
    feed: tuple[tuple[str, str], ...] = ()
    """Options of the feed's service."""
    amavis: tuple[tuple[str, int | str], ...] = ()
    spare: int = 0
    """Filter processes beyond those of the level."""
    spare_share: float = 0.0
    """The same as a share of the level, rounded up."""
    feed_factor: int = 1
    """Feed processes as a multiple of the level."""
    sides: tuple[int, int] | None = None
    """Feed and filter processes, whatever the level."""
    mends: str = ""
    """Id of the finding it is the mend for; empty: the user's own, or out of step on purpose."""
    adoptable: bool = True
    """It may become part of the recommendation."""


def make_variants(wanted: Variants | None, feed_command: str, present: Setting) -> tuple[Variant, ...]:
    """Return the variants of a sweep.

    Args:
        wanted: The table `[variants]` of the profile; None: only what the present settings ask for by themselves.
        feed_command: "lmtp" or "smtp", the program that feeds the filter.
        present: The chain as it was found.
    """
    found: list[Variant] = []
    if present.feed_processes != present.filter_servers:
        sides = (present.feed_processes, present.filter_servers)
        found.append(Variant(PRESENT, "the two sides as they were found", sides=sides, adoptable=False))
    if wanted is None:
        return tuple(found)
    if wanted.known:
        found += _known(feed_command)
    for name, own in sorted(wanted.own.items()):
        found.append(
            Variant(
                name, own.about or "tried as asked for", tuple(sorted(own.feed.items())), tuple(sorted(own.amavis.items())),
                own.spare,
            )
        )  # fmt: skip
    return tuple(found)


def _known(feed_command: str) -> list[Variant]:
    keywords = "smtp_discard_ehlo_keywords" if feed_command == "smtp" else "lmtp_discard_lhlo_keywords"
    return [
        Variant(
            "no-pipelining", "the feed sends one command at a time", ((keywords, "pipelining"),), mends="pipelining-stall"
        ),
        Variant(
            "no-cache", "the feed closes its session after each message",
            ((f"{feed_command}_connection_cache_on_demand", "no"),), mends="held-children",
        ),
        Variant(
            "spare-children", "the filter has half as many processes again as the feed", spare_share=0.5, mends="held-children"
        ),
        Variant(WIDE_FEED, "the feed has twice as many processes as the filter", feed_factor=2, adoptable=False),
    ]  # fmt: skip


def make_setting(processes: int, variants: Iterable[Variant]) -> Setting:
    """Return the setting of *processes* on both sides under *variants*, later ones winning."""
    feed, servers = processes, processes
    options: dict[str, str] = {}
    amavis: dict[str, int | str] = {}
    for variant in variants:
        options.update(variant.feed)
        amavis.update(variant.amavis)
        feed *= variant.feed_factor
        servers += variant.spare + math.ceil(processes * variant.spare_share)
        if variant.sides is not None:
            feed, servers = variant.sides
    return Setting(feed, max(1, servers), tuple(sorted(options.items())), tuple(sorted(amavis.items())))
