"""The report of a run as one HTML file. What the figures show is decided in the modules that draw them."""

from collections.abc import Sequence

from reports import wording
from reports.charts import draw_step_charts
from reports.figures import COLOURS
from reports.levelcharts import draw_level_charts
from reports.limits import find_effects, find_limits
from reports.page import make_environment, prepare_scripts
from reports.series import Series
from reports.stagecharts import draw_stages
from reports.stages import choose_main
from reports.steprow import name_step
from reports.summary import Summary
from reports.timecharts import draw_time_charts
from reports.variantcharts import draw_variant_charts
from reports.wording import STATION_WORDS

__all__ = ["render_html"]

_LONG_SETTING = 120
_MANY_STEPS = 16
"""With more steps than these, the tables of a sweep's steps are folded away."""

FATE_WORDS = {
    "delivered": "arrived at the end of the chain for all recipients",
    "blocked": "stopped by the filter",
    "refused": "answered with an error by the front",
    "bounced": "returned to the sender",
    "queued": "still in the queue at the end",
    "lost": "accepted, and found nowhere",
    "unknown": "no answer after the final dot, or the record ends first",
    "not_sent": "the session broke before the final dot",
}


def render_html(summary: Summary, series: Series, now_s: float) -> str:
    """Return the page; *now_s* (Unix seconds) dates it."""
    # a sweep varies the processes, so figures over the load would mix what cannot be compared
    step_charts = (
        draw_step_charts({**summary, "steps": choose_main(summary["steps"])})
        if summary["sweep"] is None
        else [*draw_level_charts(summary), *draw_variant_charts(summary)]
    )
    if summary["stages"] is not None:
        step_charts.append(draw_stages(summary))
    time_charts = draw_time_charts(summary, series)
    timings = _timings(summary)
    environment = make_environment()
    return environment.get_template("report.html.jinja").render(
        s=summary,
        now_s=now_s,
        charts={chart.name: chart for chart in (*step_charts, *time_charts)},
        time_charts=time_charts,
        **prepare_scripts(environment, (*step_charts, *time_charts)),
        colours=COLOURS,
        fates=FATE_WORDS,
        stations=STATION_WORDS,
        words=wording,
        timings=timings,
        sections=_timing_sections(timings),
        limits=find_limits(summary),
        effects=find_effects(summary),
        name_step=name_step,
        long_setting=_LONG_SETTING,
        many_steps=_MANY_STEPS,
    )


def _timings(summary: Summary) -> list[tuple[str, dict[str, float]]]:
    """Return the TIMING sections of each step; of each level in a sweep, which has too many steps to be read."""
    if summary["sweep"] is None:
        return [(name_step(row), row["timing_s"]) for row in summary["steps"]]
    several = len({level["variant"] for level in summary["levels"]}) > 1
    return [
        (f"P = {level['processes']}" + (f", {wording.name_curve(level['variant'])}" if several else ""), level["timing_s"])
        for level in summary["levels"]
    ]  # fmt: skip


def _timing_sections(timings: Sequence[tuple[str, dict[str, float]]]) -> list[str]:
    """Return the sections of TIMING that matter anywhere, the longest first."""
    longest: dict[str, float] = {}
    for _, timing in timings:
        for name, seconds in timing.items():
            longest[name] = max(longest.get(name, 0.0), seconds)
    total = longest.get("total") or max(longest.values(), default=0.0)
    return [name for name, s in sorted(longest.items(), key=lambda item: -item[1]) if s >= 0.01 * total][:16]
