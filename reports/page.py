"""A page that needs nothing else: no network, no server, no other file.

Owns how numbers are written, and the policy that forbids the browser to load
or run anything but the two scripts in the file (by their digests).
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
from reports.figures import Chart
from reports.foreign import clean

__all__ = ["make_environment", "prepare_scripts"]

_NONE = "\u2013"


def make_environment() -> jinja2.Environment:
    """Return the templates, with the filters that write numbers, and everything else escaped."""
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
    return environment


def prepare_scripts(environment: jinja2.Environment, charts: Sequence[Chart]) -> dict[str, Any]:
    """Return what a template needs to show *charts*: figures, library, script, and the sources its policy permits."""
    # an empty plot needs no drawing library
    library = _bokeh_script() if charts else ""
    script = environment.get_template("report.js").render()
    return {
        "figures": _dump_figures(charts),
        "library": Markup(library),  # noqa: S704 (the drawing library as released)
        "script": Markup(script),  # noqa: S704 (our own)
        "script_sources": " ".join(_digest(text) for text in (library, script) if text),
    }


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
