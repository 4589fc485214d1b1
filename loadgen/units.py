"""Text with units to numbers and back: durations, sizes.

Inside the code time is float seconds and size is int bytes; text such as
"90s" or "32KiB" exists only in TOML, in flags and in output.
"""

import math
import re

__all__ = ["format_duration", "format_size", "parse_duration", "parse_size"]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|h)")
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(B|kB|MB|GB|KiB|MiB|GiB)")
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_duration(text: str) -> float:
    """Return the seconds that *text* such as "90s", "2min" or "250ms" names.

    Raises:
        ValueError: no unit, an unknown unit, or no number.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'got "{text}", want a duration with a unit (ms, s, min, h), such as "90s"')
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes that *text* such as "32KiB" or "4kB" names.

    Raises:
        ValueError: no unit, an unknown unit, or no number.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'got "{text}", want a size with a unit (B, kB, MB, GB, KiB, MiB, GiB), such as "32KiB"')
    return int(float(match[1]) * _BYTES[match[2]])


def format_duration(seconds: float) -> str:
    """Return *seconds* for a person: "850 ms", "12.5 s", "3 min 20 s", "2 h 05 min"."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest:02d} min" if rest else f"{hours} h"


def format_size(size_bytes: float) -> str:
    """Return *size_bytes* for a person, in powers of 1024: "512 B", "4.0 KiB", "1.2 GiB"."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
