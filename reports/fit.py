"""`loadgen fit`: the laws of scalability on a table that a user brings.

Reads CSV with the columns `concurrency` and `throughput` (and, if there is
one, `error`: the standard error of the throughput), in any order and among
others. A peak that lies outside the tested range is never printed as a number.
"""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadgen.errors import TableError
from reports.models import fit_models
from reports.sweepsummary import Model, Models
from reports.wording import LAW_WORDS, name_warning

__all__ = ["describe_fit", "fit_table", "print_fit"]


def fit_table(path: str) -> Models:
    """Return the laws fitted to the table in the file *path*; "-" is standard input.

    Raises:
        TableError: it cannot be read, or says something that cannot be fitted.
    """
    where = "standard input" if path == "-" else path
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except OSError as error:
        raise TableError(
            f"{where}: {error.strerror}; want a CSV file with the columns concurrency and throughput"
        ) from error
    except UnicodeDecodeError as error:
        raise TableError(f"{where}: not UTF-8 at byte {error.start}; want a CSV file") from error
    points, errors = _read(text.splitlines(), where)
    try:
        return fit_models(points, errors, variant=where)
    except ValueError as error:
        raise TableError(f"{where}: {error}") from error


def describe_fit(models: Models) -> dict[str, Any]:
    """Return the result for programs: parameters by name, with errors and intervals beside them."""
    described: dict[str, dict[str, Any]] = {}
    for name, model in models["models"].items():
        described[name] = {
            **{key: one["value"] for key, one in model["parameters"].items()},
            "standard_errors": {key: one["standard_error"] for key, one in model["parameters"].items()},
            "intervals": {key: one["interval"] for key, one in model["parameters"].items()},
            "aicc": model["aicc"],
            "rss": model["rss"],
        }
        if name == "usl":
            described[name] |= {
                "peak_concurrency": model["peak_concurrency"],
                "peak_throughput": _peak_throughput(model),
            }
            described[name]["intervals"]["peak_concurrency"] = model["peak_interval"]
    return {
        "chosen": models["chosen"], "ties": models["ties"], "models": described, "warnings": models["warnings"],
        "points": len(models["points"]),
    }  # fmt: skip


def print_fit(models: Models, console: Console) -> None:
    """Print what a person wants to know of the fit."""
    chosen = models["chosen"] or ""
    tie = f" ({' and '.join(LAW_WORDS[name] for name in models['ties'])} as good)" if models["ties"] else ""
    console.print(f"[bold]{LAW_WORDS[chosen]}[/] fits these {len(models['points'])} points best{tie}", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("law", no_wrap=True)
    for name in ("parameter", "value", "std. error", "95 %", "AICc"):
        table.add_column(name, justify="left" if name == "parameter" else "right", no_wrap=True)
    for name in sorted(models["models"], key=lambda n: (n != chosen, list(LAW_WORDS).index(n))):
        model = models["models"][name]
        for place, (key, one) in enumerate(model["parameters"].items()):
            first = place == 0
            table.add_row(
                LAW_WORDS[name] if first else "", key, f"{one['value']:.6g}",
                "-" if one["standard_error"] is None else f"{one['standard_error']:.3g}", _span(one["interval"]),
                "" if not first else "-" if model["aicc"] is None else f"{model['aicc']:.1f}",
            )  # fmt: skip
    console.print(table)
    usl = models["models"]["usl"]
    largest = max(n for n, _ in models["points"])
    if usl["peak_concurrency"] is not None:
        top = _peak_throughput(usl)
        console.print(
            f"USL: peak at N = {usl['peak_concurrency']:.1f} (95 % {_span(usl['peak_interval'])}), {top:.6g} per unit of time",
            highlight=False,
        )
    else:
        console.print(f"USL: no peak up to the largest concurrency tested, N = {largest:g}", highlight=False)
    for warning in models["warnings"]:
        console.print(f"[yellow]warning[/] [bold]{warning}[/] {name_warning(warning)}", highlight=False)


def _peak_throughput(usl: Model) -> float | None:
    peak = usl["peak_concurrency"]
    if peak is None:
        return None
    gamma, alpha, beta = (usl["parameters"][key]["value"] for key in ("gamma", "alpha", "beta"))
    return gamma * peak / (1 + alpha * (peak - 1) + beta * peak * (peak - 1))


def _span(interval: list[float | None] | None) -> str:
    if interval is None:
        return "-"
    low, high = (("?" if end is None else f"{end:.4g}") for end in interval)
    return f"{low}..{high}"


def _read(lines: Iterable[str], where: str) -> tuple[list[tuple[float, float]], list[float] | None]:
    """Return the points and, where the table has them, the standard errors."""
    columns: dict[str, int] | None = None
    points: list[tuple[float, float]] = []
    errors: list[float] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        (cells,) = csv.reader([line])
        if columns is None:
            names = [cell.strip().lower() for cell in cells]
            for wanted in ("concurrency", "throughput"):
                if wanted not in names:
                    raise TableError(
                        f'{where}:{number}: no column "{wanted}" in the first line; got {", ".join(names) or "nothing"}, '
                        "want a header such as concurrency,throughput"
                    )
            columns = {name: names.index(name) for name in ("concurrency", "throughput", "error") if name in names}
            continue
        values = {name: _number(cells, place, f"{where}:{number}", name) for name, place in columns.items()}
        if values["concurrency"] < 1:
            raise TableError(f"{where}:{number}: concurrency: got {values['concurrency']:g}, want at least 1")
        for name in ("throughput", "error"):
            if name in values and values[name] <= 0:
                raise TableError(f"{where}:{number}: {name}: got {values[name]:g}, want more than 0")
        points.append((values["concurrency"], values["throughput"]))
        if "error" in values:
            errors.append(values["error"])
    if columns is None:
        raise TableError(
            f"{where}: empty; want a header such as concurrency,throughput and a line for each measurement"
        )
    return points, errors or None


def _number(cells: list[str], place: int, where: str, name: str) -> float:
    text = cells[place].strip() if place < len(cells) else ""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise TableError(f'{where}: {name}: got "{text}", want a number')
    return value
