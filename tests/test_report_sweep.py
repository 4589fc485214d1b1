"""The report of a sweep: the numbers of the summary, nothing that was not measured, nothing foreign that acts."""

import inspect
import io
import json
import re
from typing import Any, cast

import pytest
from rich.console import Console

from reports.html import render_html
from reports.levelcharts import draw_level_charts
from reports.limits import find_effects, find_limits
from reports.summary import Summary
from reports.text import print_summary
from reports.variantcharts import draw_variant_charts
from tests.make_sweep import (
    ADOPTED,
    STOCK_PER_S,
    make_recommendation,
    make_series,
    make_sweep_summary,
    without_sweep,
)
from tests.page import Page

NOW_S = 1_780_001_500.0
HOSTILE = "</pre></script><script>alert(1)</script> & \x1b[31mred \u202egnp.exe {{ 7*7 }} [bold]$$x$$"


@pytest.fixture(scope="module")
def summary() -> Summary:
    return make_sweep_summary()


@pytest.fixture(scope="module")
def page(summary: Summary) -> Page:
    return Page(render(summary))


def render(summary: Summary) -> str:
    return render_html(summary, make_series(summary), NOW_S)


def advised(summary: Summary, **changes: Any) -> Summary:
    """Return *summary* with *changes* to its recommendation."""
    recommendation = make_recommendation(summary["levels"], **changes)
    return cast(Summary, cast(dict[str, Any], summary) | {"recommendation": recommendation})


def unadvised(summary: Summary) -> Summary:
    return advised(
        summary, processes=None, interval=None, filter_servers=None, variants=[], within=None, best_processes=None,
        delivered_per_s=None, delivered_per_s_interval=None, response_s=None, memory_bytes=None, memory_bytes_interval=None,
        memory_available_bytes=None, ceilings=[], present={}, already_right=None, settings=[], commands=[],
        headline="No recommendation: only 4 processes were measured.", sentences=["One process count says nothing."],
    )  # fmt: skip


def stripped(summary: Summary, **changes: Any) -> Summary:
    """Return *summary* with *changes* to every level."""
    levels = [cast(dict[str, Any], level) | changes for level in summary["levels"]]
    return cast(Summary, cast(dict[str, Any], summary) | {"levels": levels})


def drawn(summary: Summary) -> list[str]:
    return [chart.name for chart in (*draw_level_charts(summary), *draw_variant_charts(summary))]


def columns(summary: Summary, chart: str, name: str) -> list[list[Any]]:
    """Return that column of every source of a figure."""
    found = next(one for one in (*draw_level_charts(summary), *draw_variant_charts(summary)) if one.name == chart)
    sources = [getattr(renderer, "data_source", None) for renderer in found.model.renderers]
    return [list(source.data[name]) for source in sources if source is not None and name in source.data]


def marks(summary: Summary) -> list[str]:
    """Return the words on the throughput figure."""
    chart = next(one for one in draw_level_charts(summary) if one.name == "levels")
    return [part.text for part in chart.model.center if type(part).__name__ == "Label"]


def printed(summary: Summary, width: int = 80) -> str:
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=width, color_system=None))
    return out.getvalue()


# -- the page ---------------------------------------------------------------------------------------------


def test_recommendation_comes_first_with_its_numbers(summary: Summary, page: Page) -> None:
    body = page.words[1:]
    recommendation = summary["recommendation"]
    low, high = recommendation["delivered_per_s_interval"] or [0, 0]

    assert body.index(recommendation["headline"]) < body.index("What to set") < body.index("Levels")
    assert "95 % interval 3 to 4" in body
    assert f"95 % interval {low:.1f} to {high:.1f}" in body
    assert "306.0 MiB" in body
    assert "292.0 MiB to 320.0 MiB; 1.9 GiB left" in body
    for sentence in recommendation["sentences"]:
        assert sentence in body


def test_settings_and_commands_can_be_copied_as_they_are(summary: Summary, page: Page) -> None:
    words = "\n".join(page.words)

    assert "\n".join(summary["recommendation"]["settings"]) in words
    assert "\n".join(summary["recommendation"]["commands"]) in words


def test_every_level_is_a_row_with_its_throughput(summary: Summary, page: Page) -> None:
    for level in summary["levels"]:
        low, high = level["interval"] or [0, 0]
        assert f"{level['delivered_per_s']:.1f}" in page.words
        assert f"{low:.1f} to {high:.1f}" in page.words


def test_models_say_their_parameters_and_only_the_usl_a_peak(page: Page) -> None:
    words = " ".join(page.words)

    assert "X max 14.7 (14.1 to 15.2)" in words
    assert "4.7 to 5.9" in words
    assert "The hard cap fits better than the Universal Scalability Law" in words


