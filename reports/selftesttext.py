"""The self-test of a machine in a terminal: what a gate of which size can see."""

from rich.console import Console
from rich.table import Table

from reports.selftest import SelfTest

__all__ = ["print_self_test"]


def print_self_test(found: SelfTest, console: Console) -> None:
    """Print the sentences, what the gates said that were played, then the smallest loss that gates of several sizes see."""
    for sentence in found["sentences"]:
        console.print(sentence, highlight=False)
    played = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for name in (
        "blocks of four",
        "gates played",
        "false alarms",
        '"no change" excluded',
        "inconclusive",
        "planted loss found",
    ):
        played.add_column(name, justify="right")
    for one in found["played"]:
        counts = (one["false_alarms"], one["false_differences"], one["undecided"], one["found"])
        played.add_row(str(one["blocks"]), str(one["gates"]), *(_share(count / one["gates"]) for count in counts))
    console.print(played)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("blocks of four, or runs a side", justify="right")
    table.add_column("change seen by blocks (--ab)", justify="right")
    table.add_column("loss called a regression", justify="right")
    table.add_column("change seen one side after the other", justify="right")
    for row in found["power"]:
        table.add_row(str(row["runs"]), *(_share(row[key]) for key in ("blocks", "called", "unpaired")))
    console.print(table)
    console.print("[dim]in four of five cases[/]", highlight=False)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
