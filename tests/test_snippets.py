"""What the README gives to paste into a CI server is what that server accepts, and calls options that exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import loadgen

README = Path(__file__).parent.parent / "README.md"
SNIPPETS = dict(
    zip(
        ("github-workflows", "gitlab-ci"),
        re.findall(r"^```yaml\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL),
        strict=True,
    )
)


def list_scripts(found: Any) -> list[str]:
    """Return the shell commands of a workflow or a pipeline."""
    if "jobs" in found:
        return [step["run"] for job in found["jobs"].values() for step in job["steps"] if "run" in step]
    return [line for job in found.values() for key in ("before_script", "script") for line in job[key]]


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet_is_what_the_server_accepts(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.yml"
    path.write_text(f"---\n{SNIPPETS[name]}")
    rules = "{extends: default, rules: {truthy: {check-keys: false}}}"
    for command in (["yamllint", "--strict", "-d", rules], ["check_jsonschema", "--builtin-schema", f"vendor.{name}"]):
        result = subprocess.run([sys.executable, "-m", *command, path], capture_output=True, text=True, check=False)

        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", SNIPPETS)
def test_commands_of_a_snippet_are_shell_and_their_options_exist(name: str) -> None:
    scripts = list_scripts(yaml.safe_load(SNIPPETS[name]))
    for script in scripts:
        result = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    calls = [shlex.split(line) for script in scripts for line in script.splitlines() if " run ci-gate" in line]
    assert len(calls) == 1
    options = [word for word in calls[0][calls[0].index("run") :] if word.startswith("--")]
    said = loadgen("run", "--help", environment={"COLUMNS": "300"}).stdout
    assert options
    assert [option for option in options if option not in said] == []
