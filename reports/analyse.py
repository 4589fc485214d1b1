"""From a run directory to `summary.json` and `report.html`.

Any prefix of a run can be analysed: one that was killed, has no steps, or no
collector. What was not measured is None. Both files are written beside their
place and renamed, so a reader sees the old one or the new one.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loadgen.errors import RunFileError
from loadgen.expectations import read_expect
from loadgen.records import RunReader
from reports.accounting import Evidence, Sent, account
from reports.attribution import Limits
from reports.case import Case, SlowReplies
from reports.expecting import judge_gate, no_gate
from reports.findings import find_findings
from reports.recommendation import no_recommendation
from reports.runvalues import read_values
from reports.selective import split_filtered
from reports.stages import choose_main, compare_stages, judge_entry
from reports.stations import LogJoin, join_log
from reports.steprow import Cost, StepRow
from reports.steps import describe_steps, take_percentiles
from reports.summary import FORMAT, Accounting, RunFacts, Summary, Verdict
from reports.sweep import judge_sweep
from reports.sweepsummary import Level, Recommendation
from reports.tables import Run, load_run, message_key

_CLOSING_S = 0.5
"""What is remarked on while a step ends may be dated just after it."""

__all__ = ["Summary", "analyse", "measure", "summarise", "write_reports"]


def write_reports(directory: Path, now_s: float) -> Summary:
    """Write `summary.json` and `report.html` into *directory* and return the summary.

    *now_s* (Unix seconds) dates the report.

    Raises:
        RunFileError: *directory* is no run of a format known here.
    """
    from reports.html import render_html  # jinja2 and bokeh, which a reader of summaries does not need
    from reports.series import read_series

    with RunReader(directory) as reader:
        run = load_run(reader)
        summary = summarise(run)
        series = read_series(run, summary)
    _replace(directory / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    _replace(directory / "report.html", render_html(summary, series, now_s))
    return summary


def measure(directory: Path, first: int) -> list[StepRow]:
    """Return the steps from *first* on of a run that is still going on: its search decides by what its report will say."""
    with RunReader(directory) as reader:
        run = load_run(reader)
        return describe_steps(run, join_log(run), first)


def analyse(reader: RunReader) -> Summary:
    """Return the summary of the run that *reader* has open."""
    return summarise(load_run(reader))


def summarise(run: Run) -> Summary:
    """Return the summary of a run in memory."""
    meta = run.meta
    chain = meta.get("chain") or {}
    facts = _describe_run(run)
    limits = Limits(
        feed_processes=chain.get("feed_processes") or chain.get("processes"),
        filter_servers=chain.get("filter_servers") or chain.get("processes"),
        destination_concurrency_limit=chain.get("destination_concurrency_limit"),
        cpus=facts["cpus"],
        reinjection_processes=chain.get("reinjection_processes"),
    )
    join = join_log(run)
    rows = describe_steps(run, join)
    accounting = account(_sent(run), _read_evidence(run, join))
    judged = judge_sweep(run, rows, facts["cpus"]) if run.is_sweep else None
    main = choose_main(rows)
    verdict = judged.verdict if judged else _name_entry(judge_entry(main, facts["pacing"], limits), main)
    cost = _overall_cost(main, verdict)
    remarks: dict[str, list[str]] = {}
    for _, source, kind, text in run.remarks:
        remarks.setdefault(kind, []).append(text)
        remarks.setdefault(f"{source}:{kind}", []).append(text)
    status = str(meta.get("status", "running"))
    case = Case(
        rows=rows,
        verdict=verdict,
        accounting=accounting,
        limits=limits,
        cost=cost,
        is_reference=facts["is_reference"],
        has_filter_log=bool(run.reader.query("SELECT 1 FROM timing LIMIT 1")),
        has_maillog=bool(join.key_of),
        remarks=remarks,
        status=status,
        end_reason=facts["end_reason"],
        planned_steps=_count_planned(meta.get("profile") or {}) or len(rows),
        levels=judged.levels if judged else (),
        memory_bytes=facts["memory_bytes"],
        slow_replies=_count_slow_replies(run),
        network_tests=_asks_network(run),
    )
    summary = Summary(
        format=FORMAT,
        status=_judge_status(status, rows, accounting),
        chain=str(chain.get("name", "")),
        profile=str(meta.get("profile_name", "")),
        run=facts,
        verdict=verdict,
        recommendation=judged.recommendation if judged else _recommend_nothing(verdict, chain),
        levels=judged.levels if judged else [_describe_only_level(main, verdict, chain)],
        sweep=judged.sweep if judged else None,
        steps=rows,
        stages=compare_stages(rows, facts["pacing"], limits),
        selective=split_filtered(run, join, rows),
        accounting=accounting,
        findings=find_findings(case),
        cost=cost,
        settings={str(k): str(v) for k, v in (meta.get("settings") or {}).items()},
        gate=no_gate(str(meta.get("profile_name", "")), facts["directory"]),
    )
    summary["gate"] = judge_gate(read_expect(facts["expect"], facts["directory"]), [read_values(summary)])
    return _finite(summary)  # type: ignore[no-any-return]


def _name_entry(verdict: Verdict, main: list[StepRow]) -> Verdict:
    """Return *verdict*, saying where messages were put in, unless that was the front."""
    if not main or main[0]["entry"] == "front":
        return verdict
    return {**verdict, "headline": f"{verdict['headline'].removesuffix('.')}, put in at: {main[0]['entry']}"}


def _count_planned(profile: dict[str, Any]) -> int:
    return len(profile.get("step") or ()) * len(profile.get("entries") or ("front",))


def _recommend_nothing(verdict: Verdict, chain: dict[str, Any]) -> Recommendation:
    """Return what a run at one process count can say: what that count carries, where it is saturated."""
    nothing = no_recommendation("")
    nothing["processes"] = chain.get("processes") if verdict["saturated"] else None
    nothing["delivered_per_s"] = verdict["delivered_per_s"]
    nothing["delivered_per_s_interval"] = verdict["delivered_per_s_interval"]
    nothing["present"] = {name: chain.get(name) for name in ("feed_processes", "filter_servers")}
    return nothing


def _describe_only_level(rows: list[StepRow], verdict: Verdict, chain: dict[str, Any]) -> Level:
    on_plateau = [row for row in rows if row["step"] in verdict["plateau_steps"]]
    return Level(
        processes=next((row["level"] for row in rows), None) or chain.get("processes"),
        filter_servers=chain.get("filter_servers"),
        variant="stock",
        delivered_per_s=verdict["delivered_per_s"],
        interval=verdict["delivered_per_s_interval"],
        saturated=verdict["saturated"],
        repeats=[],
        dropped=sum(not row["valid"] for row in rows),
        response_s=on_plateau[-1]["response_s"] if on_plateau else take_percentiles(np.empty(0)),
        memory_bytes=next((row["memory_bytes"] for row in reversed(on_plateau or rows) if row["memory_bytes"]), None),
        cpu_busy=on_plateau[-1]["host"]["cpu_busy"] if on_plateau else None,
        cpu_s_per_message=on_plateau[-1]["cost"]["chain_cpu_s_per_message"] if on_plateau else None,
        demand_s=None,
        feed_delays=on_plateau[-1]["feed_delays"] if on_plateau else None,
        timing_s=on_plateau[-1]["timing_s"] if on_plateau else {},
        station=verdict["station"],
        candidates=verdict["candidates"],
        why=[],
    )


def _count_slow_replies(run: Run) -> SlowReplies:
    """Return how many messages were answered just after one or two whole seconds, and at other times near them."""
    took = run.messages.accept_s[run.messages.outcome == "accepted"]
    whole = sum(int(((took >= second) & (took < second + 0.1)).sum()) for second in (1.0, 2.0))
    beside = sum(int(((took >= second + 0.3) & (took < second + 0.4)).sum()) for second in (0.0, 1.0, 2.0))
    return SlowReplies(whole, beside, len(took))


def _asks_network(run: Run) -> bool:
    """Return whether SpamAssassin was seen to ask the network, or seen to score mail while it is set to."""
    sections = (
        "SELECT 1 FROM timing WHERE section LIKE 'SA %dns%' OR section LIKE 'SA %razor%' OR section LIKE 'SA %pyzor%'"
    )
    if run.reader.query(f"{sections} LIMIT 1"):
        return True
    if not run.reader.query("SELECT 1 FROM scan WHERE hits IS NOT NULL LIMIT 1"):
        return False
    text = str((run.meta.get("settings") or {}).get("amavisd.conf", ""))
    found = re.findall(r"^\s*\$sa_local_tests_only\s*=\s*(\d+)", text, re.MULTILINE)
    return bool(found) and int(found[-1]) == 0


def _judge_status(status: str, rows: list[StepRow], accounting: Accounting) -> str:
    if status not in ("complete", "invalid"):
        return "incomplete"
    sound = (
        any(row["valid"] for row in rows)
        and not accounting["lost"]
        and not accounting["unknown"]
        and accounting["adds_up"]
    )
    return "complete" if sound and status == "complete" else "invalid"


def _describe_run(run: Run) -> RunFacts:
    meta = run.meta
    chain, profile, host = meta.get("chain") or {}, meta.get("profile") or {}, meta.get("host") or {}
    addresses = {}
    for station in ("front", "filter", "reinjection", "sink"):
        if isinstance(place := chain.get(station), dict):
            addresses[station] = f"{place.get('host')}:{place.get('port')}"
    started = meta.get("started_at")
    return RunFacts(
        directory=run.reader.directory.name,
        version=str(meta.get("version", "")),
        started_at=float(started) if isinstance(started, int | float) else None,
        length_s=float(meta["ended_at"]) if isinstance(meta.get("ended_at"), int | float) else run.end_at or None,
        end_reason=str(meta.get("end_reason", "")),
        workload_hash=str(meta.get("workload_hash", "")),
        expect=profile.get("expect") or {},
        seed=meta.get("seed"),
        chain_choice=str(meta.get("chain_choice", "")),
        about=str(profile.get("about", "")),
        pacing=str((profile.get("pacing") or {}).get("kind", "delivered")),
        is_reference=chain.get("kind") == "reference",
        law=str(chain.get("law", "")),
        feed_processes=chain.get("feed_processes"),
        filter_servers=chain.get("filter_servers"),
        destination_concurrency_limit=chain.get("destination_concurrency_limit"),
        cpus=host.get("cpus"),
        memory_bytes=host.get("memory_bytes"),
        generator_per_s=meta.get("generator_per_s"),
        host={str(k): str(v) for k, v in host.items() if v is not None and k not in ("cpus", "memory_bytes")},
        software={str(k): str(v) for k, v in (meta.get("software") or {}).items() if v},
        addresses=addresses,
    )


def _sent(run: Run) -> Iterator[Sent]:
    messages = run.messages
    watched = {step for step in run.phases if _was_watched(run, step)}
    arrived = run.arrivals.completed == run.arrivals.completed  # not NaN
    for index, message_id in enumerate(messages.id):
        code, reply = messages.answers.get(index, (None, ""))
        yield Sent(
            id=message_id,
            outcome=str(messages.outcome[index]),
            arrived=bool(arrived[index]),
            watched=int(messages.step[index]) in watched,
            code=code,
            reply=reply,
        )


def _was_watched(run: Run, step: int) -> bool:
    """Return whether the step's drain came to its end, so that what has not arrived will not."""
    span = run.span(step)
    if span is None or "end" not in run.phases[step]:
        return False
    cut = ("not-drained", "exit")
    return not any(kind in cut and span[0] <= at <= span[1] + _CLOSING_S for at, _, kind, _ in run.remarks)


