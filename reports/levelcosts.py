"""What a level costs: response time and memory over the process count.

Given the summary only.
"""

from collections.abc import Sequence

from bokeh.models import NumeralTickFormatter

from reports.curves import Curve, limit_axes
from reports.figures import COLOURS, Chart, Key, add_hover, add_whiskers, make_plot, make_source
from reports.summary import Summary

__all__ = ["draw_memory", "draw_response"]

_MIB = 2.0**20
_FAR = 4.0
"""What is this many times as much as all else is told in words rather than drawn."""


def draw_response(summary: Summary, curves: Sequence[Curve]) -> Chart | None:
    """Return median and 95th percentile of each level; None where no level has them."""
    plot = make_plot("P, processes on each side", "seconds from MAIL to arrival")
    keys: list[Key] = []
    top = 0.0
    for curve in curves:
        of_stock = curve.variant == "stock"
        for name, colour in (("p95", "yellow" if of_stock else "purple"), ("p50", curve.colour)):
            points = [
                (level, value)
                for level in curve.levels
                if (value := level["response_s"][name]) is not None  # type: ignore[literal-required]
            ]
            if not points:
                continue
            source = make_source(
                x=[level["processes"] for level, _ in points],
                y=[value for _, value in points],
                n=[level["response_s"]["messages"] for level, _ in points],
            )
            dash = "solid" if of_stock else [6, 3]
            plot.line("x", "y", source=source, color=COLOURS[colour], line_width=2, line_dash=dash)
            dots = plot.scatter(
                "x", "y", source=source, size=8, color=COLOURS[colour], marker="circle" if of_stock else "diamond"
            )
            add_hover(plot, [dots], [("processes", "@x"), (name, "@y{0.000} s"), ("messages", "@n")])
            keys.append(Key(f"{name}, {curve.name}", colour, "dot" if of_stock else "diamond"))
            top = max(top, *(value for _, value in points))
    if not keys:
        return None
    limit_axes(plot, summary, 1.1 * top)
    return Chart(
        "level-response", "What does a message wait?",
        "Response time to the end of the chain at the load of the sweep, which keeps the queue from running dry: most of it "
        "is waiting in that queue, so compare levels with each other and not with ordinary days.",
        tuple(keys), plot,
    )  # fmt: skip


def draw_memory(summary: Summary, curves: Sequence[Curve]) -> Chart | None:
    """Return the memory of the filter's processes, and what the host had left; None where it was not measured."""
    points = [
        (curve, level)
        for curve in curves
        for level in curve.levels
        if level["memory_bytes"] is not None and level["filter_servers"]
    ]
    if not points:
        return None
    plot = make_plot("filter processes", "MiB")
    keys: list[Key] = []
    most = max(level["memory_bytes"] or 0.0 for _, level in points) / _MIB
    for curve in curves:
        mine = sorted((level for one, level in points if one is curve), key=lambda one: one["filter_servers"] or 0)
        if not mine:
            continue
        source = make_source(
            x=[level["filter_servers"] for level in mine], y=[(level["memory_bytes"] or 0.0) / _MIB for level in mine]
        )
        plot.line("x", "y", source=source, color=COLOURS[curve.colour], line_width=2)
        dots = plot.scatter("x", "y", source=source, size=8, color=COLOURS[curve.colour])
        add_hover(plot, [dots], [("filter processes", "@x"), ("memory", "@y{0} MiB")])
        keys.append(Key(f"filter processes, {curve.name}", curve.colour, "dot"))
    recommendation = summary["recommendation"]
    value, pair = recommendation["memory_bytes"], recommendation["memory_bytes_interval"]
    servers = recommendation["filter_servers"]
    if value is not None and pair is not None and servers is not None:
        source = make_source(x=[servers], y=[value / _MIB], low=[pair[0] / _MIB], high=[pair[1] / _MIB])
        add_whiskers(plot, source, "orange")
        dots = plot.scatter("x", "y", source=source, size=13, color=COLOURS["orange"], fill_alpha=0, line_width=2)
        add_hover(plot, [dots], [("recommended", "@x"), ("memory", "@y{0} MiB"), ("95 %", "@low{0} to @high{0}")])
        keys.append(Key("recommended, 95 %", "orange", "ring"))
        most = max(most, pair[1] / _MIB)
    note = ""
    least = _memory_left(summary)
    if least:
        if max(least.values()) / _MIB <= _FAR * most:
            source = make_source(x=list(least), y=[value / _MIB for value in least.values()])
            plot.line("x", "y", source=source, color=COLOURS["grey"], line_width=1.5, line_dash=[6, 4])
            dots = plot.scatter("x", "y", source=source, size=7, color=COLOURS["grey"])
            add_hover(plot, [dots], [("filter processes", "@x"), ("still available", "@y{0} MiB")])
            keys.append(Key("still available on the host", "grey", "dash"))
            most = max(most, max(least.values()) / _MIB)
        else:
            note = f" The host had at least {min(least.values()) / _MIB:,.0f} MiB left meanwhile, far above this plot."
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    limit_axes(plot, summary, 1.15 * most, reach=max(level["filter_servers"] or 0 for _, level in points))
    return Chart(
        "level-memory", "What do they cost in memory?",
        "Proportional share (Pss) of all filter processes together, mean of the readings: what they share is counted once."
        + note,
        tuple(keys), plot,
    )  # fmt: skip


def _memory_left(summary: Summary) -> dict[int, float]:
    """Return filter processes to the least that the host had left meanwhile, ascending."""
    found: dict[int, float] = {}
    for row in summary["steps"]:
        least, servers = row["host"]["memory_available_bytes"], row["filter_servers"]
        if least is not None and servers and row["valid"] and row["purpose"] != "variant":
            found[servers] = min(least, found.get(servers, least))
    return dict(sorted(found.items()))
