"""A gate as JUnit XML, as CI servers read it: one test case for each expectation, and one for the runs themselves.

A failure is an expectation that was missed; an error is a run that cannot be
used, or an expectation that could not be decided. The shape is what Jenkins' schema allows.
"""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from reports.foreign import clean
from reports.gate import Gate, Judged

__all__ = ["render_junit"]


def render_junit(gate: Gate, started_s: float, took_s: float, hostname: str) -> str:
    """Return the XML text.

    Args:
        gate: What was judged.
        started_s: Unix seconds at which the first run began.
        took_s: All runs together.
        hostname: Of the machine that was measured.
    """
    failures = sum(one["outcome"] == "missed" for one in gate["judged"])
    undecided = [one for one in gate["judged"] if one["outcome"] in ("inconclusive", "not measured")]
    unusable = gate["outcome"] in ("invalid", "incomplete")
    counts = {
        "tests": str(len(gate["judged"]) + 1), "failures": str(failures), "errors": str(len(undecided) + unusable),
        "time": f"{took_s:.3f}",
    }  # fmt: skip
    root = ET.Element("testsuites", {"name": "loadgen", **counts})
    suite = ET.SubElement(
        root, "testsuite",
        {
            "name": f"loadgen.{gate['profile']}", **counts, "skipped": "0", "hostname": _text(hostname) or "localhost",
            "timestamp": datetime.fromtimestamp(started_s, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        },
    )  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for name, value in (("outcome", gate["outcome"]), ("runs", " ".join(gate["runs"]))):
        ET.SubElement(properties, "property", {"name": name, "value": _text(value)})
    case = _add_case(suite, gate, "runs are complete and valid", took_s)
    if unusable:
        _add_problem(case, "error", gate["outcome"], "\n".join(gate["reasons"]) or gate["outcome"])
    for one in gate["judged"]:
        case = _add_case(suite, gate, f"{one['key']}: {one['words']}", 0.0)
        if one["outcome"] == "missed":
            _add_problem(case, "failure", "missed", _describe(one))
        elif one["outcome"] != "met":
            _add_problem(case, "error", one["outcome"], _describe(one))
        ET.SubElement(case, "system-out").text = _text(_describe(one))
    if gate["notes"]:
        ET.SubElement(suite, "system-out").text = _text("\n".join(gate["notes"]))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ET.Element, gate: Gate, name: str, took_s: float) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", {"classname": f"loadgen.{gate['profile']}", "name": _text(name), "time": f"{took_s:.3f}"}
    )


def _add_problem(case: ET.Element, kind: str, what: str, text: str) -> None:
    message = _text(text)
    ET.SubElement(case, kind, {"type": what, "message": message.partition("\n")[0]}).text = message


def _describe(one: Judged) -> str:
    return f"{one['words']}: {one['got']}, want {one['want']}: {one['outcome']}"


def _text(text: str) -> str:
    # what is no character of XML 1.0 makes a whole file unreadable
    return "".join(
        c for c in clean(text) if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
    )
