"""The result in a terminal: the verdict first, then the steps (of a sweep the levels and what to set), the findings.

Text that comes from servers or logs is stripped of control characters and
never read as markup.
"""

from rich.console import Console
from rich.table import Table

from reports.foreign import clean_for_terminal
from reports.steprow import Interval, StepRow, name_step
from reports.summary import Summary
from reports.sweeptext import print_settings, print_sweep

__all__ = ["print_summary"]

_COLOURS = {"error": "red", "warning": "yellow", "information": "cyan"}
_NARROW = 100
"""Columns: below this the table leaves out what matters less."""


def print_summary(summary: Summary, console: Console) -> None:
    """Print what a person wants to know after a run."""
    accounting = summary["accounting"]
    told = summary["verdict"] if summary["sweep"] is None else summary["recommendation"]
    if summary["run"]["is_reference"]:
        console.print("[yellow]This is not a mail server:[/] the reference chain, a stand-in with a known capacity.")
    console.print(f"[bold]{clean_for_terminal(told['headline'])}[/]", highlight=False)
    for sentence in told["sentences"]:
        console.print(f"  {clean_for_terminal(sentence)}", highlight=False)
    if summary["status"] != "complete":
        reason = f": {clean_for_terminal(summary['run']['end_reason'])}" if summary["run"]["end_reason"] else ""
        console.print(f"[bold yellow]{summary['status']}[/]{reason}", highlight=False)
    if summary["sweep"] is not None:
        print_sweep(summary, console)
        print_settings(summary, console)
        console.print()
    elif summary["steps"]:
        console.print(_make_table(summary, wide=console.width >= _NARROW))
    if summary["stages"] is not None:
        for sentence in summary["stages"]["sentences"]:
            console.print(f"  {clean_for_terminal(sentence)}", highlight=False)
    if summary["selective"] is not None:
        for sentence in summary["selective"]["sentences"]:
            console.print(f"  {clean_for_terminal(sentence)}", highlight=False)
    for row in summary["steps"]:
        if not row["valid"]:
            console.print(
                f"[yellow]{clean_for_terminal(name_step(row))} not valid:[/] {clean_for_terminal('; '.join(row['reasons']))}",
                highlight=False,
            )
    others = [
        f"{accounting[fate]} {fate.replace('_', ' ')}"
        for fate in ("blocked", "refused", "bounced", "queued", "lost", "unknown", "not_sent", "duplicates", "dropped")
        if accounting[fate]
    ]
    console.print(
        f"messages: {accounting['messages']} sent, {accounting['delivered']} delivered"
        + (f", {', '.join(others)}" if others else ""),
        highlight=False,
    )
    for finding in summary["findings"]:
        colour = _COLOURS[finding["severity"]]
        console.print(
            f"[{colour}]{finding['severity']}[/] [bold]{clean_for_terminal(finding['id'])}[/] {clean_for_terminal(finding['evidence'])}",
            highlight=False,
        )
        console.print(f"  {clean_for_terminal(finding['advice'])}", highlight=False)


def _make_table(summary: Summary, *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    is_rate = summary["run"]["pacing"] == "rate"
    several = summary["stages"] is not None
    if several:
        table.add_column("put in at", no_wrap=True)
    for name in ("offered" if is_rate else "N", "accepted/s", "delivered/s", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("p50 ms", "p95 ms", "queue", "busy"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("cpu", justify="right", no_wrap=True)
        table.add_column("own", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in summary["steps"]:
        cells = [
            *([row["entry"]] if several else []),
            f"{row['rate_per_s']:g}" if is_rate and row["rate_per_s"] else str(row["concurrency"]),
            _number(row["accepted_per_s"]),
            _number(row["delivered_per_s"]),
            _interval(row["delivered_per_s_interval"]),
            _milliseconds(row["response_s"]["p50"]),
            _milliseconds(row["response_s"]["p95"]),
            _number(row["queue_depth"]["mean"]),
            _number(row["busy_processes"]),
        ]
        if wide:
            cells += [_number(row["host"]["cpu_busy"]), _number(row["cost"]["own_cores"], 2)]
        table.add_row(*cells, _mark(row, summary), style="" if row["valid"] else "dim")
    return table


def _mark(row: StepRow, summary: Summary) -> str:
    if not row["valid"]:
        return "not valid"
    if row["overloaded"]:
        return "overloaded"
    return "plateau" if row["step"] in summary["verdict"]["plateau_steps"] else ""


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.0f}"


def _interval(pair: Interval | None) -> str:
    return "-" if pair is None else f"{pair[0]:.1f}..{pair[1]:.1f}"
