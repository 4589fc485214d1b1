"""Sends messages and receives them again: everything that speaks SMTP to the chain under test.

Knows an address and a profile, nothing about Postfix or amavisd. Importing the
names below imports Locust, which monkey-patches the process, so that happens
only when one of them is asked for; `loadgen.traffic.sink` and the like stay
free of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadgen.traffic.users import SmtpUser

__all__ = ["SmtpUser"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from loadgen.traffic import users

        return getattr(users, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
