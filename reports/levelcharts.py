"""The figures over the process count.

Given the summary only. Levels are dots with their repeats, what was not valid
is hollow, and a law's curve ends where the measurements end. The stock settings are
blue; the settings that are recommended with variants, where they were measured, green.
"""

from collections.abc import Sequence

from bokeh.models.annotations import BoxAnnotation, Label, Span

from reports.charts import draw_delays
from reports.curves import Curve, find_curves, largest_level, limit_axes
from reports.figures import COLOURS, Chart, Figure, Key, add_hover, add_whiskers, make_plot, make_source
from reports.levelcosts import draw_memory, draw_response
from reports.summary import Summary
from reports.wording import LAW_WORDS

__all__ = ["draw_level_charts"]

_TALL = 420


def draw_level_charts(summary: Summary) -> list[Chart]:
    """Return the charts over the process count for what was measured: none for a run that is no sweep."""
    curves = find_curves(summary)
    if not curves:
        return []
    charts = [_draw_throughput(summary, curves), draw_response(summary, curves), draw_memory(summary, curves)]
    delays = {
        f"P = {level['processes']}": (level["feed_delays"], None)
        for level in curves[-1].levels
        if level["feed_delays"] is not None
    }
    if delays:
        about = f"Means of Postfix's delays at each level ({curves[-1].name}), with the queue never dry."
        charts.append(draw_delays(delays, "level", about))
    return [chart for chart in charts if chart is not None]


def _draw_throughput(summary: Summary, curves: Sequence[Curve]) -> Chart:
    plot = make_plot("P, processes on each side", "messages per second")
    plot.height = _TALL
    keys: list[Key] = []
    top = 0.0
    notes = ["Messages that left the end of the chain, per second. A dot is one measurement, a bar with whiskers the mean of a level and its 95 % interval."]  # fmt: skip
    for curve in curves:
        top = max(top, _draw_law(plot, curve, keys, notes), _draw_levels(plot, curve))
        keys.append(Key(f"{curve.name}: mean and 95 %", curve.colour, "bar"))
    keys.append(Key("one measurement", curves[0].colour, "dot"))
    hollow = [
        row
        for row in summary["steps"]
        if not row["valid"] and row["load"] == "saturated" and row["purpose"] != "variant"
        if row["level"] and row["delivered_per_s"] is not None
    ]
    if hollow:
        source = make_source(
            x=[row["level"] for row in hollow],
            y=[row["delivered_per_s"] for row in hollow],
            step=[row["step"] + 1 for row in hollow],
        )
        dots = plot.scatter("x", "y", source=source, size=8, color=COLOURS["grey"], fill_alpha=0, line_width=1.5)
        add_hover(plot, [dots], [("step, not valid", "@step"), ("processes", "@x"), ("delivered", "@y{0.00} msg/s")])
        keys.append(Key("step not valid", "grey", "ring"))
        top = max(top, *(row["delivered_per_s"] or 0.0 for row in hollow))
    _draw_threshold(plot, summary, curves, keys)
    _mark_counts(plot, summary, 1.28 * top, keys)
    limit_axes(plot, summary, 1.28 * top)
    return Chart("levels", "How many processes carry the most?", " ".join(notes), tuple(keys), plot)


def _draw_law(plot: Figure, curve: Curve, keys: list[Key], notes: list[str]) -> float:
    """Draw the chosen law and its band, or plain lines between the levels; return the top of what was drawn."""
    models = curve.models
    if models is None or models["chosen"] is None or not models["models"][models["chosen"]]["curve"]:
        levels = curve.levels
        plot.line(
            [level["processes"] for level in levels], [level["delivered_per_s"] for level in levels],
            color=COLOURS[curve.colour], line_width=1, line_dash=[2, 3],
        )  # fmt: skip
        return 0.0
    x, y, low, high = zip(*models["models"][models["chosen"]]["curve"], strict=True)
    plot.varea(
        "x", "low", "high", source=make_source(x=x, low=low, high=high), color=COLOURS[curve.colour], fill_alpha=0.13
    )
    plot.line("x", "y", source=make_source(x=x, y=y), color=COLOURS[curve.colour], line_width=2)
    law = LAW_WORDS.get(models["chosen"], models["chosen"])
    keys.append(Key(f"{law} with its band", curve.colour, "line"))
    if not notes[1:]:
        notes.append("The line is the law that explains the measurements best, and the band bounds its mean at 95 %; it ends where the measurements end.")  # fmt: skip
    return float(max(high))


