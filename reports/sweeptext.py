"""A sweep in a terminal: the levels, the variants, and what to set.

The tables fit 80 columns. Lines to copy are never broken, however narrow the
terminal is: a broken command is a wrong one.
"""

from rich.console import Console
from rich.table import Table

from loadgen.units import format_size
from reports.foreign import clean_for_terminal as safe
from reports.limits import find_limits
from reports.steprow import Interval
from reports.summary import Summary
from reports.sweepsummary import Gain, Level
from reports.wording import adopted_variant, name_curve, name_stations

__all__ = ["print_settings", "print_sweep"]


def print_sweep(summary: Summary, console: Console) -> None:
    """Print the levels, the variants and the sides that differ, as far as they were measured."""
    sweep = summary["sweep"]
    if sweep is None:
        return
    console.print()
    variants = list(dict.fromkeys(level["variant"] for level in summary["levels"]))
    for variant in variants:
        if len(variants) > 1:
            console.print(f"[bold]{safe(name_curve(variant))}[/]", highlight=False)
        console.print(_make_levels(summary, [one for one in summary["levels"] if one["variant"] == variant]))
    if sweep["variants"]:
        console.print()
        console.print(_make_variants(summary))
    if sweep["mismatches"]:
        console.print()
    for one in sweep["mismatches"]:
        console.print(
            f"maxproc {one['feed_processes']}, $max_servers {one['filter_servers']}: {one['delivered_per_s']:.1f} msg/s, "
            f"{one['ratio']:+.1%}{_span(one['ratio_interval'])} against {one['equal_processes']} on both sides",
            highlight=False,
        )


def print_settings(summary: Summary, console: Console) -> None:
    """Print what to set: the limits now and then, the lines, and the commands."""
    recommendation = summary["recommendation"]
    if recommendation["processes"] is None:
        return
    console.print()
    if recommendation["already_right"]:
        console.print("[green]Nothing needs to be changed.[/]", highlight=False)
    else:
        for limit in find_limits(summary):
            if limit.changes:
                now = "unknown" if limit.present is None else str(limit.present)
                console.print(f"{limit.name} ({limit.where}): {now} -> [bold]{limit.proposed}[/]", highlight=False)
    for ceiling in recommendation["ceilings"]:
        console.print(f"next: [bold]{safe(ceiling['name'])}[/]. {safe(ceiling['text'])}", highlight=False)
    for title, lines in (("What to set", recommendation["settings"]), ("As commands", recommendation["commands"])):
        if lines:
            console.print()
            console.print(f"[bold]{title}[/]", highlight=False)
            for line in lines:
                console.print(f"  {safe(line)}", highlight=False, soft_wrap=True)


def _make_levels(summary: Summary, levels: list[Level]) -> Table:
    table = _make_table()
    for name in ("P", "msg/s", "95 %", "p95 ms", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limited by", max_width=18)
    table.add_column("")
    for level in levels:
        p95, rate, memory = level["response_s"]["p95"], level["delivered_per_s"], level["memory_bytes"]
        table.add_row(
            _sides(level["processes"], level["filter_servers"]),
            "-" if rate is None else f"{rate:.1f}",
            _interval(level["interval"]),
            "-" if p95 is None else f"{p95 * 1000:.0f}",
            "-" if memory is None else format_size(memory),
            safe(name_stations(level) or "-"),
            _marks(summary, level),
            style="dim" if rate is None else "",
        )
    return table


def _marks(summary: Summary, level: Level) -> str:
    recommendation, present = summary["recommendation"], summary["recommendation"]["present"]
    is_chosen = level["variant"] == adopted_variant(recommendation) and level["processes"] is not None
    marks = []
    if is_chosen and level["processes"] == recommendation["processes"]:
        marks.append("[bold green]recommended[/]")
    if level["variant"] == "stock" and level["processes"] is not None:
        sides = (present.get("feed_processes"), present.get("filter_servers"))
        marks += ["present"] if sides == (level["processes"], level["filter_servers"]) else []
    if is_chosen and level["processes"] == recommendation["best_processes"]:
        marks.append("best")
    if not level["repeats"]:
        marks.append("no valid step")
    elif level["dropped"]:
        marks.append(f"[dim]{level['dropped']} not valid[/]")
    return ", ".join(marks)


def _make_variants(summary: Summary) -> Table:
    sweep = summary["sweep"]
    table = _make_table()
    table.add_column("variant", max_width=16, overflow="fold")
    table.add_column("at", justify="right", no_wrap=True)
    for name in ("low load", "saturation"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("adopted")
    for result in sweep["variants"] if sweep else ():
        gains = {gain["load"]: gain for gain in result["gains"]}
        table.add_row(
            safe(result["name"]),
            _sides(result["feed_processes"], result["filter_servers"]),
            _gain(gains.get("low")),
            _gain(gains.get("saturated")),
            ("[bold green]yes[/]: " if result["adopted"] else "no: ") + safe(result["why"]),
        )
    return table


def _make_table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))


def _sides(feed: int | None, servers: int | None) -> str:
    if feed is None:
        return "-"
    return str(feed) if servers in (None, feed) else f"{feed}:{servers}"


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return "-"
    low, high = gain["interval"]
    text = f"{gain['ratio']:+.1%} ({low * 100:+.0f}..{high * 100:+.0f})"
    return f"[bold]{text}[/]" if gain["significant"] else text


def _span(pair: Interval | None) -> str:
    return "" if pair is None else f" ({pair[0]:+.1%} to {pair[1]:+.1%})"


def _interval(pair: Interval | None) -> str:
    return "-" if pair is None else f"{pair[0]:.1f}..{pair[1]:.1f}"
