"""The report as one HTML file that needs nothing else: no network, no server, no other file.

Owns the page: the template, how numbers are written, and the policy that
forbids the browser to load or run anything but the two scripts in the file
(by their digests). What the figures show is decided in the modules that draw them.
"""

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from loadgen.units import format_duration, format_size
from reports import wording
from reports.charts import draw_step_charts
from reports.figures import COLOURS, Chart
from reports.foreign import clean
from reports.levelcharts import draw_level_charts
from reports.limits import find_effects, find_limits
from reports.series import Series
from reports.stagecharts import draw_stages
from reports.stages import choose_main
from reports.summary import Summary, name_step
from reports.timecharts import draw_time_charts
from reports.variantcharts import draw_variant_charts
from reports.wording import STATION_WORDS

__all__ = ["render_html"]

_NONE = "\u2013"
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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        num=_number,
        ms=_milliseconds,
        percent=_percent,
        duration=_duration,
        size=_size,
        moment=_moment,
        gain=_gain,
        figures=_figures,
    )
    # an empty plot needs no drawing library
    library = _bokeh_script() if step_charts or time_charts else ""
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html.jinja").render(
        s=summary,
        now_s=now_s,
        charts={chart.name: chart for chart in (*step_charts, *time_charts)},
        time_charts=time_charts,
        figures=_dump_figures((*step_charts, *time_charts)),
        library=Markup(library),  # noqa: S704 (the drawing library as released)
        script=Markup(script),  # noqa: S704 (our own)
        script_sources=" ".join(_digest(text) for text in (library, script) if text),
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


def _dump_figures(charts: Sequence[Chart]) -> Markup:
    """Return the figures as JSON that cannot end the element it stands in."""
    from bokeh.embed import json_item

    text = json.dumps({chart.name: json_item(chart.model) for chart in charts})
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 (just escaped)


def _bokeh_script() -> str:
    """Return BokehJS, its core only: no widgets, tables or WebGL."""
    from bokeh.resources import Resources

    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


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


def _finalize(value: Any) -> Any:
    if value is None:
        return _NONE
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: float | None, digits: int = 1) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value * 1000:,.1f}" if value < 0.0995 else f"{value * 1000:,.0f}"


def _percent(value: float | None, digits: int = 0) -> str:
    return _NONE if value is None else f"{100 * value:.{digits}f} %"


def _gain(value: float | None, digits: int = 1) -> str:
    return _NONE if value is None else f"{100 * value:+.{digits}f} %".replace("-", "\u2212")


def _figures(value: float | None) -> str:
    """Return *value* to three significant figures, for parameters of any size."""
    return _NONE if value is None else f"{value:.3g}"


def _duration(value: float | None) -> str:
    return _NONE if value is None else format_duration(value)


def _size(value: float | None) -> str:
    return _NONE if value is None else format_size(value)


def _moment(value: float | None) -> str:
    return _NONE if value is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))
