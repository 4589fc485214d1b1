"""Which runs of a series count, which are taken again because of noise, and which end it."""

from pathlib import Path

import pytest

from loadgen.errors import ExitCode
from loadgen.records import RunReader
from loadgen.series import Taken
from reports.analyse import Summary, analyse
from tests.make_run import Made, make_run

NOT_STEADY = "not steady: the second half of the hold delivered -18%"
BUSY = "something else on this host used 0.9 of its 2 cores"
RESTART = "a daemon was restarted (1 x restart)"


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    with RunReader(make_run(tmp_path_factory.mktemp("run") / "r", Made(concurrencies=(1, 8), hold_s=15))) as reader:
        return analyse(reader)


def make_taken(summary: Summary, reasons: list[str], exit_code: ExitCode = ExitCode.OK, lost: int = 0) -> Taken:
    steps = [summary["steps"][0], {**summary["steps"][1], "valid": not reasons, "reasons": reasons}]
    changed = {**summary, "steps": steps, "accounting": {**summary["accounting"], "lost": lost}}
    return Taken(Path("run"), changed, exit_code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reasons", "exit_code", "lost", "want"),
    [
        pytest.param([], ExitCode.OK, 0, "counts", id="complete"),
        pytest.param([NOT_STEADY], ExitCode.OK, 0, "again", id="not-steady"),
        pytest.param([NOT_STEADY, BUSY], ExitCode.OK, 0, "again", id="disturbed-by-others"),
        pytest.param([RESTART], ExitCode.OK, 0, "ends", id="restart-is-no-noise"),
        pytest.param([NOT_STEADY, RESTART], ExitCode.OK, 0, "ends", id="nor-is-it-beside-noise"),
        pytest.param([NOT_STEADY], ExitCode.OK, 1, "ends", id="a-lost-message-is-never-taken-again"),
        pytest.param([NOT_STEADY], ExitCode.INTERRUPTED, 0, "ends", id="interrupted"),
    ],
)
def test_only_what_noise_has_spoilt_is_taken_again(
    summary: Summary, reasons: list[str], exit_code: ExitCode, lost: int, want: str
) -> None:
    taken = make_taken(summary, reasons, exit_code, lost)

    got = "counts" if taken.is_complete else "again" if taken.is_spoilt else "ends"
    assert got == want
