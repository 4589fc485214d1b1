"""Builds the summary of a sweep by hand, for what draws and prints it.

A chain that rises to about 15 msg/s at four processes and then loses a
little; stock and three mends measured, two pairs of sides that differ, and
laws whose curves come from their formulas. Every number follows from a few
constants and a seeded noise, so a test can change one thing and look for it.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from reports.expecting import no_gate
from reports.series import HoldSpan, Series
from reports.steprow import Cost, Delays, Host, Percentiles, QueueDepth, StepRow, name_step
from reports.summary import Accounting, Finding, RunFacts, Summary, Verdict
from reports.sweepsummary import (
    Ceiling,
    Gain,
    Level,
    Mismatch,
    Model,
    Models,
    Parameter,
    Recommendation,
    Repeat,
    Sweep,
    VariantResult,
)

STOCK_PER_S = {1: 4.9, 2: 9.5, 3: 14.2, 4: 14.9, 6: 14.8, 8: 14.2}
ADOPTED = "no-pipelining"
ADOPTED_GAIN = 1.045
MIB = 2.0**20
CPUS = 4
VISIT_S = 26.0


def make_sweep_summary(**changes: Any) -> Summary:
    """Return the summary of a whole sweep; *changes* replace its parts."""
    rows = _make_rows()
    levels = [_make_level(rows, "stock", level) for level in STOCK_PER_S]
    levels += [_make_level(rows, ADOPTED, level) for level in (2, 3, 4, 6)]
    recommendation = make_recommendation(levels)
    summary = Summary(
        format=1,
        status="complete",
        chain="lab",
        profile="size",
        run=_make_facts(rows),
        verdict=_make_verdict(recommendation),
        recommendation=recommendation,
        levels=levels,
        sweep=_make_sweep(rows, levels),
        stages=None,
        selective=None,
        steps=rows,
        accounting=_make_accounting(rows),
        findings=_make_findings(),
        cost=rows[0]["cost"],
        settings={"master.cf": "amavisfeed unix - - n - 2 lmtp", "amavisfeed_destination_concurrency_limit": "2"},
        gate=no_gate("size", "runs/2026-05-28T20-26-40Z-size"),
    )
    return cast(Summary, cast(dict[str, Any], summary) | changes)


def make_series(summary: Summary) -> Series:
    """Return what the time charts of that sweep show."""
    holds = tuple(
        HoldSpan(name_step(row).replace(" = ", "="), row["hold_began_at"], row["hold_ended_at"], row["valid"])
        for row in summary["steps"]
        if row["hold_began_at"] is not None and row["hold_ended_at"] is not None
    )
    end_at = max((hold.ended_at for hold in holds), default=0.0) + 3
    at = np.arange(0.5, end_at)
    rate = np.zeros_like(at)
    for row in summary["steps"]:
        inside = (at >= (row["hold_began_at"] or 0) - 3) & (at < (row["hold_ended_at"] or 0))
        rate[inside] = row["delivered_per_s"]
    return Series(
        lines={
            "rate.delivered": (at, rate),
            "queue.depth": (at, np.where(rate > 0, 6.0 + 2 * np.sin(at), 0.0)),
            "host.cpu_busy": (at, rate / 15 * 3.6),
            "amavis.pss_bytes": (at, 200e6 + 20e6 * rate),
        },
        holds=holds,
        end_at=end_at,
    )


def without_sweep(summary: Summary, **changes: Any) -> Summary:
    """Return *summary* with *changes* to its `sweep`."""
    return cast(Summary, cast(dict[str, Any], summary) | {"sweep": cast(dict[str, Any], summary["sweep"]) | changes})


def make_recommendation(levels: Sequence[Level], **changes: Any) -> Recommendation:
    """Return three processes with the mend that is adopted; *changes* replace its parts."""
    level = next(one for one in levels if one["variant"] == ADOPTED and one["processes"] == 3)
    rate = level["delivered_per_s"] or 0.0
    made = Recommendation(
        processes=3,
        interval=[3, 4],
        filter_servers=3,
        variants=[ADOPTED],
        within=0.05,
        best_processes=4,
        delivered_per_s=rate,
        delivered_per_s_interval=level["interval"],
        response_s=level["response_s"],
        memory_bytes=_memory(3),
        memory_bytes_interval=[_memory(3) - 14 * MIB, _memory(3) + 14 * MIB],
        memory_available_bytes=1900 * MIB,
        ceilings=[
            Ceiling(
                name="feed and filter processes", per_s=1.04 * rate, processes=4,
                text=f"More processes than 3 bring +4% at the most ({1.04 * rate:.1f} msg/s at 4).",
            ),
            Ceiling(
                name="CPU", per_s=18.2, processes=None,
                text="A message costs 220 ms of CPU: 4 cores cannot carry more than 18.2 msg/s.",
            ),
        ],
        present={
            "feed_processes": 2, "filter_servers": 2, "destination_concurrency_limit": 2, "reinjection_processes": 100,
        },
        already_right=False,
        headline=f"Set maxproc = $max_servers = 3 with no-pipelining: {rate:.1f} msg/s delivered",
        sentences=[
            f"3 processes are the fewest that carry within 5% of the best ({1.04 * rate:.1f} msg/s at 4). The right count is between 3 and 4, with 95 % confidence.",
            f"The present 2 on both sides carry 9.5 msg/s; what is recommended carries {rate / 9.5 - 1:+.0%}.",
            "Without no-pipelining the best would be 3 processes with 14.2 msg/s.",
        ],
        settings=[
            "# master.cf",
            "amavisfeed unix - - n - 3 lmtp",
            "    -o lmtp_data_done_timeout=1200",
            "    -o lmtp_send_xforward_command=yes",
            "    -o lmtp_tls_note_starttls_offer=no",
            "    -o lmtp_discard_lhlo_keywords=pipelining",
            "# amavisd.conf",
            "$max_servers = 3;",
            "# main.cf",
            "amavisfeed_destination_concurrency_limit = 3",
            "amavisfeed_initial_destination_concurrency = 3",
        ],
        commands=[
            "postconf -F 'amavisfeed/unix/process_limit=3'",
            "postconf -P amavisfeed/unix/lmtp_discard_lhlo_keywords=pipelining",
            "postconf -e amavisfeed_destination_concurrency_limit=3",
            "postconf -e amavisfeed_initial_destination_concurrency=3",
            "# in amavisd's configuration: $max_servers = 3;",
            "amavisd reload",
            "postfix reload",
        ],
    )  # fmt: skip
    return cast(Recommendation, cast(dict[str, Any], made) | changes)


# -- steps --------------------------------------------------------------------------------------------------


def _make_rows() -> list[StepRow]:
    rng = random.Random(3)
    plan = [("stock", level, "level", "saturated") for level in STOCK_PER_S] * 3
    plan += [(ADOPTED, level, "confirm", "saturated") for level in (2, 3, 4, 6)] * 2
    rng.shuffle(plan)
    names = ("stock", ADOPTED, "no-cache", "spare-children", "wide-feed")
    for _ in range(3):
        plan += [(name, 4, "variant", load) for name in rng.sample(names, 5) for load in ("low", "saturated")]
    rows: list[StepRow] = []
    visit = -1
    for name, level, purpose, load in plan:
        visit += load != "saturated" or purpose != "variant"
        rows.append(_make_row(rng, len(rows), visit, name, level, purpose, load))
    dropped = next(row for row in rows if row["level"] == 6 and row["variant"] == "stock")
    dropped["valid"] = False
    dropped["reasons"] = ["not steady: the second half of the hold was 14 % slower than the first"]
    dropped["delivered_per_s"] = 12.6
    return rows


def _make_row(rng: random.Random, step: int, visit: int, variant: str, level: int, purpose: str, load: str) -> StepRow:
    saturated = load == "saturated"
    feed = 2 * level if variant == "wide-feed" else level
    servers = level + math.ceil(level / 2) if variant == "spare-children" else level
    rate = STOCK_PER_S[level] if saturated else 7.1
    rate *= _factor(variant, load) * (1 + rng.gauss(0, 0.012))
    concurrency = feed + 4 if saturated else max(1, level // 2)
    began = VISIT_S * step + 8
    busy = min(level, concurrency) * 0.97
    row: dict[str, Any] = dict.fromkeys(StepRow.__annotations__) | {
        "step": step, "entry": "front", "level": level, "variant": variant, "visit": visit, "purpose": purpose, "load": load,
        "feed_processes": feed, "filter_servers": servers, "trimmed_s": 0.5, "precise": True, "concurrency": concurrency,
        "hold_began_at": began, "hold_ended_at": began + 12, "hold_s": 12.0, "accepted_per_s": rate * 1.003,
        "delivered_per_s": rate, "delivered_per_s_interval": [rate * 0.98, rate * 1.02], "deliveries": round(12 * rate),
        "batches": 12, "lag1": 0.08, "halves_change": 0.004, "sessions_open": float(concurrency),
        "started": round(12 * rate), "undelivered": 0,
        "response_s": _percentiles(concurrency / rate, round(12 * rate)), "accept_s": _percentiles(0.003, round(12 * rate)),
        "queue_depth": QueueDepth(mean=4.0, max=7.0, growth_per_s=0.0, before_filter=4.0, after_filter=0.1),
        "accept_queue": 0.0, "children": float(servers), "busy_processes": busy, "held_processes": 0.1,
        "free_processes": servers - busy, "memory_bytes": _memory(servers), "utilisation": busy / servers,
        "feed_utilisation": 1.0 if saturated else 0.6,
        "feed_delays": _delays(level, rate, concurrency), "delivery_delays": Delays(a_s=0.01, b_s=0.001, c_s=0.001, d_s=0.003, messages=150),
        "timing_s": {"total": level / rate, "SA check": 0.8 * level / rate, "SMTP DATA": 0.002}, "little": None,
        "cost": _cost(rate), "host": _host(rate), "refused": 0, "unknown": 0, "not_sent": 0, "duplicates": 0, "late": 0,
        "dropped": 0, "drain_s": 0.8, "overloaded": False, "valid": True, "reasons": [],
    }  # fmt: skip
    return cast(StepRow, row)


def _factor(variant: str, load: str) -> float:
    low = {"stock": 1.0, ADOPTED: 1.36, "no-cache": 1.01, "spare-children": 1.03, "wide-feed": 1.0}
    full = {"stock": 1.0, ADOPTED: ADOPTED_GAIN, "no-cache": 0.995, "spare-children": 1.012, "wide-feed": 0.93}
    return (low if load == "low" else full)[variant]


def _memory(servers: int) -> float:
    return (120 + 62.0 * servers) * MIB


def _delays(level: int, rate: float, concurrency: int) -> Delays:
    d = level / rate
    return Delays(a_s=0.01, b_s=max(0.0, concurrency / rate - d - 0.012), c_s=0.002, d_s=d, messages=150)


def _percentiles(mean: float, messages: int) -> Percentiles:
    p95 = 1.35 * mean if messages >= 100 else None
    return Percentiles(mean=mean, p50=0.97 * mean, p95=p95, p99=None, max=1.8 * mean, messages=messages)


def _cost(rate: float) -> Cost:
    return Cost(
        chain_cores=0.22 * rate, chain_cpu_s_per_message=0.22, generator_cores=0.06, sink_cores=0.03, collector_cores=0.02,
        conductor_cores=0.01, own_cores=0.12, own_share=0.12 / (0.22 * rate), others_cores=0.02, generator_lag_s=0.002,
    )  # fmt: skip


def _host(rate: float) -> Host:
    return Host(
        cpu_busy=0.235 * rate, cpu_iowait=0.02, cpu_steal=0.0, psi_cpu_some=0.3, psi_io_some=0.02, psi_io_full=0.01,
        psi_memory_some=0.0, disk_busy=0.06, disk_write_bytes_per_s=9e5, memory_available_bytes=1900 * MIB,
    )  # fmt: skip


# -- what the analysis makes of them ------------------------------------------------------------------------


def _make_level(rows: Sequence[StepRow], variant: str, processes: int) -> Level:
    mine = [
        row for row in rows
        if (row["variant"], row["level"]) == (variant, processes) and row["purpose"] in ("level", "confirm")
    ]  # fmt: skip
    valid = [row for row in mine if row["valid"]]
    rate = float(np.mean([row["delivered_per_s"] or 0.0 for row in valid]))
    half = 0.03 * rate / math.sqrt(len(valid))
    return Level(
        processes=processes,
        filter_servers=processes,
        variant=variant,
        delivered_per_s=rate,
        interval=[rate - half, rate + half],
        saturated=True,
        repeats=[
            Repeat(
                step=row["step"], visit=row["visit"], delivered_per_s=row["delivered_per_s"] or 0.0,
                interval=row["delivered_per_s_interval"],
            )
            for row in valid
        ],
        dropped=len(mine) - len(valid),
        response_s=_percentiles(valid[0]["concurrency"] / rate, 400),
        memory_bytes=_memory(processes),
        cpu_busy=valid[0]["host"]["cpu_busy"],
        cpu_s_per_message=0.22,
        demand_s=0.97 * processes / rate,
        feed_delays=_delays(processes, rate, valid[0]["concurrency"]),
        timing_s=dict(valid[0]["timing_s"]),
        station="cpu" if processes >= 4 else "filter",
        candidates=["cpu", "filter"] if processes >= 4 else ["filter", "feed"],
        why=["The filter stage limits."],
    )  # fmt: skip


def _make_sweep(rows: Sequence[StepRow], levels: Sequence[Level]) -> Sweep:
    measured = {one["processes"]: one["delivered_per_s"] or 0.0 for one in levels if one["variant"] == "stock"}
    return Sweep(
        search="levels",
        levels_asked=list(STOCK_PER_S),
        visits=1 + max(row["visit"] or 0 for row in rows),
        measured_s=VISIT_S * len(rows),
        spread=0.012,
        models=make_models(levels, "stock"),
        models_adopted=make_models(levels, ADOPTED),
        variants=[
            _make_result(rows, ADOPTED, "the feed sends one command at a time", ["-o lmtp_discard_lhlo_keywords=pipelining"],
                         adopted=True, why="+36% at low load and +5% at saturation"),
            _make_result(rows, "no-cache", "the feed closes its session after each message",
                         ["-o lmtp_connection_cache_on_demand=no"], why="no gain that is sure and worth a setting"),
            _make_result(rows, "spare-children", "the filter has half as many processes again as the feed",
                         ["$max_servers = maxproc + 50%"], why="no gain that is sure and worth a setting"),
            _make_result(rows, "wide-feed", "the feed has twice as many processes as the filter",
                         ["maxproc = 2 x $max_servers"], why="measured to show what it costs, not to be set"),
        ],
        mismatches=[
            _make_mismatch(8, 2, 8.9, measured[2], c_s=0.41), _make_mismatch(2, 8, 9.6, measured[2], c_s=0.002),
        ],
    )  # fmt: skip


def _make_result(
    rows: Sequence[StepRow], name: str, about: str, settings: list[str], *, adopted: bool = False, why: str
) -> VariantResult:
    mine = [row for row in rows if row["variant"] == name and row["purpose"] == "variant"]
    gains = []
    for load in ("low", "saturated"):
        ratio = _factor(name, load) - 1
        stock = STOCK_PER_S[4] if load == "saturated" else 7.1
        concurrency = 8 if load == "saturated" else 2
        half = 0.022
        gains.append(
            Gain(
                load=load, concurrency=concurrency, ratio=ratio, interval=[ratio - half, ratio + half], pairs=3,
                stock_per_s=stock, variant_per_s=stock * (1 + ratio), stock_response_s=concurrency / stock,
                variant_response_s=concurrency / stock / (1 + ratio), significant=abs(ratio) > half,
            )
        )  # fmt: skip
    first = mine[0]
    return VariantResult(
        name=name, about=about, settings=settings, processes=4, feed_processes=first["feed_processes"],
        filter_servers=first["filter_servers"], gains=gains, adopted=adopted, why=why,
    )  # fmt: skip


def _make_mismatch(feed: int, servers: int, rate: float, equal: float, c_s: float) -> Mismatch:
    return Mismatch(
        feed_processes=feed, filter_servers=servers, delivered_per_s=rate, interval=[0.97 * rate, 1.03 * rate],
        equal_processes=min(feed, servers), equal_per_s=equal, ratio=rate / equal - 1,
        ratio_interval=[rate / equal - 1.035, rate / equal - 0.965], c_s=c_s,
    )  # fmt: skip


Law = Callable[[float], float]


def make_models(levels: Sequence[Level], variant: str) -> Models:
    """Return four laws near the measured curve; rss and aicc are those of the points, the parameters are given."""
    points = [
        [float(one["processes"] or 0), repeat["delivered_per_s"]]
        for one in levels if one["variant"] == variant for repeat in one["repeats"]
    ]  # fmt: skip
    factor = ADOPTED_GAIN if variant != "stock" else 1.0
    laws: dict[str, tuple[dict[str, float], Law, int]] = {
        "hard_cap": ({"gamma": 4.79 * factor, "x_max": 14.65 * factor}, lambda n: min(4.79 * n, 14.65) * factor, 3),
        "smooth_min": (
            {"gamma": 4.8 * factor, "x_max": 14.7 * factor, "p": 18.0},
            lambda n: ((4.8 * n) ** -18.0 + 14.7**-18.0) ** (-1 / 18.0) * factor, 4,
        ),
        "amdahl": ({"gamma": 6.0 * factor, "alpha": 0.24}, lambda n: 6.0 * factor * n / (1 + 0.24 * (n - 1)), 3),
        "usl": (
            {"gamma": 5.6 * factor, "alpha": 0.01, "beta": 0.0365},
            lambda n: 5.6 * factor * n / (1 + 0.01 * (n - 1) + 0.0365 * n * (n - 1)), 4,
        ),
    }  # fmt: skip
    models = {name: _make_model(name, values, law, k, points) for name, (values, law, k) in laws.items()}
    order = sorted(models, key=lambda name: models[name]["aicc"] or math.inf)
    return Models(
        chosen=order[0],
        ties=[name for name in order[1:2] if (models[name]["aicc"] or 0) - (models[order[0]]["aicc"] or 0) < 2],
        models=models, warnings=["hard-cap-fits-better"], points=points, variant=variant,
    )  # fmt: skip


def _make_model(name: str, values: Mapping[str, float], law: Law, k: int, points: Sequence[Sequence[float]]) -> Model:
    n = len(points)
    rss = sum((x / law(level) - 1) ** 2 for level, x in points)
    grid = np.linspace(points[0][0], max(level for level, _ in points), 36)
    band = 2 * math.sqrt(rss / n)
    return Model(
        parameters={
            key: Parameter(value=value, standard_error=0.02 * value, interval=[0.96 * value, 1.04 * value])
            for key, value in values.items()
        },
        aicc=n * math.log(rss / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1),
        rss=rss,
        peak_concurrency=5.2 if name == "usl" else None,
        peak_interval=[4.7, 5.9] if name == "usl" else None,
        curve=[[float(x), law(x), law(x) * (1 - band), law(x) * (1 + band)] for x in grid],
    )


def _make_verdict(recommendation: Recommendation) -> Verdict:
    return Verdict(
        saturated=True, headline=recommendation["headline"], sentences=recommendation["sentences"], concurrency=None,
        crossing_concurrency=None, delivered_per_s=recommendation["delivered_per_s"],
        delivered_per_s_interval=recommendation["delivered_per_s_interval"], beyond_per_s=None, kept_up_per_s=None,
        tested_to=12, retrograde=False, plateau_steps=[], station="filter", candidates=["filter", "feed"], evidence={},
    )  # fmt: skip


def _make_facts(rows: Sequence[StepRow]) -> RunFacts:
    return RunFacts(
        directory="runs/2026-05-28T20-26-40Z-size", version="0.1.0", started_at=1_780_000_000.0,
        length_s=VISIT_S * len(rows), end_reason="", workload_hash="0123456789abcdef", expect={}, seed=1, chain_choice="lab: asked for",
        about="How many processes: every level three times.", pacing="delivered", is_reference=False, law="",
        feed_processes=2, filter_servers=2, destination_concurrency_limit=2, cpus=CPUS, memory_bytes=4 << 30, generator_per_s=None,
        host={"hostname": "mx1", "cpu_model": "Some CPU", "kernel": "6.1.0"},
        software={"loadgen": "0.1.0", "postfix": "3.7.11", "amavisd": "2.13.0"},
        addresses={"front": "127.0.0.1:11025", "filter": "127.0.0.1:11024", "reinjection": "127.0.0.1:11035"},
    )  # fmt: skip


def _make_accounting(rows: Sequence[StepRow]) -> Accounting:
    messages = sum(row["started"] for row in rows)
    return Accounting(
        messages=messages, delivered=messages, blocked=0, refused=0, bounced=0, queued=0, lost=0, unknown=0, not_sent=0,
        adds_up=True, accounted_ratio=1.0, dropped=0, duplicates=0, unrecorded=0, log_joined=messages,
        locust_requests=messages, locust_agrees=True, examples={}, replies=[],
    )  # fmt: skip


def _make_findings() -> list[Finding]:
    return [
        Finding(
            id="destination-limit-caps", severity="warning",
            evidence="amavisfeed_destination_concurrency_limit is 2; maxproc beyond that has no effect.",
            advice="Raise it with maxproc, as the settings above do.",
        ),
        Finding(
            id="pipelining-stall", severity="information",
            evidence="Each message waits 40 ms for a delayed acknowledgement at low load.",
            advice="Set lmtp_discard_lhlo_keywords=pipelining on the feed.",
        ),
    ]  # fmt: skip
