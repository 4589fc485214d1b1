"""The figures over the load: throughput, response time, time at the stations.

Given the summary only, so a figure cannot show a number that `summary.json`
does not have. Steps that are not valid are hollow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import ColumnDataSource
from bokeh.models.annotations import BoxAnnotation, Label, Span
from bokeh.models.ranges import FactorRange
from bokeh.plotting import figure

from reports.figures import COLOURS, HEIGHT, Chart, Figure, Key, add_hover, add_whiskers, make_plot, make_source, style
from reports.steprow import Delays, StepRow, name_step
from reports.summary import Summary

__all__ = ["draw_delays", "draw_step_charts"]


def draw_step_charts(summary: Summary) -> list[Chart]:
    """Return the charts whose values are those of `summary.json`."""
    rows = [row for row in summary["steps"] if row["delivered_per_s"] is not None]
    if not rows:
        return []
    charts = [_draw_throughput(summary, rows), _draw_response(summary, rows)]
    if any(row["feed_delays"] for row in rows):
        charts.append(_draw_stations(rows))
    return charts


def _draw_throughput(summary: Summary, rows: Sequence[StepRow]) -> Chart:
    verdict, is_rate = summary["verdict"], summary["run"]["pacing"] == "rate"
    plot = make_plot(_load_label(summary), "messages per second")
    keys = [Key("delivered, 95 % interval", "blue", "dot")]
    invalid = [row for row in rows if not row["valid"]]
    valid = sorted((row for row in rows if row["valid"]), key=lambda r: _load(summary, r))
    most = max(_load(summary, row) for row in rows)
    highest = max(max(row["delivered_per_s"] or 0, (row["delivered_per_s_interval"] or [0, 0])[1]) for row in rows)

    interval, plateau = verdict["delivered_per_s_interval"], verdict["delivered_per_s"]
    if interval is not None and plateau is not None:
        plot.add_layout(
            BoxAnnotation(bottom=interval[0], top=interval[1], fill_color=COLOURS["green"], fill_alpha=0.16, line_alpha=0, level="underlay")
        )  # fmt: skip
        plot.add_layout(
            Span(location=plateau, dimension="width", line_color=COLOURS["green"], line_width=1.5, level="underlay")
        )
        keys.append(Key("plateau with its interval", "green", "area"))
    if verdict["concurrency"] is not None and not is_rate:
        place = verdict["concurrency"]
        plot.add_layout(
            Span(location=place, dimension="height", line_color=COLOURS["orange"], line_dash=[2, 4], line_width=1.5)
        )  # fmt: skip
        plot.add_layout(
            Label(x=place, y=0, y_offset=6, x_offset=6, text=f"N* = {place}", text_color=COLOURS["orange"], text_font_size="13px")
        )  # fmt: skip
        keys.append(Key("saturation point", "orange", "dash"))
    top = 1.12 * highest
    if is_rate:
        plot.line([0, most], [0, most], color=COLOURS["grey"], line_dash=[6, 4], line_width=1.5)
        keys.append(Key("as much as was offered", "grey", "dash"))
    elif valid and (mean := valid[0]["response_s"]["mean"]) and summary["run"]["pacing"] == "delivered":
        reach = min(most, top * mean)
        plot.line([0, reach], [0, reach / mean], color=COLOURS["grey"], line_dash=[6, 4], line_width=1.5)
        keys.append(Key("if no message ever waited", "grey", "dash"))
    accepted = [row for row in rows if row["accepted_per_s"] is not None]
    shown = [row for row in accepted if (row["accepted_per_s"] or 0) <= 1.6 * top]
    if shown:
        source = make_source(x=[_load(summary, r) for r in shown], y=[r["accepted_per_s"] for r in shown])
        plot.scatter(
            "x", "y", source=source, marker="triangle", size=17, line_width=2, color=COLOURS["yellow"], fill_alpha=0
        )
        keys.append(Key("accepted by the front", "yellow", "mark"))
        top = max(top, 1.05 * max(row["accepted_per_s"] or 0 for row in shown))
    plot.line(
        [_load(summary, r) for r in valid],
        [r["delivered_per_s"] for r in valid],
        color=COLOURS["blue"],
        line_width=2,
    )
    for chosen, hollow in ((valid, False), (invalid, True)):
        _add_points(plot, summary, chosen, "delivered_per_s", "blue", hollow=hollow)
    if known := [row for row in rows if row["known_delivered_per_s"] is not None]:
        source = make_source(x=[_load(summary, r) for r in known], y=[r["known_delivered_per_s"] for r in known])
        plot.scatter("x", "y", source=source, marker="cross", size=22, line_width=2, color=COLOURS["purple"])
        keys.append(Key("known law of the reference chain", "purple", "cross"))
        top = max(top, 1.1 * max(row["known_delivered_per_s"] or 0 for row in known))
    if invalid:
        keys.append(Key("step not valid", "blue", "ring"))
    _limit(plot, most, top)
    outside = len(accepted) - len(shown)
    return Chart(
        "throughput",
        "Where does throughput stop following the load?",
        "Messages that left the end of the chain, per second of hold. Acceptance by the front is not capacity."
        + (f" {outside} accepted rates are far above the plot and left out." if outside else ""),
        tuple(keys),
        plot,
    )


def _draw_response(summary: Summary, rows: Sequence[StepRow]) -> Chart:
    plot = make_plot(_load_label(summary), "seconds from MAIL to arrival")
    keys, top = [], 0.0
    ordered = sorted(rows, key=lambda r: _load(summary, r))
    for name, colour in (("p99", "orange"), ("p95", "yellow"), ("p50", "blue")):
        points = [(row, row["response_s"][name]) for row in ordered]  # type: ignore[literal-required]
        points = [(row, y) for row, y in points if y is not None]
        if not points:
            continue
        keys.append(Key(name, colour, "dot"))
        top = max(top, *(y for _, y in points))
        good = [(row, y) for row, y in points if row["valid"]]
        plot.line([_load(summary, r) for r, _ in good], [y for _, y in good], color=COLOURS[colour], line_width=2)
        for chosen, hollow in ((good, False), ([p for p in points if not p[0]["valid"]], True)):
            source = make_source(
                x=[_load(summary, r) for r, _ in chosen],
                y=[y for _, y in chosen],
                n=[r["response_s"]["messages"] for r, _ in chosen],
            )
            dots = plot.scatter(
                "x", "y", source=source, size=8, color=COLOURS[colour], fill_alpha=0 if hollow else 1, line_width=2
            )  # fmt: skip
            add_hover(plot, [dots], [(_load_word(summary), "@x{0.##}"), (name, "@y{0.000} s"), ("messages", "@n")])
    keys.reverse()
    if any(not row["valid"] for row in rows):
        keys.append(Key("step not valid", "grey", "ring"))
    _limit(plot, max(_load(summary, row) for row in rows), 1.1 * top)
    intended = ", from the instant each message was due" if summary["run"]["pacing"] == "rate" else ""
    return Chart(
        "response",
        "What delay do more sessions buy?",
        f"Response time to the end of the chain{intended}, of the messages started in the hold. A percentile needs ten "
        "values beyond it: p95 200 messages, p99 1000.",
        tuple(keys),
        plot,
    )


def _draw_stations(rows: Sequence[StepRow]) -> Chart:
    chosen = [row for row in rows if row["feed_delays"]]
    names = [name_step(row) for row in chosen]
    names = [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)
    ]
    delays = {name: (row["feed_delays"], row["delivery_delays"]) for name, row in zip(names, chosen, strict=True)}
    return draw_delays(delays, "step", "Postfix's delays of the messages started in each hold.")


def draw_delays(delays: Mapping[str, tuple[Delays | None, Delays | None]], word: str, about: str) -> Chart:
    """Return bars of the mean time at the stations.

    Args:
        delays: Name of a bar to its delays before the filter is done, and after reinjection; None: not known.
        word: What a bar stands for.
        about: First sentence of the caption.
    """
    plot: Figure = figure(
        x_range=FactorRange(factors=list(delays)),
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
    )
    style(plot)
    plot.yaxis.axis_label = "mean seconds per message"
    parts = [
        ("a", "a: before the active queue", "grey"),
        ("b", "b: waiting for a feed process", "orange"),
        ("c", "c: waiting for the filter to answer", "purple"),
        ("d", "d: in the filter, reinjection included", "blue"),
    ]
    data: dict[str, Any] = {"name": list(delays)}
    for key, _, _ in parts:
        data[key] = [feed[f"{key}_s"] if feed else 0.0 for feed, _ in delays.values()]  # type: ignore[literal-required]
    if any(after for _, after in delays.values()):
        parts.append(("second", "after reinjection (a to d)", "green"))
        data["second"] = [
            d["a_s"] + d["b_s"] + d["c_s"] + d["d_s"] if (d := after) else 0.0 for _, after in delays.values()
        ]
    bars = plot.vbar_stack(
        [key for key, _, _ in parts], x="name", width=0.55, source=ColumnDataSource(data),
        color=[COLOURS[colour] for _, _, colour in parts], line_width=0,
    )  # fmt: skip
    add_hover(plot, bars, [(word, "@name"), *((key, f"@{key}{{0.000}} s") for key in data if key != "name")])
    plot.y_range.start = 0
    plot.xgrid.grid_line_color = None
    return Chart(
        "stations",
        "Where does a message spend its time?",
        f"{about} Growing b: the feed's processes are the limit. Growing c: the filter has too few. Growing d: the work "
        "itself got slower, mostly for want of CPU.",
        tuple(Key(label, colour, "area") for _, label, colour in parts),
        plot,
    )


def _add_points(
    plot: Figure, summary: Summary, rows: Sequence[StepRow], name: str, colour: str, *, hollow: bool
) -> None:
    if not rows:
        return
    y = [row[name] for row in rows]  # type: ignore[literal-required]
    intervals = [row["delivered_per_s_interval"] or [v, v] for row, v in zip(rows, y, strict=True)]
    source = make_source(
        x=[_load(summary, r) for r in rows],
        y=y,
        low=[i[0] for i in intervals],
        high=[i[1] for i in intervals],
        step=[r["step"] + 1 for r in rows],
    )
    add_whiskers(plot, source, colour)
    dots = plot.scatter(
        "x", "y", source=source, size=10, color=COLOURS[colour], fill_alpha=0 if hollow else 1, line_width=2
    )
    add_hover(
        plot, [dots],
        [("step", "@step"), (_load_word(summary), "@x{0.##}"), ("delivered", "@y{0.00} msg/s"), ("95 %", "@low{0.00} to @high{0.00}")],
    )  # fmt: skip


def _limit(plot: Figure, x: float, y: float) -> None:
    plot.x_range.start, plot.x_range.end = 0, 1.06 * x or 1.0
    plot.y_range.start, plot.y_range.end = 0, y or 1.0


def _load(summary: Summary, row: StepRow) -> float:
    if summary["run"]["pacing"] == "rate":
        return row["offered_per_s"] or row["rate_per_s"] or 0.0
    return float(row["concurrency"])


def _load_word(summary: Summary) -> str:
    return "offered" if summary["run"]["pacing"] == "rate" else "sessions"


def _load_label(summary: Summary) -> str:
    return "offered, messages per second" if summary["run"]["pacing"] == "rate" else "N, concurrent sessions"
