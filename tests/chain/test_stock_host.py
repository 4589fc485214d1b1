"""A host made of Debian's own files, found and measured by `--chain local`: in namespaces of its own."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.command import LOADGEN, read_summary, run_directory
from tests.labs import SHORT_SWEEP

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if subprocess.run(["unshare", "--mount", "--net", "true"], check=False).returncode != 0:
        pytest.skip("no namespaces may be made here")
    directory = tmp_path_factory.mktemp("stock-host")
    profile = directory / "sweep.toml"
    profile.write_text(SHORT_SWEEP)
    script = Path(__file__).with_name("stock_host.sh")
    said = subprocess.run(
        ["unshare", "--mount", "--net", "--propagation", "private", "bash", str(script), str(directory), str(profile), *LOADGEN],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr + said.stdout
    return directory


def test_chain_of_a_stock_host_is_found_and_without_apply_left_alone(work: Path) -> None:
    said = (work / "plain.out").read_text()

    assert "measured as it is" in said
    steps = read_summary(run_directory(work / "plain"))["steps"]
    assert {(step["feed_processes"], step["filter_servers"]) for step in steps} == {(2, 2)}
    assert all(step["deliveries"] for step in steps)
    assert (work / "between").read_text() == (work / "before").read_text()


def test_levels_are_applied_through_debians_split_configuration_and_put_back(work: Path) -> None:
    summary = read_summary(run_directory(work / "applied"))

    assert {(step["feed_processes"], step["filter_servers"]) for step in summary["steps"]} == {(1, 1), (3, 3)}
    assert all(step["deliveries"] for step in summary["steps"])
    assert (work / "after").read_text() == (work / "before").read_text()
    assert (work / "children").read_text().strip() == "2"


@pytest.mark.parametrize(("name", "configuration"), [("split", "/etc/amavis/conf.d"), ("single", "/etc/amavisd.conf")])
def test_chain_file_of_a_stock_host_is_written_whole_whichever_way_amavisd_is_configured(
    work: Path, name: str, configuration: str
) -> None:
    written = tomllib.loads((work / f"{name}.toml").read_text())

    assert written["amavis"] == {
        "pid_file": "/var/run/amavis/amavisd.pid", "log": "/var/log/amavis.log", "configuration": configuration,
    }  # fmt: skip
    assert (written["front"], written["filter"], written["reinjection"], written["sink"]) == (
        "127.0.0.1:25", "127.0.0.1:10024", "127.0.0.1:10025", "127.0.0.1:11026",
    )  # fmt: skip
    assert (written["feed_processes"], written["filter_servers"]) == (2, 2)
    assert written["postfix"]["maillog"] == "/var/log/mail.log"
    said = (work / f"{name}.out").read_text()
    assert "not found" not in said
    assert "delivered at 127.0.0.1:11026" in said, said
