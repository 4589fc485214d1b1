"""What a gate leaves for a CI server: JUnit XML, Markdown, annotations; with whatever text a server or a name put into it."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import junitparser
import pytest
import xmlschema

from loadgen.gating import GateFiles, publish
from reports.expecting import no_gate
from reports.gate import Gate, Judged
from reports.gatetext import render_gate_markdown, render_github_annotations, render_gitlab_annotations
from reports.junit import render_junit

HOSTILE = "a|b<script>alert(1)</script>\x1b[31m\x00 100%,x:y\r\n::error::no ]]> `z` \u202e"


def make_judged(outcome: str, words: str = "delivered", key: str = "delivered_per_s_min") -> Judged:
    return Judged(
        key=key, words=words, want="at least 15.0 msg/s", got="14.0 msg/s (13.5 to 14.5)", value=14.0, interval=[13.5, 14.5],
        limit=15.0, outcome=outcome,
    )  # fmt: skip


def make_gate(outcome: str, *judged: Judged, reasons: tuple[str, ...] = ()) -> Gate:
    gate = no_gate("ci-gate", "run1", "run2")
    gate["outcome"], gate["judged"], gate["reasons"] = outcome, list(judged), list(reasons)
    return gate


CASES = {
    "met": make_gate("met", make_judged("met")),
    "missed": make_gate("missed", make_judged("met"), make_judged("missed", key="lost_max", words="lost")),
    "inconclusive": make_gate("inconclusive", make_judged("inconclusive"), reasons=("delivered: inconclusive",)),
    "invalid": make_gate("invalid", make_judged("met"), reasons=("run2: invalid: not steady",)),
    "hostile": make_gate("missed", make_judged("missed", words=HOSTILE), reasons=(HOSTILE,)),
    "nothing": make_gate("none"),
}


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> xmlschema.XMLSchema:
    """The schema of Jenkins' xunit plugin, as pytest validates its own JUnit files with; it comes with pytest's source."""
    directory = tmp_path_factory.mktemp("sdist")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        str(directory),
    ]
    result = subprocess.run([*command, f"pytest=={pytest.__version__}"], capture_output=True, text=True, check=False)
    archives = list(directory.glob("pytest-*.tar.gz"))
    if not archives:
        pytest.skip(f"pytest's source, which has the schema, cannot be had here: {result.stderr.strip()[-200:]}")
    with tarfile.open(archives[0]) as archive:
        member = next(name for name in archive.getnames() if name.endswith("junit-10.xsd"))
        stream = archive.extractfile(member)
        assert stream is not None
        return xmlschema.XMLSchema(io.BytesIO(stream.read()))


@pytest.mark.parametrize("name", CASES)
def test_junit_validates_against_the_usual_schema(schema: xmlschema.XMLSchema, name: str) -> None:
    schema.validate(io.StringIO(render_junit(CASES[name], 1_780_000_000.0, 103.2, "mx1")))


def read_junit(gate: Gate) -> "junitparser.TestSuite":
    text = render_junit(gate, 1_780_000_000.0, 103.2, "mx1")
    (suite,) = junitparser.JUnitXml.fromstring(text.encode())
    return suite


def test_another_parser_reads_failures_for_what_was_missed_and_errors_for_what_cannot_be_used() -> None:
    suites = {name: read_junit(gate) for name, gate in CASES.items()}

    assert {name: (suite.tests, suite.failures, suite.errors) for name, suite in suites.items()} == {
        "met": (2, 0, 0), "missed": (3, 1, 0), "inconclusive": (2, 0, 1), "invalid": (2, 0, 1), "hostile": (2, 1, 0),
        "nothing": (1, 0, 0),
    }  # fmt: skip
    cases = {case.name: case for case in suites["missed"]}
    (failure,) = cases["lost_max: lost"].result
    assert isinstance(failure, junitparser.Failure)
    assert failure.message == "lost: 14.0 msg/s (13.5 to 14.5), want at least 15.0 msg/s: missed"
    (error,) = next(case for case in suites["invalid"] if case.name == "runs are complete and valid").result
    assert isinstance(error, junitparser.Error)
    assert error.message == "run2: invalid: not steady"


def test_markdown_has_the_outcome_first_and_takes_no_text_for_markup() -> None:
    text = render_gate_markdown(CASES["hostile"])

    assert text.startswith("### loadgen: missed")
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "a\\|b" in text
    rows = [line for line in text.splitlines() if line.startswith("| \u2717")]
    assert len(rows) == 1
    assert render_gate_markdown(CASES["met"]).count("\u2713") == 1


def test_chart_shows_the_change_on_its_side_of_no_change() -> None:
    worse = Judged(
        key="worse_max.delivered_per_s", words="delivered against the baseline", want="no more than 5% worse", got="-15.0%",
        value=-0.15, interval=[-0.18, -0.12], limit=0.05, outcome="missed",
    )  # fmt: skip

    chart = render_gate_markdown(make_gate("missed", worse)).split("```")[1].splitlines()[-1]

    assert chart.index("#") < chart.index("|")
    assert chart.index("=") < chart.index(".") < chart.index("|")


def test_annotations_of_github_are_one_line_each_whatever_they_say() -> None:
    lines = render_github_annotations(CASES["hostile"]).splitlines()

    assert len(lines) == 1
    assert lines[0].startswith("::error title=loadgen%3A a|b")
    assert "100%25%2Cx%3Ay" in lines[0]
    assert "\x1b" not in lines[0]
    assert render_github_annotations(CASES["met"]) == (
        "::notice title=loadgen%3A met::all 1 expectations of ci-gate are met\n"
    )
    assert render_github_annotations(CASES["inconclusive"]).startswith("::warning title=")
    assert "::error title=loadgen%3A invalid::run2: invalid: not steady" in render_github_annotations(CASES["invalid"])


def test_no_more_annotations_than_github_shows() -> None:
    many = make_gate("missed", *(make_judged("missed", words=f"one {number}") for number in range(30)))

    assert len(render_github_annotations(many).splitlines()) == 10


def test_annotations_of_gitlab_link_to_the_job_and_its_pages() -> None:
    text = render_gitlab_annotations(
        CASES["missed"], {"report": "runs/a b/report.html"}, {"CI_JOB_URL": "https://gitlab.example.com/x/-/jobs/7"}
    )

    assert json.loads(text) == {
        "loadgen": [
            {"external_link": {"label": "loadgen ci-gate: missed (lost missed)", "url": "https://gitlab.example.com/x/-/jobs/7"}},
            {
                "external_link": {
                    "label": "report", "url": "https://gitlab.example.com/x/-/jobs/7/artifacts/file/runs/a%20b/report.html",
                }
            },
        ]
    }  # fmt: skip


def test_summary_of_a_step_is_appended_to_and_annotations_are_printed_only_where_github_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    told = {"started_s": 0.0, "took_s": 1.0, "hostname": "mx1"}
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)

    publish(CASES["missed"], GateFiles(), "# words", pages={}, **told)  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    publish(CASES["missed"], GateFiles(), "# words", pages={}, **told)  # type: ignore[arg-type]

    assert summary.read_text() == "before\n# words\n"
    assert capsys.readouterr().out.startswith("::error title=loadgen%3A lost::")


def test_summary_that_has_no_room_left_is_not_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_bytes(b"x" * (1 << 20))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))

    publish(CASES["met"], GateFiles(), "# words", started_s=0.0, took_s=1.0, hostname="mx1", pages={})

    assert summary.stat().st_size == 1 << 20
