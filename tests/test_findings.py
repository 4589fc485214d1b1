"""Each finding appears where its defect is planted, and nowhere else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loadgen.records import RunReader
from reports.analyse import analyse
from reports.summary import Finding
from tests.make_run import Made, change, make_run, set_meta


def findings_of(directory: Path) -> dict[str, Finding]:
    with RunReader(directory) as reader:
        return {finding["id"]: finding for finding in analyse(reader)["findings"]}


def plant_sql(*statements: str) -> Callable[[Path], None]:
    def plant(directory: Path) -> None:
        for statement in statements:
            assert change(directory, statement)

    return plant


def plant_remark(kind: str, text: str = "something happened") -> Callable[[Path], None]:
    return plant_sql(f"INSERT INTO remark VALUES (10, 'postfix', '{kind}', '{text}')")


def plant_nothing(_: Path) -> None:
    pass


BASE = Made(concurrencies=(2, 4, 8), hold_s=10)


def made(**changes: object) -> Made:
    return Made(**{**BASE.__dict__, **changes})


DEFECTS: list[tuple[str, str, Made, Callable[[Path], None]]] = [
    ("not-a-mail-server", "information", made(kind="reference"), plant_nothing),
    ("pipelining-stall", "warning", made(timing={"SMTP DATA": 0.044, "SA check": 0.07}), plant_nothing),
    ("feed-exceeds-servers", "warning", made(feed_processes=8), plant_nothing),
    ("servers-exceed-feed", "information", made(feed_processes=2), plant_nothing),
    (
        "reinjection-limit-low", "warning", BASE,
        plant_sql("UPDATE meta SET value = json_set(value, '$.reinjection_processes', 3) WHERE key = 'chain'"),
    ),
    ("amavisd-restarted", "error", BASE, plant_sql("INSERT INTO remark VALUES (10, 'amavisd', 'restart', 'starting.')")),
    ("postfix-restarted", "error", BASE, plant_sql("INSERT INTO remark VALUES (10, 'postfix', 'restart', 'another master')")),
    ("network-tests-on", "warning", BASE, plant_sql("INSERT INTO timing VALUES (8, '1-1', 'SA poll_dns_idle', 0.2)")),
    (
        "in-flow-delay", "warning", BASE,
        plant_sql("UPDATE message SET ended_at = started_at + 1.02 WHERE rowid % 10 = 0"),
    ),
    ("retrograde", "warning", made(service_factor={8: 1.6}), plant_nothing),
    ("memory-bound", "warning", BASE, plant_sql("UPDATE sample SET value = 0.3 WHERE name = 'host.psi_memory_some'")),
    ("disk-bound", "warning", BASE, plant_sql("UPDATE sample SET value = 0.97 WHERE name = 'host.disk_busy'")),
    ("destination-limit-caps", "warning", made(destination_limit=3), plant_nothing),
    ("held-children", "warning", made(c_s=0.11, held=1.5), plant_nothing),
    ("children-missing", "warning", BASE, plant_sql("UPDATE sample SET value = 3 WHERE name = 'amavis.children' AND at > 8")),
    ("nothing-scanned", "warning", made(timing={"SMTP DATA": 0.003}), plant_nothing),
    ("messages-lost", "error", BASE, plant_sql("DELETE FROM arrival WHERE id = 'abcd1234.40'")),
    (
        "messages-unknown", "error", BASE,
        plant_sql("DELETE FROM arrival WHERE id = 'abcd1234.40'", "UPDATE message SET outcome = 'unknown' WHERE id = 'abcd1234.40'"),
    ),
    ("duplicates", "warning", BASE, plant_sql("INSERT INTO arrival VALUES ('abcd1234.40', 9, 1, 100)")),
    (
        "messages-blocked", "warning", BASE,
        plant_sql("DELETE FROM arrival WHERE id = 'abcd1234.40'", "UPDATE scan SET verdict = 'Blocked' WHERE queue_id = 'A000000040'"),
    ),
    (
        "messages-bounced", "warning", BASE,
        plant_sql("DELETE FROM arrival WHERE id = 'abcd1234.40'", "UPDATE delivery SET status = 'bounced' WHERE queue_id = 'A000000040'"),
    ),
    (
        "messages-refused", "warning", BASE,
        plant_sql("DELETE FROM arrival WHERE id = 'abcd1234.40'", "UPDATE message SET outcome = 'refused' WHERE id = 'abcd1234.40'"),
    ),
    ("locust-disagrees", "warning", BASE, lambda d: set_meta(d, "locust", {"requests": 1, "failures": 0})),
    ("dead-destination", "error", BASE, plant_remark("dead-destination", "delivery temporarily suspended")),
    ("queue-not-drained", "error", BASE, plant_remark("not-drained", "step 1: not drained after 30 s")),
    ("log-incomplete", "warning", BASE, plant_sql("DELETE FROM queue_entry WHERE queue_id IN ('A000000040', 'B000000040')")),
    ("not-steady", "warning", made(concurrencies=(4,)), plant_sql("DELETE FROM arrival WHERE at > 9 AND rowid % 3 = 0")),
    ("generator-saturated", "error", made(generator_cores=0.97), plant_nothing),
    ("generator-late", "information", BASE, plant_sql("INSERT INTO sample VALUES (8, 'own.generator_lag_s', 0.3)")),
    ("sink-slow", "warning", made(sink_cores=0.6), plant_nothing),
    ("sink-slow", "warning", BASE, plant_sql("UPDATE delivery SET d_s = 0.4 WHERE station = 'delivery'")),
    ("own-cost", "information", made(generator_cores=0.3), plant_nothing),
    ("host-busy", "warning", BASE, plant_sql("UPDATE sample SET value = value + 1.5 WHERE name = 'host.cpu_busy'")),
    ("steal", "warning", BASE, plant_sql("UPDATE sample SET value = 0.5 WHERE name = 'host.cpu_steal'")),
    ("backlog-limit", "warning", BASE, plant_remark("backlog-limit")),
    ("disk-limit", "error", BASE, plant_remark("disk-limit")),
    ("front-unreachable", "error", BASE, plant_remark("front-unreachable")),
    ("collector-gap", "warning", BASE, plant_remark("collector-gap")),
    ("process-ended", "error", BASE, plant_remark("exit")),
    ("daemon-fatal", "error", BASE, plant_remark("fatal")),
    ("daemon-panic", "error", BASE, plant_remark("panic")),
    ("daemon-error", "warning", BASE, plant_remark("error")),
    ("process-limit-reached", "information", BASE, plant_remark("limit")),
    ("readings-missing", "information", BASE, plant_remark("unavailable", "queue depth: Permission denied")),
    ("settings-left-alone", "information", BASE, plant_remark("not-tuned")),
    ("setting-failed", "error", BASE, plant_remark("setting-failed")),
    ("settings-unknown", "information", BASE, plant_remark("settings-unknown")),
    ("run-interrupted", "error", made(status="incomplete"), plant_nothing),
    (
        "reference-missed", "warning", made(kind="reference", known=True),
        lambda d: set_meta(d, "chain", {"kind": "reference", "processes": 4, "known_delivered_per_s": {"4": 50.0}}),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    return findings_of(make_run(tmp_path_factory.mktemp("run"), BASE))


def test_healthy_run_has_no_findings(healthy: dict[str, Finding]) -> None:
    assert healthy == {}


@pytest.mark.parametrize(
    ("name", "severity", "built", "plant"),
    DEFECTS,
    ids=[f"{place}-{defect[0]}" for place, defect in enumerate(DEFECTS)],
)
def test_planted_defect_is_found(
    tmp_path: Path, name: str, severity: str, built: Made, plant: Callable[[Path], None]
) -> None:
    directory = make_run(tmp_path / "run", built)
    plant(directory)

    got = findings_of(directory)

    assert name in got
    assert got[name]["severity"] == severity
    assert got[name]["evidence"]
    assert got[name]["advice"]


def test_configuration_that_lets_spamassassin_ask_the_network_is_found(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", BASE)
    set_meta(directory, "settings", {"amavisd.conf": "$sa_local_tests_only = 1;\n $sa_local_tests_only = 0;\n"})

    assert "network-tests-on" in findings_of(directory)


def test_replies_spread_over_a_second_are_no_flow_delay(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", BASE)
    change(directory, "UPDATE message SET ended_at = started_at + 0.02 * (rowid % 100)")

    assert "in-flow-delay" not in findings_of(directory)


def test_held_children_at_saturation_are_no_defect(tmp_path: Path) -> None:
    """At saturation a held child is about to be used again; what hurts is one held while others wait at low load."""
    directory = make_run(tmp_path / "run", made(concurrencies=(4, 8), c_s=0.11, held=1.5))

    assert "held-children" not in findings_of(directory)


def test_suppressed_log_lines_make_the_log_incomplete(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", BASE)
    plant_remark("suppressed", "Suppressed 99 messages")(directory)

    assert "Suppressed 99 messages" in findings_of(directory)["log-incomplete"]["evidence"]


def test_chain_without_a_readable_log_is_not_called_incomplete(tmp_path: Path) -> None:
    got = findings_of(make_run(tmp_path / "run", made(logs=False)))

    assert "log-incomplete" not in got
    assert "nothing-scanned" not in got


def test_reference_chain_is_named_before_anything_graver(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", made(kind="reference", status="incomplete"))

    assert next(iter(findings_of(directory))) == "not-a-mail-server"


def test_graver_findings_come_first(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", made(generator_cores=0.3, feed_processes=8))
    change(directory, "DELETE FROM arrival WHERE id = 'abcd1234.40'")

    got = [finding["severity"] for finding in findings_of(directory).values()]

    assert got == sorted(got, key=["error", "warning", "information"].index)
    assert len(set(got)) > 1


@pytest.mark.parametrize(("kind", "valid"), [("lab", False), ("file", True)])
def test_other_work_spoils_a_step_of_a_lab_and_is_daily_life_on_a_live_host(
    tmp_path: Path, kind: str, valid: bool
) -> None:
    directory = make_run(tmp_path / "run", made(kind=kind))
    change(directory, "UPDATE sample SET value = value + 4 WHERE name = 'host.cpu_busy'")

    with RunReader(directory) as reader:
        steps = analyse(reader)["steps"]

    assert [step["valid"] for step in steps] == [valid] * len(steps)
    if not valid:
        assert all("something else on this host used" in step["reasons"][0] for step in steps)
