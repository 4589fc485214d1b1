"""A place where messages are put into the chain, as the generator knows it: an address and how to speak there, or a command."""

from dataclasses import dataclass
from typing import Any, Self

from loadgen.profile import Session
from loadgen.traffic.connect import Endpoint
from loadgen.traffic.pickup import Pickup
from loadgen.traffic.session import SmtpSession

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `open` gives something that carries messages."""

    name: str
    session: Session
    endpoint: Endpoint | None
    """None: messages are handed to `command`."""
    command: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, described: dict[str, Any], session: Session) -> Self:
        """Return the entry that the conductor *described*; its sessions are as *session* says where it does not differ."""
        if "command" in described:
            return cls(name, session, None, tuple(described["command"]))
        own = session.model_copy(update=described["session"])
        return cls(name, own, Endpoint(described["host"], described["port"], own, own.source_addresses))

    async def open(self, number: int = 0) -> SmtpSession | Pickup:
        """Return a session; *number*, the session's, decides where it comes from.

        Raises:
            SessionError: it could not be opened.
        """
        if self.endpoint is None:
            return Pickup(self.command, 2 * self.session.reply_timeout_s)
        return await SmtpSession.open(self.endpoint, number)
