import contextlib
import os
import socket
from pathlib import Path

import pytest

from loadgen.chain.spec import AmavisParts, Chain, PostfixParts, parse_address
from loadgen.collect import processes, sockets
from loadgen.collect.daemons import service_name
from loadgen.collect.processes import child_state
from loadgen.collect.procfs import read_process
from loadgen.collect.sampler import Sampler, Target
from loadgen.collect.sockdiag import ask_kernel, read_tables
from loadgen.errors import CollectorError

TICKS = os.sysconf("SC_CLK_TCK")


class FakeHost:
    """A /proc of our own, with one Postfix and one amavisd whose masters are 100 and 200."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.spool = directory / "spool"
        (self.spool / "pid").mkdir(parents=True)
        (self.spool / "active").mkdir()
        (self.spool / "pid" / "master.pid").write_text("            100\n")
        self.amavis_pid = directory / "amavisd.pid"
        self.amavis_pid.write_text("200\n")
        self.remarks: list[tuple[str, str, str]] = []
        self.add(100, 1, "/usr/lib/postfix/sbin/master -w")
        self.add(200, 1, title="/usr/sbin/amavisd (master)")

    def add(
        self, pid: int, parent: int, command: str = "", *, title: str = "", cpu_s: float = 0, reaped_s: float = 0,
        started: int = 7, pss_kb: int = 0,
    ) -> None:  # fmt: skip
        directory = self.proc / str(pid)
        (directory / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        used = f"{round(cpu_s * TICKS)} 0 {round(reaped_s * TICKS)} 0"
        numbers = f"S {parent} {pid} {pid} 0 -1 0 0 0 0 0 {used} 20 0 1 0 {started} 0 0"
        (directory / "stat").write_text(f"{pid} (a) b (c) {numbers}\n")
        line = title.encode() if title else command.replace(" ", "\0").encode() + b"\0"
        (directory / "cmdline").write_bytes(line)
        (directory / "smaps_rollup").write_text(f"00400000-7fff [rollup]\nRss: 9 kB\nPss:   {pss_kb} kB\n")
        self._list_children(parent)
        self._list_children(pid)

    def remove(self, pid: int) -> None:
        parent = int((self.proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        (self.proc / str(pid)).rename(self.proc.parent / f"gone-{pid}-{len(list(self.proc.parent.iterdir()))}")
        self._list_children(parent)

    def _list_children(self, parent: int) -> None:
        children = [
            entry.name
            for entry in self.proc.iterdir()
            if entry.name.isdigit()
            and (entry / "stat").is_file()
            and (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(parent)
        ]
        if (task := self.proc / str(parent) / "task" / str(parent)).is_dir():
            (task / "children").write_text(" ".join(children))

    def target(self, watch: dict[str, int] | None = None) -> Target:
        address = parse_address("127.0.0.1:10024")
        chain = Chain(
            kind="file", name="c", front=address, sink=address, filter=address,
            postfix=PostfixParts(queue_directory=self.spool), amavis=AmavisParts(pid_file=self.amavis_pid),
        )  # fmt: skip
        return Target(chain, watch or {}, lambda *remark: self.remarks.append(remark), str(self.proc))


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def sample(samplers: list[Sampler], at: float = 1.0) -> dict[str, float]:
    return {name: value for sampler in samplers for name, value in sampler.sample(at).items()}


@pytest.mark.parametrize(
    ("command", "want"),
    [
        pytest.param("lmtp -n amavisfeed -t unix -u -o lmtp_data_done_timeout=1200", "amavisfeed", id="named-service"),
        pytest.param("lmtp -l -n amavisfeed -t unix -u", "amavisfeed", id="maxproc-1"),
        pytest.param("smtpd -n 127.0.0.1:26025 -t inet -u -o content_filter=", "127.0.0.1:26025", id="address"),
        pytest.param("cleanup -z -t unix -u", "cleanup", id="unlimited"),
        pytest.param("qmgr -l -t unix -u", "qmgr", id="named-like-its-command"),
        pytest.param("postlogd -l -n postlog -t unix-dgram -u", "postlog", id="postlog"),
        pytest.param("pipe -n mail -t unix user=x argv=/bin/f -n 5", "mail", id="first-n-counts"),
        pytest.param("pipe -t unix argv=/bin/f -n 5", "pipe", id="option-of-a-program"),
        pytest.param("/usr/lib/postfix/sbin/master -w", None, id="not-yet-its-command"),
        pytest.param("", None, id="gone"),
    ],
)
def test_a_service_is_named_as_in_master_cf(command: str, want: str | None) -> None:
    assert service_name(command.split()) == want


@pytest.mark.parametrize(
    ("title", "want"),
    [
        ("(ch1-06637-01)", "busy"),
        ("(ch1-06637-01-8)", "busy"),
        ("(06637-01-8)", "busy"),
        ("(ch1-P)", "busy"),
        ("(ch1-06637-01-11-idle)", "held"),
        ("(ch3-idle)", "held"),
        ("(ch3-accept)", "held"),
        ("(ch1-P-idle)", "held"),
        ("(ch4-avail)", "free"),
        ("(virgin child)", "free"),
        ("(ch4)", "free"),
        ("(ch4-finish)", None),
        ("(master)", None),
    ],
)
def test_a_title_says_what_an_amavisd_child_does(title: str, want: str | None) -> None:
    assert child_state(f"/usr/sbin/amavisd {title}") == want


def test_services_of_this_instance_are_counted_and_those_of_others_are_not(fake: FakeHost) -> None:
    fake.add(101, 100, "lmtp -n amavisfeed -t unix -u")
    fake.add(102, 100, "lmtp -n amavisfeed -t unix -u")
    fake.add(103, 100, "qmgr -l -t unix -u")
    fake.add(300, 1, "/usr/lib/postfix/sbin/master -w")
    fake.add(301, 300, "lmtp -n amavisfeed -t unix -u")

    got = sample(processes.make_samplers(fake.target()))

    assert (got["postfix.amavisfeed"], got["postfix.qmgr"]) == (2, 1)


def test_a_service_whose_processes_have_ended_counts_0(fake: FakeHost) -> None:
    fake.add(101, 100, "smtp -t unix -u")
    samplers = processes.make_samplers(fake.target())
    assert sample(samplers)["postfix.smtp"] == 1

    fake.remove(101)

    assert sample(samplers, 1.25)["postfix.smtp"] == 0


def test_a_process_id_used_again_after_a_pause_is_asked_again(fake: FakeHost) -> None:
    fake.add(101, 100, "smtp -t unix -u")
    samplers = processes.make_samplers(fake.target())
    sample(samplers)
    fake.add(101, 100, "bounce -z -t unix -u", started=99)

    got = sample(samplers, 60.0)

    assert (got["postfix.smtp"], got["postfix.bounce"]) == (0, 1)


def test_children_are_found_on_a_kernel_that_does_not_list_them(fake: FakeHost) -> None:
    fake.add(101, 100, "qmgr -l -t unix -u")
    for path in fake.proc.glob("*/task/*/children"):
        path.unlink()

    assert sample(processes.make_samplers(fake.target()))["postfix.qmgr"] == 1


def test_amavis_children_are_counted_by_state(fake: FakeHost) -> None:
    for pid, title in enumerate(["(ch2-00201-02)", "(ch1-00202-01-3-idle)", "(ch9-avail)", "(virgin child)"], 201):
        fake.add(pid, 200, title=f"/usr/sbin/amavisd {title}")

    got = sample(processes.make_samplers(fake.target()))

    assert [got[f"amavis.{name}"] for name in ("busy", "held", "free", "children")] == [1, 1, 2, 4]


def test_memory_is_summed_every_5_s_and_absent_between(fake: FakeHost) -> None:
    fake.add(201, 200, title="amavisd (ch1-avail)", pss_kb=1000)
    fake.add(202, 200, title="amavisd (ch1-avail)", pss_kb=2000)
    samplers = processes.make_samplers(fake.target())

    got = [sample(samplers, at) for at in (1.0, 1.25, 5.75, 6.0)]

    assert got[0]["amavis.pss_bytes"] == 3000 * 1024
    assert got[0]["amavis.pss_children"] == 2
    assert ["amavis.pss_bytes" in values for values in got] == [True, False, False, True]


def test_cpu_of_the_chain_never_falls_when_a_child_ends(fake: FakeHost) -> None:
    fake.add(101, 100, "smtpd -t inet", cpu_s=3)
    samplers = processes.make_samplers(fake.target())
    before = sample(samplers, 1.0)["chain.cpu_s"]
    fake.remove(101)  # ended, and not waited for yet
    between = sample(samplers, 2.0)["chain.cpu_s"]
    fake.add(100, 1, "master", reaped_s=4)

    after = sample(samplers, 3.0)["chain.cpu_s"]

    assert (before, between, after) == (3, 3, 4)


def test_cpu_of_the_chain_goes_on_counting_after_a_restart(fake: FakeHost) -> None:
    fake.add(200, 1, title="amavisd (master)", reaped_s=10)
    samplers = processes.make_samplers(fake.target())
    sample(samplers, 1.0)
    fake.add(250, 1, title="amavisd (master)", cpu_s=2, started=900)
    fake.amavis_pid.write_text("250\n")

    got = sample(samplers, 2.0)["chain.cpu_s"]

    assert got == 12
    assert fake.remarks == [("amavisd", "restart", "process 250 has taken the place of 200")]


def test_a_stale_pid_file_does_not_make_a_stranger_ours(fake: FakeHost) -> None:
    fake.add(400, 1, "sshd -D")
    fake.amavis_pid.write_text("400\n")
    target = fake.target()
    assert target.amavis is not None

    with pytest.raises(CollectorError, match="process 400 is not amavisd"):
        target.amavis.look(1.0)


def test_a_daemon_that_does_not_run_is_no_reading(fake: FakeHost) -> None:
    fake.amavis_pid.unlink()
    target = fake.target()
    assert target.amavis is not None

    with pytest.raises(CollectorError, match="No such file"):
        target.amavis.titles(1.0)


def test_own_processes_are_measured_one_by_one_and_absent_when_gone(fake: FakeHost) -> None:
    fake.add(500, 1, "python", cpu_s=2.5, reaped_s=9)
    target = fake.target({"generator": 500, "sink": 501})

    got = sample(processes.make_samplers(target))

    assert got["own.generator_cpu_s"] == 2.5
    assert "own.sink_cpu_s" not in got
    assert got["own.collector_cpu_s"] > 0


def test_our_own_process_can_be_read_from_the_real_proc() -> None:
    got = read_process("/proc", os.getpid())

    assert got is not None
    assert (got.pid, got.parent) == (os.getpid(), os.getppid())
    assert got.own_cpu_s > 0


def table_line(number: int, local: str, remote: str, state: str, waiting: int, user: int, inode: int) -> str:
    queues = f"00000000:{waiting:08X}"
    return f"{number:4}: {local} {remote} {state} {queues} 00:00000000 00000000 {user:5}        0 {inode} 1 0 100 0 0 10 0\n"


def test_sessions_parked_in_the_cache_and_other_users_are_not_the_feeds(fake: FakeHost) -> None:
    fake.add(101, 100, "scache -l -t unix -u")
    (fake.proc / "101" / "fd").mkdir()
    (fake.proc / "101" / "fd" / "12").symlink_to("socket:[7002]")
    (fake.proc / "101" / "fd" / "3").symlink_to("pipe:[7001]")
    user = (fake.spool / "active").stat().st_uid
    here, filter_ = "0100007F:C001", "0100007F:2728"
    (fake.proc / "net").mkdir()
    (fake.proc / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue\n"
        + table_line(0, filter_, "00000000:0000", "0A", 3, 995, 1)
        + table_line(1, here, filter_, "01", 0, user, 7001)
        + table_line(2, here, filter_, "01", 0, user, 7002)
        + table_line(3, here, filter_, "01", 0, user + 1, 7003)
        + table_line(4, here, filter_, "06", 0, user, 7004)
        + table_line(5, filter_, here, "01", 0, user, 7005)
    )

    got = sample(sockets.make_samplers(fake.target()))

    assert got == {"filter.accept_queue": 3, "feed.sessions": 1}


def test_without_a_listener_the_accept_queue_is_absent(fake: FakeHost) -> None:
    (fake.proc / "net").mkdir()
    (fake.proc / "net" / "tcp").write_text("  sl  local_address\n")

    assert sample(sockets.make_samplers(fake.target())) == {"feed.sessions": 0}


def test_the_kernel_tells_of_waiting_connections_and_of_their_owners() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=5) as server:
        port = server.getsockname()[1]
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        try:
            want = sorted((os.getuid(), os.fstat(client.fileno()).st_ino) for client in clients)
            answers = [read_tables("/proc", port)]
            with contextlib.suppress(OSError):  # a sandbox without netlink: the tables are what there is
                answers.append(ask_kernel(port))
        finally:
            for client in clients:
                client.close()

    for got in answers:
        assert got.waiting == [3]
        assert sorted(got.connected) == want
