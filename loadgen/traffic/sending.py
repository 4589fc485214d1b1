"""What sends: the load of one process, and the commands it obeys. Knows nothing of where these come from.

Joined with a conductor's pipes it is the generator (`generator`), with
Locust's messages it is one worker of several (`worker`). Runs on the engine's loop.
"""

import asyncio
import os
import traceback
from collections.abc import Coroutine
from typing import Any

from loadgen.channel import Outlet
from loadgen.plan import Step
from loadgen.profile import Pacing, Profile, parse_profile
from loadgen.traffic.connect import SessionError
from loadgen.traffic.entry import Entry
from loadgen.traffic.load import Load
from loadgen.traffic.message import MessageFactory

__all__ = ["Sending"]

_GRACE_S = 1.0
"""What a transaction in progress is given when whoever conducts the run goes away."""


class Sending:
    """The load of this process; `obey` it commands, and it writes rows and events to an outlet."""

    def __init__(self, settings: dict[str, Any], outlet: Outlet, *, counts_users: bool = True) -> None:
        """Prepare for a run.

        Args:
            settings: As the conductor gives them: profile_text, run_id, entries, clock_origin, first_session, and
                where they differ from their defaults first_message, share and as_fast_as_possible.
            outlet: Takes rows and events.
            counts_users: `idle` is set whenever Locust has no users left in this process; a worker leaves that to its master.
        """
        profile = parse_profile(settings["profile_text"], "profile")
        if "as_fast_as_possible" in settings:
            profile = _unpace(profile, settings["as_fast_as_possible"])
        self._share = settings.get("share", 1.0)
        factory = MessageFactory(profile.message, profile.seed, settings["run_id"])
        factory.prepare()
        entries = {name: Entry.parse(name, said, profile.session) for name, said in settings["entries"].items()}
        self.outlet = outlet
        self.load = Load(
            _take_share(profile, self._share), entries, factory, outlet, settings["clock_origin"],
            first_session=settings["first_session"], first_message=settings.get("first_message", 0),
            followed=settings.get("followed", True), starts_full="as_fast_as_possible" in settings,
            share=self._share,
        )  # fmt: skip
        self._counts_users = counts_users
        self.idle = asyncio.Event()
        """Locust has no users: a step may begin, or has been put away."""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to flush regularly; from the loop."""
        self.spawn(self.load.flush_regularly())

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run *coroutine* beside the others; if it fails, so does this process, visibly."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    async def obey(self, command: dict[str, Any]) -> None:
        """Carry out one command of the conductor."""
        match command["command"]:
            case "phase":
                step = Step(**command["step"])
                if command["phase"] == "ramp":
                    if self._counts_users:
                        self.idle.clear()
                    self.load.begin(self._own_part(step))
                elif command["phase"] == "drain":
                    self.load.end()
                    self.spawn(self._announce_closed(step.step))
            case "probe":
                self.spawn(self._probe(command["entry"]))
            case "abort":
                self.load.abort()
            case "gone":
                self.load.note_gone(command["ids"])
            case "quit":
                self.load.end()

    def take_arrivals(self, lines: bytes) -> None:
        """Take lines with id and recipients of a copy that has arrived."""
        for line in lines.splitlines():
            message_id, _, recipients = line.decode("ascii").partition(" ")
            self.load.note_arrival(message_id, int(recipients))

    async def end_alone(self) -> None:
        """Stop the load: nobody conducts it any more, and nobody waits for a reply."""
        self.load.end()
        try:
            await asyncio.wait_for(self.load.wait_until_closed(), _GRACE_S)
        except TimeoutError:
            self.load.abort()

    async def finish(self) -> None:
        """Return when every session is closed and every row has been written."""
        await self.load.wait_until_closed()
        self.load.flush()

    def _own_part(self, step: Step) -> Step:
        """Return what of *step* is this process's: sessions are dealt out by Locust, instants are not."""
        if step.rate_per_s is None or self._share == 1.0:
            return step
        return Step(**{**vars(step), "rate_per_s": step.rate_per_s * self._share})

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, BrokenPipeError):  # that is how a killed conductor looks from here
                traceback.print_exception(error)
            os._exit(1)

    async def _announce_closed(self, step: int) -> None:
        await self.load.wait_until_closed()
        # users that Locust still counts would be missing from the next step
        await self.idle.wait()
        self.load.flush()
        self.outlet.write_event("closed", step=step)

    async def _probe(self, entry: str) -> None:
        """Send one message outside the record, to show that the chain leads to the sink."""
        message = self.load.make_probe()
        try:
            session = await self.load.entries[entry].open()
        except SessionError as error:
            self.outlet.write_event("probe", outcome="not_sent", code=None, reply=str(error))
            return
        transaction = await session.send(message)
        await session.close()
        self.outlet.write_event("probe", outcome=transaction.outcome, code=transaction.code, reply=transaction.reply)


def _unpace(profile: Profile, messages: int) -> Profile:
    """Return *profile* for *messages* messages that wait for nothing but the server's answers."""
    limits = profile.limits.model_copy(update={"messages": messages, "backlog": messages})
    return profile.model_copy(update={"pacing": Pacing(kind="accepted"), "limits": limits})


def _take_share(profile: Profile, share: float) -> Profile:
    """Return *profile* with a share of its limits."""
    limits = profile.limits
    own = {"messages": max(1, round(limits.messages * share)), "backlog": max(1, round(limits.backlog * share))}
    return profile.model_copy(update={"limits": limits.model_copy(update=own)})
