"""What a variant is worth, and which ones are recommended."""

import math
import random
from collections.abc import Mapping

import pytest

from reports.gains import VariantFacts, adopt, compare_sides, measure_gains
from reports.sizing import Spread
from reports.steprow import StepRow
from reports.sweepsummary import VariantResult
from tests.make_rows import make_row

FACTS = {
    "no-pipelining": VariantFacts(mends="pipelining-stall"),
    "no-cache": VariantFacts(mends="held-children"),
    "spare-children": VariantFacts(mends="held-children", costs_memory=True),
    "wide-feed": VariantFacts(adoptable=False),
}
SURE = Spread(0.01, 20)


def alternate(
    factors: Mapping[str, tuple[float | None, float]], blocks: int = 3, drift: float = 0.0, noise: float = 0.01
) -> list[StepRow]:
    """Return blocks of stock and variants; *factors*: name to its effect at low load (None: not measured) and saturated."""
    rng = random.Random(1)
    rows: list[StepRow] = []
    for block in range(blocks):
        for name, (low, saturated) in {"stock": (1.0, 1.0), **factors}.items():
            for load, base, factor in (("low", 6.0, low), ("saturated", 15.0, saturated)):
                if factor is None:
                    continue
                rate = base * factor * (1 + drift * block) * math.exp(rng.gauss(0, noise))
                servers = {"spare-children": 6}.get(name, 4)
                feed = 8 if name == "wide-feed" else 4
                rows.append(
                    make_row(
                        len(rows), variant=name, load=load, purpose="variant", level=4, delivered_per_s=rate,
                        feed_processes=feed, filter_servers=servers,
                    )
                )  # fmt: skip
    return rows


def results(factors: Mapping[str, tuple[float | None, float]], **how: float) -> dict[str, VariantResult]:
    rows = alternate(factors, **how)  # type: ignore[arg-type]
    return {result["name"]: result for result in measure_gains(rows, FACTS, SURE)}


def test_gain_is_the_ratio_to_stock_at_each_load_with_its_interval() -> None:
    got = results({"no-pipelining": (1.4, 1.1)})["no-pipelining"]

    low, saturated = got["gains"]
    assert (low["load"], saturated["load"]) == ("low", "saturated")
    assert low["ratio"] == pytest.approx(0.4, abs=0.04)
    assert saturated["interval"][0] < saturated["ratio"] < saturated["interval"][1]
    assert saturated["ratio"] == pytest.approx(0.1, abs=0.03)
    assert low["pairs"] == 3
    assert low["significant"]


def test_drift_of_the_host_falls_on_all_alike() -> None:
    got = results({"no-pipelining": (1.0, 1.0)}, drift=0.05)["no-pipelining"]

    assert all(abs(gain["ratio"]) < 0.03 for gain in got["gains"])
    assert not got["adopted"]


def test_gain_at_one_load_without_loss_at_saturation_is_adopted() -> None:
    assert adopt(list(results({"no-pipelining": (1.5, 1.0)}).values())) == ["no-pipelining"]


def test_sure_loss_at_saturation_is_not_bought() -> None:
    got = results({"no-cache": (1.5, 0.9)})["no-cache"]

    assert not got["adopted"]
    assert got["why"].startswith("it costs ")
    assert got["why"].endswith("% at saturation")


def test_of_two_mends_for_one_defect_the_one_that_costs_no_memory_is_adopted() -> None:
    got = results({"no-cache": (1.4, 1.0), "spare-children": (1.5, 1.0)})

    assert got["no-cache"]["adopted"]
    assert not got["spare-children"]["adopted"]
    assert "no-cache mends the same" in got["spare-children"]["why"]


def test_spare_children_are_adopted_where_the_cheaper_mend_loses() -> None:
    assert adopt(list(results({"no-cache": (1.4, 0.9), "spare-children": (1.5, 1.0)}).values())) == ["spare-children"]


def test_what_is_out_of_step_on_purpose_is_never_adopted() -> None:
    assert adopt(list(results({"wide-feed": (None, 1.5)}).values())) == []


def test_steps_that_are_not_valid_do_not_count() -> None:
    rows = alternate({"no-pipelining": (1.4, 1.1)})
    for row in rows:
        row["valid"] = row["variant"] == "stock"

    (got,) = measure_gains(rows, FACTS, SURE)

    assert got["gains"] == []
    assert got["why"] == "no valid pair of measurements"


def test_different_sides_are_compared_with_the_smaller_on_both() -> None:
    rows = alternate({"wide-feed": (None, 0.6), "spare-children": (1.0, 1.0)})

    by_sides = {(one["feed_processes"], one["filter_servers"]): one for one in compare_sides(rows, FACTS, SURE)}

    wide = by_sides[8, 4]
    assert wide["equal_processes"] == 4
    assert wide["ratio"] == pytest.approx(-0.4, abs=0.03)
    assert wide["ratio_interval"] is not None
    assert wide["ratio_interval"][1] < 0
    assert by_sides[4, 6]["ratio"] == pytest.approx(0.0, abs=0.03)


def test_false_gains_are_as_rare_as_the_interval_says() -> None:
    """Two variants that do nothing, a hundred times, at the noise of a shared host."""
    significant = 0
    for seed in range(100):
        rng = random.Random(seed)
        rows = [
            make_row(
                place, variant=name, load="saturated", purpose="variant", level=4, feed_processes=4, filter_servers=4,
                delivered_per_s=15 * math.exp(rng.gauss(0, 0.03)),
            )
            for place, name in enumerate(["stock", "no-pipelining", "no-cache"] * 3)
        ]  # fmt: skip
        significant += sum(gain["significant"] for result in measure_gains(rows, FACTS) for gain in result["gains"])

    assert significant <= 20, "of 200; 5 % are 10"
