"""The report as one HTML file that needs nothing else: no network, no server, no other file.

Owns the page: the template, how numbers are written, and the policy that
forbids the browser to load or run anything but the two scripts in the file
(by their digests). What the figures show is decided in `charts` and `timecharts`.
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
from reports.charts import draw_step_charts
from reports.figures import COLOURS, Chart
from reports.foreign import clean
from reports.series import Series
from reports.summary import Summary, name_step
from reports.timecharts import draw_time_charts

__all__ = ["render_html"]

_NONE = "\u2013"
_LONG_SETTING = 120

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
STATION_WORDS = {
    "front": "the front",
    "feed": "the feed",
    "filter": "the filter",
    "reinjection": "reinjection",
    "sink": "the sink of this tool",
    "cpu": "the CPU",
    "disk": "the disk",
    "generator": "the generator of this tool",
}


def render_html(summary: Summary, series: Series, now_s: float) -> str:
    """Return the page; *now_s* (Unix seconds) dates it."""
    step_charts = draw_step_charts(summary)
    time_charts = draw_time_charts(summary, series)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        num=_number, ms=_milliseconds, percent=_percent, duration=_duration, size=_size, moment=_moment
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
        sections=_timing_sections(summary),
        name_step=name_step,
        long_setting=_LONG_SETTING,
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


def _timing_sections(summary: Summary) -> list[str]:
    """Return the sections of TIMING that matter at any step, the longest first."""
    longest: dict[str, float] = {}
    for row in summary["steps"]:
        for name, seconds in row["timing_s"].items():
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


def _duration(value: float | None) -> str:
    return _NONE if value is None else format_duration(value)


def _size(value: float | None) -> str:
    return _NONE if value is None else format_size(value)


def _moment(value: float | None) -> str:
    return _NONE if value is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))