def _draw_levels(plot: Figure, curve: Curve) -> float:
    colour, levels = COLOURS[curve.colour], curve.levels
    repeats = [(level, repeat) for level in levels for repeat in level["repeats"]]
    dots = plot.scatter(
        "x", "y", size=6, color=colour, fill_alpha=0.55, line_alpha=0.9,
        source=make_source(
            x=[level["processes"] for level, _ in repeats], y=[repeat["delivered_per_s"] for _, repeat in repeats],
            step=[repeat["step"] + 1 for _, repeat in repeats],
        ),
    )  # fmt: skip
    add_hover(plot, [dots], [("step", "@step"), ("processes", "@x"), ("delivered", "@y{0.00} msg/s")])
    means = [level["delivered_per_s"] or 0.0 for level in levels]
    intervals = [level["interval"] or [mean, mean] for level, mean in zip(levels, means, strict=True)]
    source = make_source(
        x=[level["processes"] for level in levels], y=means, low=[pair[0] for pair in intervals],
        high=[pair[1] for pair in intervals], repeats=[len(level["repeats"]) for level in levels],
        settings=[curve.name] * len(levels),
    )  # fmt: skip
    add_whiskers(plot, source, curve.colour)
    bars = plot.scatter("x", "y", source=source, marker="dash", size=20, color=colour, line_width=3)
    add_hover(
        plot, [bars],
        [
            ("settings", "@settings"), ("processes", "@x"), ("mean", "@y{0.00} msg/s"),
            ("95 %", "@low{0.00} to @high{0.00}"), ("repeats", "@repeats"),
        ],
    )  # fmt: skip
    return max([*means, *(pair[1] for pair in intervals), *(repeat["delivered_per_s"] for _, repeat in repeats)])


def _draw_threshold(plot: Figure, summary: Summary, curves: Sequence[Curve], keys: list[Key]) -> None:
    """Draw how much is enough: the best level less the share that may be missing."""
    recommendation = summary["recommendation"]
    within, best = recommendation["within"], recommendation["best_processes"]
    level = next((one for one in curves[-1].levels if one["processes"] == best), None)
    if within is None or level is None or level["delivered_per_s"] is None:
        return
    place = (1 - within) * level["delivered_per_s"]
    plot.add_layout(
        Span(location=place, dimension="width", line_color=COLOURS["grey"], line_dash=[6, 4], line_width=1, level="underlay")
    )  # fmt: skip
    keys.append(Key(f"within {100 * within:g} % of the best ({best})", "grey", "dash"))


def _mark_counts(plot: Figure, summary: Summary, top: float, keys: list[Key]) -> None:
    """Mark the recommended and the present count, each label on a row of its own so that neighbours do not collide."""
    recommendation = summary["recommendation"]
    wanted, interval = recommendation["processes"], recommendation["interval"]
    sides = [recommendation["present"].get(name) for name in ("feed_processes", "filter_servers")]
    present = min((side for side in sides if side is not None), default=None)
    is_same = sides == [wanted, recommendation["filter_servers"] or wanted]
    if wanted is not None:
        if interval is not None and interval[0] < interval[1]:
            plot.add_layout(
                BoxAnnotation(left=interval[0], right=interval[1], fill_color=COLOURS["orange"], fill_alpha=0.10, line_alpha=0, level="underlay")
            )  # fmt: skip
            keys.append(Key("95 % for the recommended count", "orange", "area"))
        both = " (as it is)" if is_same else ""
        right = _is_right_free(summary, wanted, present, 0.3)
        _add_mark(plot, wanted, f"recommended: {wanted}{both}", "orange", top, row=0, right=right)
    if present is not None and not is_same:
        text = f"present: {present}" if len(set(sides)) == 1 or None in sides else f"present: {sides[0]} and {sides[1]}"
        right = _is_right_free(summary, present, wanted, 0.2)
        _add_mark(plot, present, text, "purple", top, row=1, right=right)


def _is_right_free(summary: Summary, place: int, other: int | None, needs: float) -> bool:
    """Return whether a label belongs to the right of its line: away from the *other*, where its share of the width is there."""
    share = place / largest_level(summary)
    if other is not None and other > place and share >= needs:
        return False
    if other is not None and other < place and share <= 1 - needs:
        return True
    return share < 0.5


def _add_mark(plot: Figure, place: int, text: str, colour: str, top: float, *, row: int, right: bool) -> None:
    plot.add_layout(
        Span(
            location=place, dimension="height", line_color=COLOURS[colour], line_width=1.5,
            line_dash="solid" if row == 0 else [2, 4], level="underlay",
        )
    )  # fmt: skip
    plot.add_layout(
        Label(
            x=place, y=top, x_offset=6 if right else -6, y_offset=-2 - 18 * row, text=text, text_color=COLOURS[colour],
            text_font_size="13px", text_align="left" if right else "right", text_baseline="top",
        )
    )  # fmt: skip
