"""What all tests share: where the real chain is needed, and whether it can be had."""

import os
import shutil
from pathlib import Path

import pytest

from loadgen.chain import lab


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot run here, with the reason; in CI nothing may be skipped that way."""
    missing = lab.missing_requirements()
    wanted = config.getoption("-m")
    for item in items:
        if item.get_closest_marker("chain") and missing and not os.environ.get("CI"):
            item.add_marker(pytest.mark.skip(reason=f"no lab here: missing {', '.join(missing)}"))
        if item.get_closest_marker("bench") and "bench" not in str(wanted):
            item.add_marker(pytest.mark.skip(reason="a benchmark: run it with 'pytest -m bench -s'"))


@pytest.fixture
def chromium() -> Path:
    """Return the path of a Chromium; skip where there is none (never in CI)."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium, to look at the report")
        pytest.skip("no chromium here to look at the report")
    return Path(found)
