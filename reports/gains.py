"""What each variant is worth: its throughput against stock, measured in alternation, and whether to adopt it.

Pure: rows of steps in, results out. Variants and stock take turns in blocks, so
a drift of the host falls on all of them alike; the spread between
repeats of the same thing, pooled, says how sure a gain is. A gain counts at the
load at which it was measured: a mend of a stall that disappears at saturation is
still worth having.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reports.sizing import Spread, measure_spread, student
from reports.steprow import StepRow
from reports.sweepsummary import Gain, Mismatch, VariantResult

__all__ = ["STOCK", "VariantFacts", "adopt", "compare_sides", "measure_gains", "name_set"]

STOCK = "stock"
_JOINT = "+"
_LOADS = ("low", "saturated")
_WORTH = 0.02
"""A gain that is sure and smaller than this is not worth a setting."""


@dataclass(frozen=True)
class VariantFacts:
    """What is known of a variant before it is measured."""

    about: str = ""
    settings: tuple[str, ...] = ()
    mends: str = ""
    """Id of the finding it mends; of two for the same one only the better is adopted."""
    adoptable: bool = True
    costs_memory: bool = False


def name_set(names: Iterable[str]) -> str:
    """Return what the record calls a set of variants; "stock" for none."""
    return _JOINT.join(sorted(names)) or STOCK


def measure_gains(
    rows: Sequence[StepRow], facts: Mapping[str, VariantFacts], level_spread: Spread | None = None
) -> list[VariantResult]:
    """Return what each variant that was measured is worth, in the order of *facts*.

    Args:
        rows: Steps of a sweep; those of purpose "variant" that are valid count.
        facts: Name to what is known of a variant.
        level_spread: Spread between repeats of the levels, pooled with that of the variants at saturation.
    """
    cells = _collect(rows)
    spreads = {load: _pool(cells, load, level_spread if load == "saturated" else None) for load in _LOADS}
    results = []
    for name, known in facts.items():
        mine = [row for row in rows if row["variant"] == name and row["purpose"] == "variant"]
        if not mine:
            continue
        gains = [
            gain for load in _LOADS if (gain := _compare(cells.get((STOCK, load)), cells.get((name, load)), spreads[load]))
        ]  # fmt: skip
        results.append(
            VariantResult(
                name=name,
                about=known.about,
                settings=list(known.settings),
                processes=mine[0]["level"],
                feed_processes=mine[0]["feed_processes"],
                filter_servers=mine[0]["filter_servers"],
                gains=gains,
                adopted=False,
                why="",
            )
        )
    return _decide(results, facts)


def adopt(results: Sequence[VariantResult]) -> list[str]:
    """Return the names of the variants that are to be part of the recommendation."""
    return [result["name"] for result in results if result["adopted"]]


def compare_sides(
    rows: Sequence[StepRow], facts: Mapping[str, VariantFacts], level_spread: Spread | None = None
) -> list[Mismatch]:
    """Return what was measured with different numbers on the two sides, against equal ones at saturation."""
    cells = _collect(rows)
    spread = _pool(cells, "saturated", level_spread)
    found = []
    for name in facts:
        cell = cells.get((name, "saturated"))
        if cell is None or not _out_of_step(cell[0]):
            continue
        smaller = min(cell[0]["feed_processes"] or 0, cell[0]["filter_servers"] or 0)
        equal = [
            row for row in rows
            if row["variant"] == STOCK and row["level"] == smaller and row["load"] == "saturated" and row["valid"]
            and row["delivered_per_s"]
        ]  # fmt: skip
        gain = _compare(equal, cell, spread)
        waits = [row["feed_delays"]["c_s"] for row in cell if row["feed_delays"]]
        if gain is None:
            continue
        half = spread.half_width(len(cell)) * gain["variant_per_s"]
        found.append(
            Mismatch(
                feed_processes=cell[0]["feed_processes"] or 0,
                filter_servers=cell[0]["filter_servers"] or 0,
                delivered_per_s=gain["variant_per_s"],
                interval=[max(0.0, gain["variant_per_s"] - half), gain["variant_per_s"] + half],
                equal_processes=smaller,
                equal_per_s=gain["stock_per_s"],
                ratio=gain["ratio"],
                ratio_interval=gain["interval"],
                c_s=float(np.mean(waits)) if waits else None,
            )
        )
    return found


Cells = dict[tuple[str, str], list[StepRow]]


def _collect(rows: Sequence[StepRow]) -> Cells:
    """Return the valid steps of the alternation by variant and load."""
    cells: Cells = {}
    for row in rows:
        if row["purpose"] == "variant" and row["valid"] and row["delivered_per_s"]:
            cells.setdefault((row["variant"], row["load"]), []).append(row)
    return cells


def _pool(cells: Cells, load: str, also: Spread | None) -> Spread:
    own = measure_spread([_rates(cell) for (_, of), cell in cells.items() if of == load], within=_within(cells, load))
    if also is None:
        return own
    freedom = own.freedom + also.freedom
    variance = (own.freedom * own.relative**2 + also.freedom * also.relative**2) / freedom
    return Spread(math.sqrt(variance), freedom)


def _within(cells: Cells, load: str) -> float | None:
    """Return the mean relative standard error of a step from within itself."""
    errors = [
        (row["delivered_per_s_interval"][1] - row["delivered_per_s_interval"][0]) / 4 / row["delivered_per_s"]
        for (_, of), cell in cells.items() if of == load
        for row in cell if row["delivered_per_s_interval"] and row["delivered_per_s"]
    ]  # fmt: skip
    return float(np.mean(errors)) if errors else None


def _rates(cell: Sequence[StepRow]) -> list[float]:
    return [row["delivered_per_s"] or 0.0 for row in cell]


def _compare(stock: Sequence[StepRow] | None, variant: Sequence[StepRow] | None, spread: Spread) -> Gain | None:
    if not stock or not variant:
        return None
    shift = float(np.mean(np.log(_rates(variant))) - np.mean(np.log(_rates(stock))))
    reach = student(spread.freedom, 0.975) * spread.relative * math.sqrt(1 / len(stock) + 1 / len(variant))
    return Gain(
        load=variant[0]["load"],
        concurrency=variant[0]["concurrency"],
        ratio=math.expm1(shift),
        interval=[math.expm1(shift - reach), math.expm1(shift + reach)],
        pairs=min(len(stock), len(variant)),
        stock_per_s=float(np.mean(_rates(stock))),
        variant_per_s=float(np.mean(_rates(variant))),
        stock_response_s=_response(stock),
        variant_response_s=_response(variant),
        significant=abs(shift) > reach,
    )


def _response(cell: Sequence[StepRow]) -> float | None:
    means = [row["response_s"]["mean"] for row in cell if row["response_s"]["mean"] is not None]
    return float(np.mean(means)) if means else None


def _out_of_step(row: StepRow) -> bool:
    return row["feed_processes"] != row["filter_servers"]


def _decide(results: list[VariantResult], facts: Mapping[str, VariantFacts]) -> list[VariantResult]:
    """Fill in what is adopted and why: a sure gain somewhere, no sure loss at saturation, one mend for a defect."""
    for result in results:
        gains = {gain["load"]: gain for gain in result["gains"]}
        won = [g for g in result["gains"] if g["significant"] and g["ratio"] >= _WORTH]
        lost = gains.get("saturated")
        if not facts[result["name"]].adoptable:
            result["why"] = "measured to show what it costs, not to be set"
        elif not result["gains"]:
            result["why"] = "no valid pair of measurements"
        elif lost is not None and lost["significant"] and lost["ratio"] <= -_WORTH:
            result["why"] = f"it costs {-lost['ratio']:.0%} at saturation"
        elif won:
            result["adopted"] = True
            result["why"] = " and ".join(f"{g['ratio']:+.0%} at {_words(g['load'])}" for g in won)
        else:
            result["why"] = "no gain that is sure and worth a setting"
    for defect in {known.mends for known in facts.values() if known.mends}:
        rivals = [result for result in results if result["adopted"] and facts[result["name"]].mends == defect]
        for result in sorted(rivals, key=lambda r: _rank(r, facts))[1:]:
            result["adopted"] = False
            better = min(rivals, key=lambda r: _rank(r, facts))["name"]
            result["why"] += f", but {better} mends the same and is enough"
    return results


def _rank(result: VariantResult, facts: Mapping[str, VariantFacts]) -> tuple[bool, float]:
    """Return a key that puts first what costs no memory, then what gains most."""
    return facts[result["name"]].costs_memory, -sum(gain["ratio"] for gain in result["gains"])


def _words(load: str) -> str:
    return "low load" if load == "low" else "saturation"
