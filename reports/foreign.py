"""Make text from servers and logs harmless to look at.

A reply or a log line may hold anything: terminal escapes, direction marks
that make text read differently than it is, a megabyte of it. Pages escape
markup by themselves; this takes away what remains.
"""

import unicodedata

__all__ = ["clean"]

_LONGEST = 20_000


def clean(text: str, longest: int = _LONGEST) -> str:
    """Return *text* without control and format characters (line ends and tabs stay), cut at *longest*."""
    kept = "".join(c for c in text[: longest + 1] if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return kept if len(kept) <= longest else f"{kept[:longest]} ..."
