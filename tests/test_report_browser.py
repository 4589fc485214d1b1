"""The report in a real browser: every figure is drawn, nothing fails, nothing is fetched."""

import re
import subprocess
from pathlib import Path

import pytest

from reports.analyse import write_reports
from tests.make_run import Made, make_run

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=10000", "--enable-logging=stderr",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_and_nothing_fails(chromium: Path, tmp_path: Path, scheme: str) -> None:
    directory = make_run(tmp_path / "run", Made(concurrencies=(1, 2, 4, 8), hold_s=10))
    write_reports(directory, 1_800_000_000.0)
    page = (directory / "report.html").read_text()
    figures = page.count('id="figure-')

    command = [
        str(chromium), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
        f"--blink-settings=preferredColorScheme={1 if scheme == 'light' else 0}",
        (directory / "report.html").as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert figures >= 8
    assert re.search(rf'<html[^>]*data-drawn="{figures}"', result.stdout), result.stdout[:300]
    assert f'data-drawn-for="{scheme}"' in result.stdout
    # Bokeh greets on the console; anything else there is an error or a refused request
    said = [line for line in result.stderr.splitlines() if "CONSOLE" in line and "[bokeh" not in line]
    assert said == []