def test_peak_outside_the_tested_range_is_not_a_number(summary: Summary) -> None:
    models = json.loads(json.dumps(summary["sweep"]["models"] if summary["sweep"] else {}))
    models["models"]["usl"] |= {"peak_concurrency": None, "peak_interval": [8.4, None]}
    models["warnings"] = ["peak-outside-range", "something-new"]

    words = Page(render(without_sweep(summary, models=models, models_adopted=None))).words

    assert "none within the tested range" in words
    assert "8.4" not in " ".join(words)
    assert "something new" in words


def test_figures_over_the_sessions_are_left_out(page: Page) -> None:
    figures = set(json.loads(page.data["figures"]))

    assert not figures & {"throughput", "response"}
    assert figures >= {"levels", "level-response", "level-memory", "stations", "gains-low", "gains-saturated", "sides", "rates"}  # fmt: skip


def test_many_steps_are_folded_away_and_few_are_not(summary: Summary) -> None:
    few = cast(Summary, cast(dict[str, Any], summary) | {"steps": summary["steps"][:5]})

    assert f"All {len(summary['steps'])} steps" in Page(render(summary)).words
    assert "All 5 steps" not in Page(render(few)).words


def test_right_settings_are_said_to_be_right(summary: Summary) -> None:
    right = advised(
        summary, present={"feed_processes": 3, "filter_servers": 3}, variants=[], already_right=True, commands=[],
        headline="The settings are right: maxproc = $max_servers = 3 carries 14.2 msg/s",
    )  # fmt: skip

    words = Page(render(right)).words

    assert "already right" in words
    assert any(text.startswith("Nothing needs to be changed") for text in words)
    assert "The same as commands" not in words
    assert marks(right) == ["recommended: 3 (as it is)"]


def test_without_a_recommendation_the_reason_stands_alone(summary: Summary) -> None:
    words = Page(render(unadvised(summary))).words

    assert "No recommendation: only 4 processes were measured." in words
    assert "What to set" not in words
    assert marks(unadvised(summary)) == []


def test_reference_chain_is_disclaimed_before_the_recommendation(summary: Summary) -> None:
    run = cast(dict[str, Any], summary["run"]) | {"is_reference": True, "law": "S = 100 ms"}

    words = Page(render(cast(Summary, cast(dict[str, Any], summary) | {"run": run}))).words

    assert words[1] == "This is not a mail server."


def test_foreign_names_and_settings_stay_inert(summary: Summary) -> None:
    sweep = cast(dict[str, Any], summary["sweep"])
    variants = [one | {"name": HOSTILE, "about": HOSTILE, "settings": [HOSTILE], "why": HOSTILE} for one in sweep["variants"][:2]]  # fmt: skip
    hostile = advised(
        without_sweep(summary, variants=variants), settings=[HOSTILE], commands=[HOSTILE], headline=HOSTILE,
        sentences=[HOSTILE], ceilings=[{"name": HOSTILE, "per_s": 1.0, "processes": 1, "text": HOSTILE}], variants=[HOSTILE],
    )  # fmt: skip
    models = cast(dict[str, Any], sweep["models"]) | {"variant": HOSTILE, "warnings": [HOSTILE]}
    hostile = without_sweep(stripped(hostile, variant=HOSTILE, station=HOSTILE), models=models)

    text = render(hostile)
    page = Page(text)

    assert len(page.scripts) == 2
    assert page.handlers == []
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "{{ 7*7 }}" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert [link for link in page.links if not link[2].startswith(("#", "data:"))] == []


def test_setting_with_an_ampersand_is_shown_as_it_is(summary: Summary) -> None:
    line = "    -o smtp_helo_name=<a&b>"

    page = Page(render(advised(summary, settings=[line])))

    assert line.strip() in page.words


# -- the figures ------------------------------------------------------------------------------------------


def test_every_repeat_and_every_mean_is_drawn(summary: Summary) -> None:
    got = [value for column in columns(summary, "levels", "y") for value in column]

    for level in summary["levels"]:
        assert level["delivered_per_s"] in got
        assert all(repeat["delivered_per_s"] in got for repeat in level["repeats"])


def test_step_that_is_not_valid_is_hollow(summary: Summary) -> None:
    chart = next(one for one in draw_level_charts(summary) if one.name == "levels")

    hollow = [one for one in chart.model.renderers if getattr(one.glyph, "fill_alpha", 1) == 0]

    assert [list(one.data_source.data["y"]) for one in hollow] == [[12.6]]
    assert list(hollow[0].data_source.data["x"]) == [6]


def test_law_is_drawn_over_the_tested_range_only(summary: Summary) -> None:
    longest = max(columns(summary, "levels", "x"), key=len)

    assert len(longest) > len(STOCK_PER_S) * 3
    assert (min(longest), max(longest)) == (1, 8)


