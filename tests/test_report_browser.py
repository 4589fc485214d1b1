"""The report in a real browser: every figure is drawn, nothing fails, nothing is fetched."""

import re
import subprocess
from pathlib import Path

import pytest

from reports.analyse import write_reports
from reports.html import render_html
from tests.make_run import Made, make_run
from tests.make_sweep import make_series, make_sweep_summary

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=10000", "--enable-logging=stderr",
]  # fmt: skip


def look_at(chromium: Path, page: Path, profile: Path, scheme: str) -> tuple[str, list[str]]:
    """Return the page as the browser has made it, and what it complained about."""
    command = [
        str(chromium), *FLAGS, f"--user-data-dir={profile}", "--dump-dom",
        f"--blink-settings=preferredColorScheme={1 if scheme == 'light' else 0}", page.as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # Bokeh greets on the console; anything else there is an error or a refused request
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line and "[bokeh" not in line]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_and_nothing_fails(chromium: Path, tmp_path: Path, scheme: str) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1, 2, 4, 8), hold_s=10))
    write_reports(directory, 1_800_000_000.0)
    figures = (directory / "report.html").read_text().count('id="figure-')

    made, said = look_at(chromium, directory / "report.html", tmp_path / "profile", scheme)

    assert figures >= 8
    assert re.search(rf'<html[^>]*data-drawn="{figures}"', made), made[:300]
    assert f'data-drawn-for="{scheme}"' in made
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_of_a_sweep_is_drawn_and_its_settings_can_be_copied(
    chromium: Path, tmp_path: Path, scheme: str
) -> None:
    summary = make_sweep_summary()
    page = tmp_path / "report.html"
    page.write_text(render_html(summary, make_series(summary), 1_800_000_000.0))
    figures = page.read_text().count('id="figure-')

    made, said = look_at(chromium, page, tmp_path / "profile", scheme)

    assert figures >= 11
    assert re.search(rf'<html[^>]*data-drawn="{figures}"', made), made[:300]
    assert "could not be drawn" not in made[: made.index("<script")]
    buttons = re.findall(r"<button[^>]*>", made)
    assert len(buttons) >= 2
    assert not any("hidden" in button for button in buttons if "copy" in button)
    assert said == []
