"""The curves over the process count that figures show, and the axes they share.

Stock, and after it the variants that are recommended where they were measured
over levels. A level without a valid step is in neither.
"""

from dataclasses import dataclass

from bokeh.models import BasicTicker, FixedTicker

from reports.figures import Figure
from reports.summary import Summary
from reports.sweepsummary import Level, Models
from reports.wording import adopted_variant, name_curve

__all__ = ["Curve", "find_curves", "largest_level", "limit_axes"]

_MOST_TICKS = 16


@dataclass(frozen=True)
class Curve:
    """The levels under one set of variants, ascending."""

    variant: str
    colour: str
    levels: list[Level]
    models: Models | None

    @property
    def name(self) -> str:
        """How its settings are spoken of."""
        return name_curve(self.variant)


def find_curves(summary: Summary) -> list[Curve]:
    """Return stock, and after it the recommended variants if they were measured over levels."""
    sweep = summary["sweep"]
    if sweep is None:
        return []
    adopted = adopted_variant(summary["recommendation"])
    found: list[Curve] = []
    for variant, colour, models in (("stock", "blue", sweep["models"]), (adopted, "green", sweep["models_adopted"])):
        levels = [
            level
            for level in summary["levels"]
            if level["variant"] == variant and level["processes"] and level["delivered_per_s"] is not None
        ]
        if levels and variant not in [curve.variant for curve in found]:
            found.append(Curve(variant, colour, sorted(levels, key=lambda one: one["processes"] or 0), models))
    return found


def largest_level(summary: Summary) -> int:
    """Return the largest level that was asked for, 1 where there is none."""
    return max((level["processes"] or 1 for level in summary["levels"]), default=1)


def limit_axes(plot: Figure, summary: Summary, top: float, reach: int | None = None) -> None:
    """Let the axes begin at zero and end at *top* and at the largest level, or at *reach* if that is more."""
    largest = max(reach or 0, largest_level(summary))
    tested = sorted({level["processes"] for level in summary["levels"] if level["processes"]})
    plot.xaxis.ticker = (
        FixedTicker(ticks=tested) if tested and largest <= _MOST_TICKS else BasicTicker(min_interval=1, num_minor_ticks=0)
    )  # fmt: skip
    plot.x_range.start, plot.x_range.end = 0, 1.06 * largest
    plot.y_range.start, plot.y_range.end = 0, top or 1.0
