"""A comparison in words: for a terminal, and as Markdown for a merge request."""

from rich.console import Console
from rich.table import Table

from reports.foreign import clean, clean_for_terminal
from reports.runcomparison import Compared, Comparison

__all__ = ["escape_markdown", "print_comparison", "render_markdown", "say_needed"]

_NARROW = 100
"""Columns: below this the tables leave out what matters less."""
_MARKS = {"improved": "green", "equivalent": "green", "regression": "red", "inconclusive": "yellow"}


def print_comparison(found: Comparison, console: Console) -> None:
    """Print what a person wants to know: the verdict, the metrics, the curve, and what else differs."""
    colour = _MARKS[found["verdict"]]
    console.print(f"[bold {colour}]{found['verdict']}[/]", highlight=False)
    for sentence in found["sentences"]:
        console.print(f"  {sentence}", highlight=False)
    if found["needed_runs"] is not None and found["verdict"] == "inconclusive":
        console.print(f"  {say_needed(found)}", highlight=False)
    for title, rows in (("", found["metrics"]), ("throughput", found["curve"])):
        if rows:
            console.print(_make_table(title, rows, wide=console.width >= _NARROW))
    for note in found["notes"]:
        console.print(f"[dim]{clean_for_terminal(note)}[/]", highlight=False)


def say_needed(found: Comparison) -> str:
    """Return how many values would have decided."""
    units = "runs on each side" if found["block"] is None else "pairs" if found["block"] == 1 else "blocks"
    return f"{found['needed_runs']} {units} would do, if they scatter like these."


def _make_table(title: str, rows: list[Compared], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column(title, no_wrap=True)
    table.add_column("", no_wrap=True)
    heads = ("base", "candidate", "change", "95 %", "margin", "detectable")
    shown = len(heads) if wide else len(heads) - 2
    for name in heads[:shown]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        label, *cells = _cells(row)
        table.add_row(label, f"[{_MARKS[row['verdict']]}]{row['verdict']}[/]", *cells[:shown])
    return table


def render_markdown(found: Comparison, base: str, candidate: str) -> str:
    """Return the comparison as Markdown; *base* and *candidate* are what the sides are called."""
    lines = [
        f"### loadgen: {found['verdict']}",
        "",
        *found["sentences"],
        "",
        f"base: {escape_markdown(base)}, candidate: {escape_markdown(candidate)}",
    ]
    for title, rows in (("metric", found["metrics"]), ("load", found["curve"])):
        if rows:
            lines += [
                "",
                f"| {title} | base | candidate | change | 95 % | margin | detectable | verdict |",
                "|---|---|---|---|---|---|---|---|",
            ]
            lines += [f"| {' | '.join(map(escape_markdown, (*_cells(row), row['verdict'])))} |" for row in rows]
    if found["notes"]:
        lines += ["", *(f"- {escape_markdown(note)}" for note in found["notes"])]
    return "\n".join(lines) + "\n"


def _cells(row: Compared) -> tuple[str, ...]:
    interval = row["interval"]
    is_load = row["metric"].startswith("N = ") or row["metric"].endswith(" msg/s")
    return (
        row["metric"] if is_load else row["words"],
        _number(row, row["base"]),
        _number(row, row["candidate"]),
        f"{row['ratio'] - 1:+.1%}",
        f"{interval[0] - 1:+.1%}..{interval[1] - 1:+.1%}" if interval else "-",
        f"{row['margin']:.0%}",
        f"{row['detectable']:.1%}" if row["detectable"] is not None else "-",
    )


def _number(row: Compared, values: list[float]) -> str:
    mean = sum(values) / len(values)
    if row["metric"].startswith("response_"):
        return f"{mean * 1000:.0f} ms"
    if row["metric"] == "cpu_s_per_message":
        return f"{mean * 1000:.1f} ms"
    if row["metric"] == "memory_bytes":
        return f"{mean / 2**20:.0f} MiB"
    return f"{mean:.2f}"


def escape_markdown(text: str) -> str:
    """Return *text* so that Markdown takes it for nothing but text."""
    text = clean(text).replace("\n", " ")
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>|#" else letter for letter in text)