@pytest.mark.parametrize(
    ("wanted", "present", "want"),
    [
        pytest.param(3, (2, 2), ["recommended: 3", "present: 2"], id="neighbours"),
        pytest.param(3, (3, 3), ["recommended: 3 (as it is)"], id="the-same"),
        pytest.param(3, (3, 8), ["recommended: 3", "present: 3 and 8"], id="sides-differ"),
        pytest.param(3, (None, None), ["recommended: 3"], id="present-not-known"),
    ],
)
def test_counts_are_marked_on_rows_of_their_own(
    summary: Summary, wanted: int, present: tuple[int | None, int | None], want: list[str]
) -> None:
    made = advised(
        summary, processes=wanted, present=dict(zip(("feed_processes", "filter_servers"), present, strict=True))
    )

    chart = next(one for one in draw_level_charts(made) if one.name == "levels")
    labels = [part for part in chart.model.center if type(part).__name__ == "Label"]

    assert [label.text for label in labels] == want
    assert len({label.y_offset for label in labels}) == len(want)


def test_labels_of_neighbours_point_away_from_each_other(summary: Summary) -> None:
    chart = next(one for one in draw_level_charts(summary) if one.name == "levels")

    sides = {part.text: part.text_align for part in chart.model.center if type(part).__name__ == "Label"}

    assert sides == {"recommended: 3": "left", "present: 2": "right"}


def test_axes_begin_at_zero_and_none_is_logarithmic(summary: Summary) -> None:
    for chart in draw_level_charts(summary):
        assert chart.model.y_range.start == 0
        assert type(chart.model.y_scale).__name__ == "LinearScale"
        assert type(chart.model.x_scale).__name__ in ("LinearScale", "CategoricalScale")


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        pytest.param(lambda s: stripped(s, memory_bytes=None), "level-memory", id="memory"),
        pytest.param(lambda s: stripped(s, feed_delays=None), "stations", id="delays"),
        pytest.param(
            lambda s: stripped(s, response_s=dict.fromkeys(("mean", "p50", "p95", "p99", "max")) | {"messages": 0}),
            "level-response", id="response",
        ),
        pytest.param(lambda s: without_sweep(s, mismatches=[]), "sides", id="sides"),
        pytest.param(lambda s: without_sweep(s, variants=[]), "gains-low", id="variants"),
        pytest.param(lambda s: stripped(s, delivered_per_s=None, interval=None, repeats=[]), "levels", id="throughput"),
    ],
)  # fmt: skip
def test_what_was_not_measured_has_no_figure(summary: Summary, changed: Any, gone: str) -> None:
    made = changed(summary)

    assert gone in drawn(summary)
    assert gone not in drawn(made)
    assert f'id="figure-{gone}"' not in render(made)


def test_run_that_is_no_sweep_has_none_of_these_figures(summary: Summary) -> None:
    made = cast(Summary, cast(dict[str, Any], summary) | {"sweep": None})

    assert drawn(made) == []
    assert find_effects(made)


def test_gain_that_is_not_sure_is_grey(summary: Summary) -> None:
    chart = next(one for one in draw_variant_charts(summary) if one.name == "gains-saturated")

    shown = {key.label.split(",")[0]: key.colour for key in chart.keys}
    names = [list(one.data_source.data["name"]) for one in chart.model.renderers]

    assert shown == {"surely more": "blue", "surely less": "orange", "not told from zero": "grey"}
    assert names == [[ADOPTED], ["wide-feed"], ["no-cache", "spare-children"]]


def test_both_loads_share_one_scale(summary: Summary) -> None:
    low, saturated = (chart.model.x_range for chart in draw_variant_charts(summary) if chart.name.startswith("gains"))

    assert (low.start, low.end) == (saturated.start, saturated.end)
    assert low.start < 0 < low.end


def test_memory_that_dwarfs_the_rest_is_told_and_not_drawn(summary: Summary) -> None:
    steps = [
        cast(dict[str, Any], row)
        | {"host": cast(dict[str, Any], row["host"]) | {"memory_available_bytes": 60 * 2.0**30}}
        for row in summary["steps"]
    ]
    chart = next(one for one in draw_level_charts(cast(Summary, cast(dict[str, Any], summary) | {"steps": steps})) if one.name == "level-memory")  # fmt: skip

    assert "61,440 MiB left" in chart.caption
    assert chart.model.y_range.end < 2000


def test_one_level_without_models_and_variants_is_still_a_report(summary: Summary) -> None:
    only = [level for level in summary["levels"] if level["variant"] == "stock" and level["processes"] == 4]
    bare = unadvised(without_sweep(summary, models=None, models_adopted=None, variants=[], mismatches=[], spread=None))
    made = cast(Summary, cast(dict[str, Any], bare) | {"levels": only, "steps": summary["steps"][:3]})

    page = Page(render(made))

    assert "Variants" not in page.words
    assert "Models" not in page.words
    assert "levels" in json.loads(page.data["figures"])
    assert "14.9" in printed(made)


