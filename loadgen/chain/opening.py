"""Open the chosen chain for one run, and put it away again.

A lab is brought up and taken down, a reference chain started and ended; a
chain that runs already is only found to be there. What comes out is the same
for all: where the parts are, and what is written down about them.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadgen.chain import lab, postfix
from loadgen.chain.choice import ChainChoice, LabSettings
from loadgen.chain.live import LiveTuner
from loadgen.chain.ports import find_passing_port, wait_for_banner
from loadgen.chain.reference import ReferenceSettings
from loadgen.chain.spec import Address, Chain
from loadgen.chain.tuning import Tuner
from loadgen.chain.tuning_lab import LabTuner
from loadgen.chain.tuning_reference import ReferenceTuner
from loadgen.child import Child, python_module
from loadgen.errors import ChainError
from loadgen.safety import resolve_target

__all__ = ["OpenChain", "keep_open", "open_chain"]

_BANNER_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 30.0
_NOT_APPLIED = "the chain is measured as it is; with --apply loadgen would set process counts, and put everything back"
_NOT_APPLIED_ELSEWHERE = (
    "the chain is on another host and is measured as it is; a sweep that changes it must be run there"
)


@dataclass(frozen=True)
class OpenChain:
    """A chain that answers."""

    chain: Chain
    host: str
    """Address of the front, resolved once and known to be a permitted target."""
    tuner: Tuner | None = None
    """Changes its process counts; None: it stays as it is."""
    fixed: str = ""
    """Why it stays as it is, for people; empty with a tuner."""
    feed_command: str = "lmtp"
    """Program that feeds the filter: lmtp or smtp."""
    lacks: dict[str, str] = field(default_factory=dict)
    """Stations that it could have and has not: name to what to do about it."""


@asynccontextmanager
async def open_chain(
    choice: ChainChoice, clock_origin: float, logs: Path, on_line: Callable[[str, dict[str, Any]], None]
) -> AsyncIterator[OpenChain]:
    """Open the chain that *choice* names, and put it away on leaving.

    Args:
        choice: Which, and how it is built.
        clock_origin: The run's origin on the monotonic clock.
        logs: Directory for what a process of ours writes to standard error.
        on_line: Gets what a process of ours says, as `Child` has it.

    Raises:
        LoadgenError: it cannot be brought up, is no permitted target, or does not answer.
    """
    if choice.lab is not None:
        async with _open_lab(choice.lab) as opened:
            yield opened
    elif choice.reference is not None:
        async with _open_reference(choice.reference, clock_origin, logs, on_line) as opened:
            yield opened
    else:
        assert choice.chain is not None  # noqa: S101 (one of the three is set)
        chain = choice.chain
        host = resolve_target(chain.front.host, chain.front.port, choice.allow.targets)
        front = Address(host=host, port=chain.front.port)
        await asyncio.to_thread(wait_for_banner, front, "front Postfix", _BANNER_TIMEOUT_S)
        if chain.collector is not None:  # its files are where its collector is
            yield OpenChain(chain, host, fixed=_NOT_APPLIED_ELSEWHERE)
            return
        if not choice.apply:
            command = await asyncio.to_thread(_find_feed_command, chain)
            yield OpenChain(chain, host, fixed=_NOT_APPLIED, feed_command=command)
            return
        tuner = await asyncio.to_thread(LiveTuner, chain)
        chain = chain.model_copy(
            update={"feed_processes": tuner.present.feed_processes, "filter_servers": tuner.present.filter_servers}
        )
        try:
            yield OpenChain(chain, host, tuner, feed_command=tuner.feed_command)
        finally:
            await asyncio.shield(tuner.restore())


@asynccontextmanager
async def keep_open(choice: ChainChoice) -> AsyncIterator[OpenChain | None]:
    """Open a lab for several runs, and put it away on leaving; None: any other chain is opened for each run by itself.

    Raises:
        ChainError: it cannot be brought up.
    """
    if choice.lab is None:
        yield None
        return
    async with _open_lab(choice.lab) as opened:
        yield opened


@asynccontextmanager
async def _open_lab(settings: LabSettings) -> AsyncIterator[OpenChain]:
    # in a thread, because it waits for daemons; a Ctrl-C meanwhile is noticed as soon as it is up
    built = await asyncio.to_thread(
        lab.bring_up, processes=settings.processes, filter_servers=settings.filter_servers, layout=settings,
        feed_options=settings.feed_options, wait_s=settings.wait_s or 0.0,
    )  # fmt: skip
    try:
        tuner = LabTuner(built)
        yield OpenChain(
            built.chain, built.chain.front.host, tuner, feed_command=tuner.feed_command,
            lacks=lab.find_lacks(built.chain),
        )  # fmt: skip
    finally:
        await asyncio.to_thread(lab.take_down, built.directory)


@asynccontextmanager
async def _open_reference(
    settings: ReferenceSettings, clock_origin: float, logs: Path, on_line: Callable[[str, dict[str, Any]], None]
) -> AsyncIterator[OpenChain]:
    with tempfile.TemporaryDirectory(prefix="loadgen-reference-") as directory:
        child = Child("reference", on_line)
        child.expect("ready")
        await child.start(
            python_module("loadgen.chain.reference"),
            {
                "directory": directory,
                "sink": f"127.0.0.1:{find_passing_port()}",
                "clock_origin": clock_origin,
                **settings.model_dump(mode="json"),
            },
            logs / "reference.log",
        )
        try:
            chain = Chain.model_validate((await child.receive("ready", _START_TIMEOUT_S))["chain"])
            yield OpenChain(chain, chain.front.host, tuner=ReferenceTuner(chain, child))
        finally:
            await child.end()


def _find_feed_command(chain: Chain) -> str:
    """Return lmtp or smtp; what cannot be read here is taken for the guide's first choice."""
    if chain.postfix is None or chain.postfix.config_directory is None:
        return "lmtp"
    try:
        return postfix.read_feed(chain.postfix.config_directory, chain.postfix.feed, None).command
    except (ChainError, OSError):
        return "lmtp"
