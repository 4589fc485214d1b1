"""The figure of what each entry of the chain carries, on one axis."""

from collections.abc import Sequence

from reports.figures import COLOURS, Chart, Figure, Key, add_hover, add_whiskers, make_plot, make_source
from reports.steprow import StepRow
from reports.summary import Summary

__all__ = ["draw_stages"]

_COLOURS = {
    "front": "blue", "submission": "green", "pickup": "purple", "inside": "red", "filter": "orange", "reinjection": "yellow",
}  # fmt: skip


def draw_stages(summary: Summary) -> Chart:
    """Return throughput over concurrency, one line per entry; for a run with several."""
    stages = summary["stages"]
    assert stages is not None  # noqa: S101 (the caller's part)
    plot = make_plot("N, concurrent sessions", "messages per second")
    keys = []
    rows = [row for row in summary["steps"] if row["delivered_per_s"] is not None]
    for stage in stages["entries"]:
        colour = _COLOURS[stage["entry"]]
        mine = sorted((row for row in rows if row["entry"] == stage["entry"]), key=lambda row: row["concurrency"])
        valid = [row for row in mine if row["valid"]]
        plot.line(
            [row["concurrency"] for row in valid], [row["delivered_per_s"] for row in valid], color=COLOURS[colour], line_width=2
        )  # fmt: skip
        _add_points(plot, valid, colour, hollow=False)
        _add_points(plot, [row for row in mine if not row["valid"]], colour, hollow=True)
        keys.append(Key(stage["entry"], colour, "dot"))
    if any(not row["valid"] for row in rows):
        keys.append(Key("step not valid", "grey", "ring"))
    highest = max(
        (max(row["delivered_per_s"] or 0.0, (row["delivered_per_s_interval"] or [0, 0])[1]) for row in rows),
        default=1.0,
    )
    plot.x_range.start, plot.x_range.end = 0, 1.06 * max((row["concurrency"] for row in rows), default=1)
    plot.y_range.start, plot.y_range.end = 0, 1.12 * highest or 1.0
    return Chart(
        "stages",
        "What does each stage carry without those before it?",
        "The same messages at the same concurrencies, put in at one place after another, in turn. Everything that follows the "
        "place is passed, nothing that comes before it. With 95 % intervals.",
        tuple(keys),
        plot,
    )


def _add_points(plot: Figure, rows: Sequence[StepRow], colour: str, *, hollow: bool) -> None:
    if not rows:
        return
    rates = [row["delivered_per_s"] or 0.0 for row in rows]
    intervals = [row["delivered_per_s_interval"] or [rate, rate] for row, rate in zip(rows, rates, strict=True)]
    source = make_source(
        x=[row["concurrency"] for row in rows], y=rates, low=[low for low, _ in intervals], high=[high for _, high in intervals],
        entry=[row["entry"] for row in rows],
    )  # fmt: skip
    add_whiskers(plot, source, colour)
    dots = plot.scatter(
        "x", "y", source=source, size=9, color=COLOURS[colour], fill_alpha=0 if hollow else 1, line_width=2
    )  # fmt: skip
    add_hover(
        plot, [dots], [("put in at", "@entry"), ("sessions", "@x"), ("delivered", "@y{0.00} msg/s"), ("95 %", "@low{0.00} to @high{0.00}")]
    )  # fmt: skip
