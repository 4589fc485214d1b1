"""`loadgen fit`: a user's own table, as text and as JSON."""

import json
from pathlib import Path

import pytest

from tests.command import loadgen
from tests.test_models import CISCO, SPECSDM91


def write(path: Path, points: list[tuple[int, float]], header: str = "concurrency,throughput") -> Path:
    path.write_text("\n".join([header, *(f"{n},{x}" for n, x in points)]) + "\n")
    return path


def test_json_has_the_published_fit(tmp_path: Path) -> None:
    said = loadgen("fit", write(tmp_path / "t.csv", SPECSDM91), "--json")

    got = json.loads(said.stdout)
    assert said.returncode == 0
    assert got["chosen"] == "hard_cap"
    usl = got["models"]["usl"]
    assert usl["gamma"] == pytest.approx(90.0, abs=0.01)
    assert usl["peak_concurrency"] == pytest.approx(96.51956, rel=1e-5)
    assert usl["peak_throughput"] == pytest.approx(1884, abs=0.5)
    assert usl["intervals"]["alpha"][0] < usl["alpha"] < usl["intervals"]["alpha"][1]
    assert set(got["models"]) == {"usl", "amdahl", "hard_cap", "smooth_min"}
    assert "hard-cap-fits-better" in got["warnings"]


def test_peak_outside_the_range_is_null_and_never_printed(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", CISCO)

    assert json.loads(loadgen("fit", table, "--json").stdout)["models"]["usl"]["peak_concurrency"] is None
    said = loadgen("fit", table).stdout
    assert "no peak up to the largest concurrency tested, N = 32" in said
    assert "35.5" not in said


def test_text_names_the_law_its_parameters_and_the_warnings(tmp_path: Path) -> None:
    said = loadgen("fit", write(tmp_path / "t.csv", SPECSDM91)).stdout

    assert said.startswith("hard cap fits these 7 points best")
    assert "peak at N = 96.5" in said
    assert "hard-cap-fits-better" in said
    assert max(map(len, said.splitlines())) <= 80


def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "# measured on Tuesday\nnote,Throughput, concurrency ,error\n\n"
        + "".join(f'"a, b",{x},{n},{x / 100}\n' for n, x in SPECSDM91)
    )

    got = json.loads(loadgen("fit", path, "--json").stdout)

    assert got["points"] == 7
    assert got["models"]["usl"]["gamma"] < 80, "weighted by relative errors, the first point counts"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "empty; want a header such as concurrency,throughput"),
        ("1,2\n3,4\n", 't.csv:1: no column "concurrency"'),
        ("concurrency,throughput\n1,5\n2,fast\n", 't.csv:3: throughput: got "fast", want a number'),
        ("concurrency,throughput\n1\n", 't.csv:2: throughput: got "", want a number'),
        ("concurrency,throughput\n0,5\n", "t.csv:2: concurrency: got 0, want at least 1"),
        ("concurrency,throughput\n1,-5\n", "t.csv:2: throughput: got -5, want more than 0"),
        ("concurrency,throughput\n1,nan\n", 'throughput: got "nan", want a number'),
        ("concurrency,throughput\n1,5\n2,9\n3,11\n", "got 3 different concurrencies, want at least 4"),
    ],
)
def test_bad_table_says_where_and_what_is_wanted(tmp_path: Path, text: str, want: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)

    said = loadgen("fit", path)

    assert said.returncode == 2
    assert want in said.stderr
    assert said.stdout == ""


def test_missing_file_is_named() -> None:
    said = loadgen("fit", "nowhere.csv")

    assert said.returncode == 2
    assert "nowhere.csv: No such file" in said.stderr
