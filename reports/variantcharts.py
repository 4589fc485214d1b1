"""The figures of what was compared with stock: gains of the variants, and sides that differ.

Given the summary only. A gain whose interval holds zero is grey: it was not shown.
"""

from collections.abc import Sequence

from bokeh.models import ColumnDataSource, FactorRange, NumeralTickFormatter
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from bokeh.transform import dodge

from reports.figures import COLOURS, HEIGHT, Chart, Figure, Key, add_hover, add_whiskers, style
from reports.foreign import clean
from reports.summary import Summary
from reports.sweepsummary import Gain, Mismatch
from reports.wording import LOAD_WORDS

__all__ = ["draw_variant_charts"]

_LONGEST_NAME = 22
_ROW_HEIGHT = 44


def draw_variant_charts(summary: Summary) -> list[Chart]:
    """Return the gains at each load that was measured, and the cost of sides that differ."""
    sweep = summary["sweep"]
    if sweep is None:
        return []
    names = _short_names([result["name"] for result in sweep["variants"]])
    by_load: dict[str, list[tuple[str, Gain]]] = {}
    for name, result in zip(names, sweep["variants"], strict=True):
        for gain in result["gains"]:
            by_load.setdefault(gain["load"], []).append((name, gain))
    ends = [100 * end for gains in by_load.values() for _, gain in gains for end in (*gain["interval"], gain["ratio"])]
    if ends:
        # one scale for all loads, with zero on it
        low, high = min(-5.0, *ends), max(5.0, *ends)
        reach = (low - 0.06 * (high - low), high + 0.06 * (high - low))
    charts = [_draw_gains(load, by_load[load], reach) for load in LOAD_WORDS if load in by_load]
    if sweep["mismatches"]:
        charts.append(_draw_sides(summary, sweep["mismatches"]))
    return charts


def _draw_gains(load: str, gains: Sequence[tuple[str, Gain]], reach: tuple[float, float]) -> Chart:
    plot: Figure = figure(
        y_range=FactorRange(factors=[name for name, _ in reversed(gains)]), height=70 + _ROW_HEIGHT * len(gains),
        sizing_mode="stretch_width", tools="", toolbar_location=None,
    )  # fmt: skip
    style(plot)
    plot.xaxis.axis_label = "throughput against stock, %"
    plot.xaxis.formatter = NumeralTickFormatter(format="+0")
    plot.ygrid.grid_line_color = None
    plot.xgrid.grid_line_color, plot.xgrid.grid_line_alpha = COLOURS["grey"], 0.25
    plot.x_range.start, plot.x_range.end = reach
    plot.add_layout(Span(location=0, dimension="height", line_color=COLOURS["grey"], line_width=1.5, level="underlay"))
    keys = []
    for label, colour, chosen in (
        ("surely more", "blue", [one for one in gains if one[1]["significant"] and one[1]["ratio"] > 0]),
        ("surely less", "orange", [one for one in gains if one[1]["significant"] and one[1]["ratio"] <= 0]),
        ("not told from zero", "grey", [one for one in gains if not one[1]["significant"]]),
    ):
        if not chosen:
            continue
        source = ColumnDataSource(
            {
                "name": [name for name, _ in chosen],
                "x": [100 * gain["ratio"] for _, gain in chosen],
                "low": [100 * gain["interval"][0] for _, gain in chosen],
                "high": [100 * gain["interval"][1] for _, gain in chosen],
                "pairs": [gain["pairs"] for _, gain in chosen],
                "sessions": [gain["concurrency"] for _, gain in chosen],
            }
        )
        add_whiskers(plot, source, colour, dimension="width", base="name")
        dots = plot.scatter("x", "name", source=source, size=10, color=COLOURS[colour])
        add_hover(
            plot, [dots],
            [
                ("variant", "@name"), ("gain", "@x{+0.0} %"), ("95 %", "@low{+0.0} to @high{+0.0} %"), ("pairs", "@pairs"),
                ("sessions", "@sessions"),
            ],
        )  # fmt: skip
        keys.append(Key(f"{label}, 95 % interval", colour, "dot"))
    words = LOAD_WORDS[load]
    about = (
        "With so few sessions that no process waits for another: what a stall of each message costs shows here."
        if load == "low"
        else "With the queue never dry: this is capacity."
    )
    return Chart(f"gains-{load}", f"What does each change bring at {words}?", about, tuple(keys), plot)


def _draw_sides(summary: Summary, mismatches: Sequence[Mismatch]) -> Chart:
    names = [f"{one['feed_processes']} : {one['filter_servers']}" for one in mismatches]
    names = [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]  # fmt: skip
    plot: Figure = figure(
        x_range=FactorRange(factors=names), height=HEIGHT, sizing_mode="stretch_width", tools="", toolbar_location=None
    )
    style(plot)
    plot.xaxis.axis_label, plot.yaxis.axis_label = "feed processes : filter processes", "messages per second"
    stock = {one["processes"]: one["interval"] for one in summary["levels"] if one["variant"] == "stock"}
    top = 0.0
    for place, colour, rates, intervals in (
        (-0.17, "blue", [one["equal_per_s"] for one in mismatches], [stock.get(one["equal_processes"]) for one in mismatches]),
        (0.17, "orange", [one["delivered_per_s"] for one in mismatches], [one["interval"] for one in mismatches]),
    ):  # fmt: skip
        pairs = [pair or [rate, rate] for pair, rate in zip(intervals, rates, strict=True)]
        source = ColumnDataSource(
            {
                "name": names, "y": rates, "low": [low for low, _ in pairs], "high": [high for _, high in pairs],
                "both": [one["equal_processes"] for one in mismatches],
            }
        )  # fmt: skip
        at = dodge("name", place, range=plot.x_range)
        bars = plot.vbar(
            x=at, top="y", width=0.26, source=source, color=COLOURS[colour], fill_alpha=0.35, line_width=1.5
        )
        add_whiskers(plot, source, colour, base=at)
        sides = ("both sides", "@both") if colour == "blue" else ("feed : filter", "@name")
        add_hover(plot, [bars], [sides, ("delivered", "@y{0.00} msg/s"), ("95 %", "@low{0.00} to @high{0.00}")])
        top = max(top, *(high for _, high in pairs), *rates)
    plot.y_range.start, plot.y_range.end = 0, 1.12 * top or 1.0
    return Chart(
        "sides", "What does it cost when the two sides differ?",
        "Each pair against the smaller of the two numbers on both sides, at saturation; whiskers are 95 % intervals.",
        (Key("the smaller number on both sides", "blue", "area"), Key("sides that differ", "orange", "area")), plot,
    )  # fmt: skip


def _short_names(names: Sequence[str]) -> list[str]:
    """Return names for an axis, each once."""
    found: list[str] = []
    for name in names:
        short = clean(name)
        short = short if len(short) <= _LONGEST_NAME else f"{short[: _LONGEST_NAME - 1]}\u2026"
        found.append(f"{short} ({len(found) + 1})" if short in found or not short else short)
    return found