def _read_evidence(run: Run, join: LogJoin) -> Evidence:
    reader = run.reader
    last_status: dict[str, str] = {}
    for row in reader.rows("delivery", "ORDER BY at, rowid"):
        if (key := join.key_of.get(row[2])) and last_status.get(key) != "bounced":
            last_status[key] = str(row[11])
    last = max((step for step, began in run.phases.items() if "end" in began), default=-1)
    left = {
        key
        for (queue_id,) in reader.query("SELECT queue_id FROM queued WHERE step = ?", (last,))
        if (key := join.key_of.get(queue_id))
    }
    locust = run.meta.get("locust")
    return Evidence(
        blocked={message_key(row[6]) for row in reader.rows("scan", "WHERE verdict = 'Blocked'") if row[6]}
        | {join.key_of[row[4]] for row in reader.rows("scan", "WHERE verdict = 'Blocked'") if row[4] in join.key_of},
        bounced={key for key, status in last_status.items() if status == "bounced"},
        queued=left | {key for key, status in last_status.items() if status == "deferred"},
        logged=join.keys(),
        duplicates=len(run.arrivals.extra),
        unrecorded=run.arrivals.unrecorded,
        locust=locust if isinstance(locust, dict) else {},
    )


def _overall_cost(rows: list[StepRow], verdict: Verdict) -> Cost:
    """Return the cost at the plateau, or at the last step that has any numbers."""
    on_plateau = [row for row in rows if row["step"] in verdict["plateau_steps"]]
    measured = on_plateau or [row for row in rows if row["valid"]] or [row for row in rows if row["hold_s"]]
    if measured:
        return measured[-1]["cost"]
    return Cost(
        chain_cores=None,
        chain_cpu_s_per_message=None,
        generator_cores=None,
        sink_cores=None,
        collector_cores=None,
        conductor_cores=None,
        own_cores=None,
        own_share=None,
        others_cores=None,
        generator_lag_s=None,
    )


def _finite(value: Any) -> Any:
    """Return *value* with every number that JSON cannot say as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8", errors="replace")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunFileError(f"{path}: {error.strerror}; copy the run directory to a place of yours first") from error
