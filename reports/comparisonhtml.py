"""A comparison as one HTML file: the changes with their intervals against the margins, and both curves in one figure."""

from collections.abc import Sequence

from bokeh.models.annotations import BoxAnnotation, Span

from loadgen import __version__
from reports.comparisontext import say_needed
from reports.figures import COLOURS, Chart, Key, add_hover, add_whiskers, make_plot, make_source
from reports.page import make_environment, prepare_scripts
from reports.runcomparison import Compared, Comparison

__all__ = ["render_comparison_html"]

_VERDICT_COLOURS = {"improved": "green", "equivalent": "blue", "regression": "orange", "inconclusive": "grey"}
_ROW_HEIGHT = 44


def render_comparison_html(found: Comparison, base: Sequence[str], candidate: Sequence[str], now_s: float) -> str:
    """Return the page; *base* and *candidate* name the runs, *now_s* (Unix seconds) dates it."""
    environment = make_environment()
    charts = (_draw_changes(found), _draw_curves(found))
    return environment.get_template("compare.html.jinja").render(
        c=found,
        needed=say_needed(found),
        base=base,
        candidate=candidate,
        now_s=now_s,
        version=__version__,
        colours=COLOURS,
        charts={chart.name: chart for chart in charts},
        **prepare_scripts(environment, charts),
    )


def _draw_changes(found: Comparison) -> Chart:
    """Draw one row for each metric: better is to the right, whatever better means for it."""
    rows = found["metrics"]
    plot = make_plot("change for the better, per cent", "")
    plot.height = 110 + _ROW_HEIGHT * len(rows)
    places = [len(rows) - number for number in range(len(rows))]
    reach = [5.0]
    for place, row in zip(places, rows, strict=True):
        better, low, high = _gains(row)
        reach += [abs(low), abs(high), abs(better)]
        margin = BoxAnnotation(
            left=-100 * row["margin"], right=100 * row["margin"], bottom=place - 0.35, top=place + 0.35,
            fill_color=COLOURS["grey"], fill_alpha=0.15, line_color=None,
        )  # fmt: skip
        plot.add_layout(margin)
        colour = _VERDICT_COLOURS[row["verdict"]]
        source = make_source(
            x=[better], y=[place], low=[low], high=[high], words=[row["words"]], verdict=[row["verdict"]]
        )
        add_whiskers(plot, source, colour, "width", "y")
        dots = plot.scatter("x", "y", source=source, size=10, color=COLOURS[colour])
        add_hover(
            plot,
            [dots],
            [("", "@words"), ("better by", "@x{0.0} %"), ("95 %", "@low{0.0} to @high{0.0} %"), ("", "@verdict")],
        )
    plot.add_layout(Span(location=0, dimension="height", line_color=COLOURS["grey"], line_width=1))
    plot.yaxis.ticker = places
    plot.yaxis.major_label_overrides = {place: row["words"] for place, row in zip(places, rows, strict=True)}
    plot.y_range.start, plot.y_range.end = 0.4, len(rows) + 0.6
    plot.x_range.start, plot.x_range.end = -1.1 * max(reach), 1.1 * max(reach)
    seen = dict.fromkeys(row["verdict"] for row in rows)
    keys = [Key(verdict, _VERDICT_COLOURS[verdict], "dot") for verdict in seen]
    return Chart(
        "changes",
        "What has changed?",
        "Candidate against base, right is better, with 95 % intervals. Grey bands: changes within the margin. Wholly left of its band: a "
        "regression; wholly within: equivalent.",
        (*keys, Key("margin", "grey", "area")),
        plot,
    )


def _gains(row: Compared) -> tuple[float, float, float]:
    """Return the change and its interval in per cent, positive where it is for the better."""
    low, high = row["interval"] or (row["ratio"], row["ratio"])
    if row["higher_is_better"]:
        return 100 * (row["ratio"] - 1), 100 * (low - 1), 100 * (high - 1)
    return 100 * (1 - row["ratio"]), 100 * (1 - high), 100 * (1 - low)


def _draw_curves(found: Comparison) -> Chart:
    rows = found["curve"]
    plot = make_plot("load, as the steps have it", "messages per second")
    places = list(range(1, len(rows) + 1))
    keys = []
    top = 1.0
    for side, colour, shift in (("base", "blue", -0.06), ("candidate", "orange", 0.06)):
        values: list[list[float]] = [row[side] for row in rows]  # type: ignore[literal-required]
        means = [sum(one) / len(one) for one in values]
        plot.line([place + shift for place in places], means, color=COLOURS[colour], line_width=2)
        points = [
            (place + shift, value, row["metric"], number + 1)
            for place, row, one in zip(places, rows, values, strict=True)
            for number, value in enumerate(one)
        ]
        source = make_source(
            x=[p[0] for p in points], y=[p[1] for p in points], load=[p[2] for p in points], run=[p[3] for p in points]
        )
        dots = plot.scatter("x", "y", source=source, size=7, color=COLOURS[colour], fill_alpha=0.5)
        add_hover(plot, [dots], [(side, "run @run"), ("load", "@load"), ("delivered", "@y{0.00} msg/s")])
        keys.append(Key(side, colour, "dot"))
        top = max(top, *(value for one in values for value in one))
    plot.xaxis.ticker = places
    plot.xaxis.major_label_overrides = {place: row["metric"] for place, row in zip(places, rows, strict=True)}
    plot.x_range.start, plot.x_range.end = 0.5, len(rows) + 0.5
    plot.y_range.start, plot.y_range.end = 0, 1.12 * top
    return Chart(
        "curves",
        "Where along the load does it differ?",
        "Delivered throughput of every run at each load that all of them have; lines through the means.",
        tuple(keys),
        plot,
    )
