"""What all figures of the report have in common: colours, legends, plain axes, tooltips.

Colours are chosen for readers who see colours differently (after Okabe and
Ito) and hold on light and dark ground; the page recolours axes and text to
its own. No text from a server or a log ever reaches a figure, and none needs
a script evaluated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bokeh.models import BoxZoomTool, ColumnDataSource, HoverTool, ResetTool, SaveTool
from bokeh.models.annotations import TeeHead, Whisker
from bokeh.plotting import figure

__all__ = [
    "COLOURS",
    "HEIGHT",
    "Chart",
    "Figure",
    "Key",
    "add_hover",
    "add_whiskers",
    "make_plot",
    "make_source",
    "style",
]

COLOURS = {
    "blue": "#0b7bc1",
    "orange": "#d55e00",
    "green": "#0a9a74",
    "purple": "#a860a8",
    "yellow": "#b98a00",
    "red": "#c2476a",
    "grey": "#868c95",
}
"""One name, one colour, for figures and page alike."""

HEIGHT = 300
Figure = Any
"""Bokeh's figures take their glyph methods from a decorator that type checkers cannot follow."""


@dataclass(frozen=True)
class Key:
    """One entry of a legend, drawn by the page."""

    label: str
    colour: str
    shape: str = "line"
    """line, dash, dot, ring, mark, cross or area."""


@dataclass(frozen=True)
class Chart:
    """A figure and the words around it."""

    name: str
    title: str
    caption: str
    keys: tuple[Key, ...]
    model: Any


def make_plot(x_label: str, y_label: str) -> Figure:
    """Return an empty plot with two labelled axes and three quiet tools."""
    plot = figure(
        height=HEIGHT + 40,
        sizing_mode="stretch_width",
        tools=[BoxZoomTool(), ResetTool(), SaveTool()],
        toolbar_location="above",
        toolbar_inner=True,
        active_drag=None,
    )
    style(plot)
    plot.xaxis.axis_label, plot.yaxis.axis_label = x_label, y_label
    return plot


def style(plot: Figure) -> None:
    """Take away everything that is not data; the page sets text and line colours for light and dark."""
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.background_fill_color = None
    plot.border_fill_color = None
    plot.outline_line_color = None
    plot.min_border_right = 16
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "13px"
        axis.major_label_text_font_size = "12px"
        axis.axis_label_text_color = axis.major_label_text_color = COLOURS["grey"]
        axis.axis_line_color = axis.major_tick_line_color = COLOURS["grey"]
        axis.minor_tick_line_color = None
        axis.major_tick_in = 0
    plot.xgrid.grid_line_color = None
    plot.ygrid.grid_line_color = COLOURS["grey"]
    plot.ygrid.grid_line_alpha = 0.25


def add_hover(plot: Figure, renderers: Sequence[Any], tooltips: list[tuple[str, str]]) -> None:
    """Show *tooltips* when the pointer is on one of *renderers*."""
    plot.add_tools(HoverTool(renderers=list(renderers), tooltips=tooltips, visible=False))


def add_whiskers(
    plot: Figure,
    source: ColumnDataSource,
    colour: str,
    dimension: Literal["width", "height"] = "height",
    base: Any = "x",
) -> None:
    """Draw the columns "low" to "high" of *source* at *base* (a column or its dodge); "width" lays them across."""
    head: dict[str, Any] = {"size": 8, "line_color": COLOURS[colour], "line_width": 1.5}
    plot.add_layout(
        Whisker(
            base=base, lower="low", upper="high", source=source, dimension=dimension, line_color=COLOURS[colour],
            line_width=1.5, upper_head=TeeHead(**head), lower_head=TeeHead(**head),
        )
    )  # fmt: skip


def make_source(**columns: Sequence[Any]) -> ColumnDataSource:
    """Return the columns of a few points."""
    return ColumnDataSource({name: list(values) for name, values in columns.items()})
