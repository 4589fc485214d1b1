"""Make text from servers and logs harmless to look at.

A reply or a log line may hold anything: terminal escapes, direction marks
that make text read differently than it is, a megabyte of it. Pages escape
markup by themselves; this takes away what remains.
"""

import unicodedata

from rich.markup import escape

__all__ = ["clean", "clean_for_terminal"]

_LONGEST = 20_000


def clean(text: str, longest: int = _LONGEST) -> str:
    """Return *text* without control and format characters (line ends and tabs stay), cut at *longest*."""
    kept = "".join(c for c in text[: longest + 1] if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return kept if len(kept) <= longest else f"{kept[:longest]} ..."


def clean_for_terminal(text: str) -> str:
    """Return *text* cleaned, on one line, and with nothing that rich would read as markup."""
    return escape(clean(text).replace("\n", " "))
