"""The figures over the length of the run: rates, queues, processes, the host.

Drawn from the thinned series; the holds are shaded in each, so that what was
measured can be told from what was not.
"""

from collections.abc import Iterable

from bokeh.models import ColumnDataSource, NumeralTickFormatter
from bokeh.models.annotations import BoxAnnotation, Label, Span

from reports.figures import COLOURS, HEIGHT, Chart, Figure, Key, add_hover, make_plot
from reports.series import Series
from reports.summary import Summary

__all__ = ["draw_time_charts"]


def draw_time_charts(summary: Summary, series: Series) -> list[Chart]:
    """Return the charts over the length of the run, for what was sampled."""
    run = summary["run"]
    charts = [
        _draw_lines(
            series, "rates", "Did mail leave as fast as it came in?", "messages per second",
            "Accepted by the front and delivered at the end, counted in slots. The holds are shaded; a valid hold is level.",
            (("rate.accepted", "accepted", "yellow"), ("rate.delivered", "delivered", "blue")),
        ),
        _draw_lines(
            series, "queue", "Did the queue grow?", "messages in the queue",
            "All queues of Postfix together, and the part before and after the filter where the log tells it.",
            (
                ("queue.depth", "all queues", "blue"), ("queue.pass1", "before the filter", "orange"),
                ("queue.pass2", "after reinjection", "green"), ("queue.deferred", "deferred", "purple"),
            ),
        ),
        _draw_processes(summary, series),
        _draw_lines(
            series, "cpu", "How busy was the host?", "cores",
            "Everything on the host, this tool included. Steal is what a hypervisor took away.",
            (
                ("host.cpu_busy", "busy", "blue"), ("host.cpu_iowait", "waiting for the disk", "orange"),
                ("host.cpu_steal", "stolen", "purple"),
            ),
            limits=((float(run["cpus"]), "cores of the host"),) if run["cpus"] else (),
        ),
        _draw_lines(
            series, "pressure", "Did anything wait for the hardware?", "share of time",
            "Pressure stall information: the share of time in which some task waited for a CPU, all tasks waited for the "
            "disk, or some waited for memory.",
            (
                ("host.psi_cpu_some", "CPU (some)", "blue"), ("host.psi_io_full", "disk (full)", "orange"),
                ("host.psi_memory_some", "memory (some)", "purple"),
            ),
            form="0%",
        ),
        _draw_lines(
            series, "memory", "Did memory stay flat?", "MiB",
            "Proportional share (Pss) of all filter processes together. What the host could still give is in the table "
            "below.",
            (("amavis.pss_bytes", "filter processes", "blue"),),
            form="0",
            scale=2.0**-20,
        ),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def _draw_lines(
    series: Series,
    name: str,
    title: str,
    unit: str,
    caption: str,
    lines: Iterable[tuple[str, str, str]],
    limits: Iterable[tuple[float, str]] = (),
    form: str = "0.[0]",
    scale: float = 1.0,
) -> Chart | None:
    plot = _make_time_plot(series, unit)
    keys, top = [], 0.0
    for gauge, label, colour in lines:
        if gauge not in series.lines:
            continue
        at, values = series.lines[gauge][0], series.lines[gauge][1] * scale
        source = ColumnDataSource({"x": at.astype("float32"), "y": values.astype("float32")})
        drawn = plot.line("x", "y", source=source, color=COLOURS[colour], line_width=1.5)
        add_hover(plot, [drawn], [("second", "@x{0.0}"), (label, f"@y{{{form}}}")])
        keys.append(Key(label, colour))
        top = max(top, float(values.max()))
    if not keys:
        return None
    for place, label in limits:
        plot.add_layout(
            Span(location=place, dimension="width", line_color=COLOURS["grey"], line_dash=[6, 4], line_width=1.5)
        )  # fmt: skip
        keys.append(Key(label, "grey", "dash"))
        top = max(top, place)
    plot.yaxis.formatter = NumeralTickFormatter(format=form)
    _close_time_plot(plot, series, top)
    return Chart(name, title, caption, tuple(keys), plot)


def _draw_processes(summary: Summary, series: Series) -> Chart | None:
    if series.processes is None:
        return None
    plot = _make_time_plot(series, "filter processes")
    at, parts = series.processes
    data = {"x": at.astype("float32"), **{name: y.astype("float32") for name, y in parts.items()}}
    known = {"busy": ("busy", "blue"), "held": ("held by an idle session", "orange"), "free": ("free", "grey")}
    names = [name for name in known if name in parts]
    plot.varea_stack(
        names, x="x", source=ColumnDataSource(data), color=[COLOURS[known[n][1]] for n in names],
        alpha=[0.25 if n == "free" else 0.75 for n in names],
    )  # fmt: skip
    keys = [Key(*known[name], shape="area") for name in names]
    top = float(sum(parts.values()).max())  # type: ignore[union-attr]
    run = summary["run"]
    for limit, label, colour in (
        (run["filter_servers"], "$max_servers", "grey"),
        (run["feed_processes"], "maxproc of the feed", "purple"),
    ):
        if limit is None or (label.startswith("maxproc") and limit == run["filter_servers"]):
            continue
        both = label == "$max_servers" and run["feed_processes"] == limit
        plot.add_layout(
            Span(location=limit, dimension="width", line_color=COLOURS[colour], line_dash=[6, 4], line_width=1.5)
        )  # fmt: skip
        keys.append(Key("$max_servers = maxproc" if both else label, colour, "dash"))
        top = max(top, limit)
    _close_time_plot(plot, series, top)
    return Chart(
        "processes",
        "Were the filter's processes all busy?",
        f"By what the processes say of themselves; means over {series.slot_s:.3g} s. A held process waits for an idle connection of "
        "the feed and can serve nobody else.",
        tuple(keys),
        plot,
    )


def _make_time_plot(series: Series, unit: str) -> Figure:
    plot = make_plot("seconds since the start of the run", unit)
    plot.height = HEIGHT
    for hold in series.holds:
        plot.add_layout(
            BoxAnnotation(
                left=hold.began_at, right=hold.ended_at, fill_color=COLOURS["grey"], fill_alpha=0.13 if hold.valid else 0.05,
                line_alpha=0 if hold.valid else 0.5, line_dash=[3, 3], line_color=COLOURS["grey"], level="underlay",
            )
        )  # fmt: skip
    plot.x_range.start, plot.x_range.end = 0, max(series.end_at, 1.0)
    return plot


def _close_time_plot(plot: Figure, series: Series, top: float) -> None:
    """Fix the upper end, and write each hold's concurrency below it where there is room."""
    top = 1.2 * top or 1.0
    plot.y_range.start, plot.y_range.end = 0, top
    narrow = 0.07 * series.end_at
    for hold in series.holds:
        if hold.ended_at - hold.began_at >= narrow:
            plot.add_layout(
                Label(
                    x=(hold.began_at + hold.ended_at) / 2, y=top, y_offset=-4, text=hold.name, name="hold",
                    text_align="center", text_baseline="top", text_font_size="11px", text_color=COLOURS["grey"],
                )
            )  # fmt: skip