def test_sweep_without_any_step_is_still_a_report(summary: Summary) -> None:
    bare = unadvised(without_sweep(summary, models=None, models_adopted=None, variants=[], mismatches=[], spread=None))
    made = cast(Summary, cast(dict[str, Any], bare) | {"levels": [], "steps": []})

    assert "No step was begun." in Page(render(made)).words
    assert printed(made).startswith("No recommendation")


# -- the limits -------------------------------------------------------------------------------------------


def test_limits_that_are_wide_enough_stay_as_they_are(summary: Summary) -> None:
    got = {limit.name: (limit.present, limit.proposed, limit.binds) for limit in find_limits(summary)}

    assert got == {
        "maxproc of the feed": (2, 3, True),
        "destination concurrency limit": (2, 3, True),
        "$max_servers": (2, 3, True),
        "reinjection processes": (100, 100, False),
    }


def test_only_the_smallest_limit_binds(summary: Summary) -> None:
    present = {
        "feed_processes": 8,
        "filter_servers": 8,
        "destination_concurrency_limit": 4,
        "reinjection_processes": 100,
    }

    got = [limit.name for limit in find_limits(advised(summary, present=present)) if limit.binds]

    assert got == ["destination concurrency limit"]


def test_spare_filter_processes_are_proposed_as_such(summary: Summary) -> None:
    got = {limit.name: limit.proposed for limit in find_limits(advised(summary, filter_servers=5))}

    assert (got["maxproc of the feed"], got["$max_servers"]) == (3, 5)


def test_effects_compare_the_present_level_with_the_proposed_one(summary: Summary) -> None:
    present = next(one for one in summary["levels"] if (one["variant"], one["processes"]) == ("stock", 2))

    got = {effect.name: (effect.present, effect.proposed) for effect in find_effects(summary)}

    assert got["delivered"] == (present["delivered_per_s"], summary["recommendation"]["delivered_per_s"])
    assert got["memory of the filter"] == (present["memory_bytes"], summary["recommendation"]["memory_bytes"])


def test_sides_that_differ_now_are_compared_by_their_own_measurement(summary: Summary) -> None:
    made = advised(summary, present={"feed_processes": 8, "filter_servers": 2})

    got = {effect.name: effect.present for effect in find_effects(made)}

    assert got["delivered"] == 8.9


# -- the terminal -----------------------------------------------------------------------------------------


def test_terminal_says_the_recommendation_then_levels_then_settings(summary: Summary) -> None:
    got = printed(summary)

    assert got.startswith(summary["recommendation"]["headline"])
    places = [got.index(text) for text in ("\nstock settings\n", f"\nwith {ADOPTED}\n", "What to set", "As commands", "destination-limit-caps")]  # fmt: skip
    assert places == sorted(places)
    for line in (*summary["recommendation"]["settings"], *summary["recommendation"]["commands"]):
        assert f"  {line}\n" in got


def test_terminal_marks_recommended_present_and_best(summary: Summary) -> None:
    lines = printed(summary).splitlines()
    parts = lines[lines.index(f"with {ADOPTED}") :]

    assert next(line for line in lines if line.startswith("2 ")).rstrip().endswith("present")
    assert next(line for line in parts if line.startswith("3 ")).rstrip().endswith("recommended")
    assert next(line for line in parts if line.startswith("4 ")).rstrip().endswith("best")


def test_terminal_fits_eighty_columns(summary: Summary) -> None:
    assert max(len(line.rstrip()) for line in printed(summary).splitlines()) <= 80


def test_terminal_never_breaks_a_command(summary: Summary) -> None:
    command = f"postconf -c /etc/postfix-of-the-other-instance -e amavisfeed_destination_concurrency_limit={'3' * 40}"

    assert f"  {command}\n" in printed(advised(summary, commands=[command]))


def test_terminal_says_when_nothing_needs_to_change(summary: Summary) -> None:
    got = printed(advised(summary, already_right=True, commands=[]))

    assert "Nothing needs to be changed." in got
    assert "As commands" not in got


def test_terminal_gets_no_control_characters_and_no_markup(summary: Summary) -> None:
    made = advised(summary, headline=HOSTILE, settings=[HOSTILE], commands=[HOSTILE])

    got = printed(stripped(made, variant=HOSTILE, station=HOSTILE))

    assert "\x1b" not in got
    assert "\u202e" not in got
    assert "[bold]" in got


def test_every_warning_of_the_fit_has_words() -> None:
    """A new id shows up here rather than as an id on a page."""
    from reports import models, wording

    given = set(re.findall(r'found\.append\("([a-z-]+)"\)', inspect.getsource(models)))

    assert given
    assert [warning for warning in given if wording.name_warning(warning) == warning.replace("-", " ")] == []
