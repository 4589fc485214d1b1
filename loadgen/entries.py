"""Where messages can be put into a chain, and how each of these places is spoken to.

From the outside inwards: the front, another one whose mail is not filtered, the submission service, the sendmail
command, the filter itself, and the service that takes mail back from it. What
comes out is what the generator is told; whether a place may be a target is asked here.
"""

from typing import Any

from loadgen.chain import postfix
from loadgen.chain.opening import OpenChain
from loadgen.chain.spec import Address
from loadgen.errors import UsageError
from loadgen.profile import Profile, Session
from loadgen.safety import resolve_target

__all__ = ["find_entries"]

_PLAIN: dict[str, Any] = {"starttls": False, "username": None, "password_env": None, "password_file": None}
"""Between the stations of a chain nobody secures a session or logs in."""

_USUAL_PORTS = {"inside": 25, "submission": 587, "filter": 10024, "reinjection": 10025}


def find_entries(profile: Profile, opened: OpenChain, allowed: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return what the generator is told of each entry that *profile* asks for: host, port and session, or a command.

    Args:
        profile: Names the entries, and how sessions are kept.
        opened: The chain.
        allowed: Targets that are neither loopback nor private, and permitted.

    Raises:
        UsageError: the chain has no such entry, or it is not known where.
        SafetyError: it is no permitted target.
    """
    if profile.session.protocol is not None and "filter" not in profile.entries:
        raise UsageError(
            f'session.protocol: got "{profile.session.protocol}", which is for load put on the filter directly; '
            "run it with --entry filter, or remove it"
        )
    return {name: _describe(name, profile.session, opened, allowed) for name in profile.entries}


def _describe(name: str, session: Session, opened: OpenChain, allowed: tuple[str, ...]) -> dict[str, Any]:
    chain = opened.chain
    if name == "front":
        return _place(opened.host, chain.front.port, protocol=None)
    if chain.kind == "reference":
        raise UsageError(
            f"entry {name}: the reference chain has no stations of its own; want --chain lab, or a chain file"
        )
    if name == "pickup":
        return {"command": _find_sendmail(opened)}
    address: Address | None = getattr(chain, name)
    if address is None:
        hint = opened.lacks.get(name) or f'set {name} = "127.0.0.1:{_USUAL_PORTS[name]}" in the chain file'
        raise UsageError(f"entry {name}: the chain {chain.name} has none that is known; {hint}")
    host = resolve_target(address.host, address.port, allowed)
    if name == "inside":
        return _place(host, address.port, protocol=None)
    if name == "submission":
        login = chain.login.model_dump(mode="json") if session.username is None and chain.login is not None else {}
        return _place(host, address.port, starttls=True, protocol=None, **login)
    if name == "filter":
        # a process of the filter belongs to a session for as long as that is open
        kept = session.messages_per_session or 1
        return _place(
            host, address.port, protocol=session.protocol or opened.feed_command, messages_per_session=kept, **_PLAIN
        )
    return _place(host, address.port, protocol=None, **_PLAIN)


def _place(host: str, port: int, **session: Any) -> dict[str, Any]:
    """Return a place and in what its sessions differ from the profile's."""
    return {"host": host, "port": port, "session": session}


def _find_sendmail(opened: OpenChain) -> list[str]:
    parts = opened.chain.postfix
    if parts is None or parts.config_directory is None:
        raise UsageError(
            "entry pickup: the chain has no Postfix on this host; set postfix.config_directory in the chain file"
        )
    if opened.chain.collector is not None:
        raise UsageError("entry pickup: the chain is on another host; its sendmail command is there, too")
    sendmail = postfix.find_sendmail()
    if sendmail is None:
        raise UsageError("entry pickup: no sendmail command on this host; it comes with Postfix")
    return [sendmail, "-C", str(parts.config_directory)]
