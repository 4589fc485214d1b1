"""A gate in words: for a terminal, as Markdown for a merge request or a job's summary, and as annotations of CI servers.

Text that comes from servers, logs or names of files is made harmless for each of these places.
"""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from rich.console import Console

from reports.comparisontext import escape_markdown
from reports.foreign import clean, clean_for_terminal
from reports.gate import Gate, Judged

__all__ = [
    "print_gate",
    "render_chart",
    "render_gate_markdown",
    "render_github_annotations",
    "render_gitlab_annotations",
]

_MARKS = {"met": "\u2713", "missed": "\u2717", "inconclusive": "?", "not measured": "?"}
_COLOURS = {"met": "green", "missed": "red"}
_MOST_ANNOTATIONS = 10
"""GitHub shows so many of each kind for a step."""
_HALF_WIDTH = 15
"""Columns of the chart on each side of its middle."""


def print_gate(gate: Gate, console: Console) -> None:
    """Print every expectation with a tick or a cross and what was measured, then the outcome."""
    if len(gate["runs"]) > 1:
        console.print(f"[bold]{_say_throughput(gate)}[/]", highlight=False)
    for one in gate["judged"]:
        colour = _COLOURS.get(one["outcome"], "yellow")
        console.print(
            f"[{colour}]{_MARKS[one['outcome']]}[/] {one['words']}: [bold]{one['got']}[/], want {one['want']}"
            + ("" if one["outcome"] in _COLOURS else f" ({one['outcome']})"),
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    for note in gate["notes"]:
        console.print(f"[dim]{clean_for_terminal(note)}[/]", highlight=False, soft_wrap=True)
    for reason in gate["reasons"]:
        console.print(f"[yellow]{clean_for_terminal(reason)}[/]", highlight=False, soft_wrap=True)
    if gate["outcome"] != "none":
        colour = _COLOURS.get(gate["outcome"], "yellow")
        console.print(f"expectations: [bold {colour}]{gate['outcome']}[/]", highlight=False)


def _say_throughput(gate: Gate) -> str:
    runs = len(gate["runs"]) - len(gate["spoilt"])
    if gate["delivered_per_s"] is None:
        return "delivered: not measured"
    low, high = gate["delivered_per_s_interval"] or (None, None)
    interval = f" (95 % interval {low:.1f} to {high:.1f})" if low is not None else ""
    return f"delivered: {gate['delivered_per_s']:.1f} msg/s{interval}, {runs} run{'' if runs == 1 else 's'}"


def render_gate_markdown(gate: Gate) -> str:
    """Return the gate as Markdown: the outcome first, a table, and a chart where changes were judged."""
    outcome = gate["outcome"] if gate["outcome"] != "none" else "no expectations"
    lines = [f"### loadgen: {outcome} ({escape_markdown(gate['profile'])})", "", _say_throughput(gate), ""]
    if gate["judged"]:
        lines += ["| | expectation | measured | want | |", "|---|---|---|---|---|"]
        lines += [
            f"| {_MARKS[one['outcome']]} | {' | '.join(escape_markdown(one[key]) for key in ('words', 'got', 'want', 'outcome'))} |"
            for one in gate["judged"]
        ]
    if chart := render_chart(gate):
        lines += ["", chart.removesuffix("\n")]
    if gate["reasons"]:
        lines += ["", *(f"- {escape_markdown(reason)}" for reason in gate["reasons"])]
    details = [*gate["notes"], f"{len(gate['runs'])} runs: {', '.join(gate['runs'])}"]
    lines += [
        "",
        "<details><summary>details</summary>",
        "",
        *(f"- {escape_markdown(note)}" for note in details),
        "",
        "</details>",
    ]
    return "\n".join(lines) + "\n"


def render_chart(gate: Gate) -> str:
    """Return a small chart of the changes as a block of Markdown; empty: none was judged."""
    lines = _draw_chart(gate["judged"])
    return "\n".join(["```text", *lines, "```", ""]) if lines else ""


def _draw_chart(judged: Sequence[Judged]) -> list[str]:
    """Return lines of text that show each change with its interval; | is no change, the dots reach to the limit."""
    rows = [one for one in judged if one["key"].startswith("worse_max.") and one["interval"] is not None]
    if not rows:
        return []
    reach = max(max(abs(bound) for bound in one["interval"] or ()) for one in rows)
    reach = max(reach, *(one["limit"] for one in rows))
    width = max(len(one["words"]) for one in rows)
    lines = [f"{'':<{width}}  {-reach:<+{_HALF_WIDTH}.0%} 0 {reach:>+{_HALF_WIDTH}.0%}"]
    for one in rows:
        low, high = (_column(bound, reach) for bound in one["interval"] or ())
        is_loss_down = one["key"] == "worse_max.delivered_per_s"
        limit = _column(-one["limit"] if is_loss_down else one["limit"], reach)
        cells = []
        for column in range(2 * _HALF_WIDTH + 1):
            between = min(limit, _HALF_WIDTH) <= column <= max(limit, _HALF_WIDTH)
            cells.append("|" if column == _HALF_WIDTH else "." if between else " ")
        for column in range(low, high + 1):
            cells[column] = "="
        cells[_column(one["value"] or 0.0, reach)] = "#"
        lines.append(f"{one['words']:<{width}}  {''.join(cells)}  {_MARKS[one['outcome']]}")
    return lines


def _column(value: float, reach: float) -> int:
    return _HALF_WIDTH + round(_HALF_WIDTH * max(-1.0, min(1.0, value / reach)))


def render_github_annotations(gate: Gate) -> str:
    """Return the workflow commands that make GitHub show what was missed, what was not decided, or that all was met."""
    lines = []
    for one in gate["judged"]:
        if one["outcome"] != "met":
            level = "error" if one["outcome"] == "missed" else "warning"
            lines.append(
                _command(level, f"loadgen: {one['words']}", f"{one['got']}, want {one['want']}: {one['outcome']}")
            )
    if gate["outcome"] in ("incomplete", "invalid"):
        lines.append(_command("error", f"loadgen: {gate['outcome']}", "\n".join(gate["reasons"])))
    elif gate["outcome"] == "met":
        lines.append(
            _command("notice", "loadgen: met", f"all {len(gate['judged'])} expectations of {gate['profile']} are met")
        )
    return "".join(f"{line}\n" for line in lines[:_MOST_ANNOTATIONS])


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_escape_property(title)}::{_escape_data(message)}"


def _escape_data(text: str) -> str:
    return clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")


def render_gitlab_annotations(gate: Gate, paths: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Return GitLab's job annotations: links to the pages among the job's artifacts, the outcome in their label.

    Args:
        gate: What was judged.
        paths: Label to path, below the project's directory.
        environment: The job's variables, of which CI_JOB_URL names the job; without it there is nothing to link to.
    """
    base = environment.get("CI_JOB_URL")
    if not base:
        return json.dumps({"loadgen": []}) + "\n"
    missed = [one for one in gate["judged"] if one["outcome"] != "met"]
    words = "; ".join(f"{one['words']} {one['outcome']}" for one in missed)
    label = clean(f"loadgen {gate['profile']}: {gate['outcome']}" + (f" ({words})" if words else ""))
    links = {label: base, **{clean(name): f"{base}/artifacts/file/{quote(path)}" for name, path in paths.items()}}
    return (
        json.dumps({"loadgen": [{"external_link": {"label": one, "url": url}} for one, url in links.items()]}, indent=1)
        + "\n"
    )
