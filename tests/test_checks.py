"""The checks of the code itself, so that one command runs everything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "."], id="ruff-finds-nothing"),
        pytest.param(["ruff", "format", "--check", "."], id="code-is-formatted"),
        pytest.param(["mypy"], id="types-are-right"),
        pytest.param(["lint-imports"], id="rooms-keep-their-walls"),
    ],
)
def test_checks(command: list[str]) -> None:
    if command[0] == "lint-imports":
        command = [str(Path(sys.executable).parent / "lint-imports")]
    else:
        command = [sys.executable, "-m", *command]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


def test_locust_is_imported_only_where_it_is_used() -> None:
    program = (
        "import sys, loadgen.cli, reports.analyse, loadgen.run; print('locust' in sys.modules, 'gevent' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.split() == ["False", "False"]
