"""Starting what sends: one generator, or several workers under one Locust master.

Either way it is the child "generator" that takes commands and gives rows; the
workers of this machine are children of their own, so that their end is seen
and their CPU counted.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from loadgen.chain.ports import find_passing_port
from loadgen.child import Child, python_module
from loadgen.errors import UsageError

__all__ = ["Workers", "check_master", "parse_workers", "start_generator"]

_START_TIMEOUT_S = 30.0
_JOIN_TIMEOUT_S = 300.0

TakeLine = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Workers:
    """Generators beside each other, under one Locust master."""

    local: int
    """Started on this machine."""
    remote: int = 0
    """Waited for; each is a `loadgen worker` somewhere else."""
    host: str = "127.0.0.1"
    """Where the master listens."""
    port: int = 0
    """0: any that is free."""


def parse_workers(local: int, remote: int, bind: str) -> Workers | None:
    """Return the workers of a run; None where none are wanted.

    Raises:
        UsageError: no such address to listen at.
    """
    if not local and not remote:
        return None
    host, _, port = bind.rpartition(":") if not _is_address(bind) else (bind, "", "0")
    if not _is_address(host.strip("[]")) or not port.isdigit():
        raise UsageError(f'--bind: got "{bind}", want an address of this machine, such as 10.0.0.1 or 10.0.0.1:5557')
    return Workers(local, remote, host.strip("[]"), int(port))


def check_master(address: str) -> None:
    """Make sure that *address* is one that a worker can look for.

    Raises:
        UsageError: it is not.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f'--master: got "{address}", want host:port, such as 10.0.0.1:5557')


async def start_generator(
    stack: AsyncExitStack,
    children: dict[str, Child],
    settings: dict[str, Any],
    workers: Workers | None,
    logs: Path,
    take_line: TakeLine,
    say: Callable[[str], None],
) -> None:
    """Start what sends and return when all of it is ready.

    Args:
        stack: Ends the processes.
        children: Get "generator", and "worker-1" and so on.
        settings: Of the generator.
        workers: None: one generator.
        logs: Directory for what the processes print.
        take_line: Takes rows and events, and from workers only {"event": "died"}.
        say: Tells a person what is waited for.

    Raises:
        UsageError: a process does not start, or a worker does not come.
    """
    generator = children["generator"] = Child("generator", take_line)
    generator.expect("ready")
    if workers is None:
        await generator.start(python_module("loadgen.traffic.generator"), settings, logs / "generator.log")
        stack.push_async_callback(generator.end)
        await _receive(generator, "ready", _START_TIMEOUT_S)
        return
    port = workers.port or find_passing_port()
    generator.expect("listening")
    settings = {**settings, "workers": workers.local + workers.remote, "bind_host": workers.host, "bind_port": port}
    await generator.start(python_module("loadgen.traffic.master"), settings, logs / "generator.log")
    stack.push_async_callback(generator.end)
    await _receive(generator, "listening", _START_TIMEOUT_S)
    near = "127.0.0.1" if ip_address(workers.host).is_unspecified else workers.host
    for number in range(1, workers.local + 1):
        name = f"worker-{number}"
        one = children[name] = Child(name, take_line)
        await one.start([*python_module("loadgen.traffic.worker"), f"{near}:{port}"], {}, logs / f"{name}.log")
        stack.push_async_callback(one.end)
    if workers.remote:
        say(f"waiting for {workers.remote} more: on each other machine, loadgen worker --master {workers.host}:{port}")
    await _receive(generator, "ready", _JOIN_TIMEOUT_S if workers.remote else _START_TIMEOUT_S)


async def _receive(child: Child, event: str, timeout_s: float) -> None:
    try:
        await child.receive(event, timeout_s)
    except TimeoutError as error:
        raise UsageError(str(error)) from error


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
