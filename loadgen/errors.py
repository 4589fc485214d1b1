"""The errors a user can fix, each with the exit code the command ends with.

A message is complete by itself: where, what was found, what is wanted, what
to do. `cli` prints it without a traceback; any other exception is our own bug
and keeps its traceback.
"""

from enum import IntEnum

__all__ = [
    "ChainError",
    "CollectorError",
    "ExitCode",
    "LoadgenError",
    "ProfileError",
    "RunFileError",
    "SafetyError",
    "TableError",
    "UnreachableError",
    "UnusableRunError",
    "UsageError",
]


class ExitCode(IntEnum):
    """What the command line returns; stable, because CI jobs branch on it."""

    OK = 0
    BUG = 1
    USAGE = 2
    EXPECTATION_MISSED = 3
    INVALID_RESULT = 4
    REFUSED_FOR_SAFETY = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


class LoadgenError(Exception):
    """Base of every error that carries its own way out."""

    exit_code = ExitCode.USAGE


class UsageError(LoadgenError):
    """The command line or its surroundings cannot be used as given."""


class ProfileError(LoadgenError):
    """A profile cannot be read or says something that makes no sense."""


class ChainError(LoadgenError):
    """A chain cannot be described, brought up, changed or taken down."""


class CollectorError(LoadgenError):
    """A collector cannot read what it was asked to read."""


class RunFileError(LoadgenError):
    """A run directory is missing, foreign, or of a format not known here."""


class UnusableRunError(LoadgenError):
    """A run that is there and whose result cannot be used: incomplete, invalid, or of another load."""

    exit_code = ExitCode.INVALID_RESULT


class TableError(LoadgenError):
    """A table of the user's cannot be read or fitted."""


class SafetyError(LoadgenError):
    """The load would leave the places where test mail may go."""

    exit_code = ExitCode.REFUSED_FOR_SAFETY


class UnreachableError(LoadgenError):
    """Some station of the chain does not answer."""

    exit_code = ExitCode.UNREACHABLE
