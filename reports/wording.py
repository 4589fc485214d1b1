"""What things are called in reports: stations, laws, loads, warnings, sets of variants.

One place for page and terminal, so that both say the same. Ids that are not
known here are shown as they are: a newer analysis may know more.
"""

from collections.abc import Sequence

from reports.gains import name_set
from reports.sweepsummary import Level, Recommendation

__all__ = [
    "LAW_NOTES",
    "LAW_WORDS",
    "LOAD_WORDS",
    "PARAMETER_WORDS",
    "STATION_WORDS",
    "adopted_variant",
    "join_names",
    "name_curve",
    "name_stations",
    "name_warning",
]

STATION_WORDS = {
    "front": "the front",
    "feed": "the feed",
    "filter": "the filter",
    "reinjection": "reinjection",
    "sink": "the sink of this tool",
    "cpu": "the CPU",
    "disk": "the disk",
    "generator": "the generator of this tool",
}
LOAD_WORDS = {"low": "low load", "saturated": "saturation"}
LAW_WORDS = {
    "hard_cap": "hard cap",
    "smooth_min": "rounded cap",
    "amdahl": "Amdahl",
    "usl": "Universal Scalability Law",
}
LAW_NOTES = {
    "hard_cap": "in proportion, then flat: a configured limit",
    "smooth_min": "the same with a rounded bend",
    "amdahl": "a share of the work cannot overlap; never falls",
    "usl": "processes also hinder each other; falls beyond a peak",
}
PARAMETER_WORDS = {
    "gamma": "\u03b3",
    "alpha": "\u03b1",
    "beta": "\u03b2",
    "x_max": "X max",
    "p": "p",
}
_WARNINGS = {
    "fewer-than-six-points": "Fewer than six points: the laws can hardly be told apart.",
    "peak-outside-range": "The Universal Scalability Law has no peak within the tested range: what more processes do is not known.",
    "parameter-on-bound": "A parameter is on its bound: the data do not show the effect it stands for.",
    "hard-cap-fits-better": "The hard cap fits better than the Universal Scalability Law: a configured limit binds, not contention.",
    "super-linear": "Throughput per process rises with the processes: mostly a fault of measurement, such as a cold start.",
    "first-point-misfit": "The fitted throughput of one process is more than 10 % off the measured one.",
    "residuals-not-random": "The residuals are not random: the intervals are too narrow.",
    "aicc-tie": "Two laws fit equally well; both are shown.",
}


def name_warning(warning: str) -> str:
    """Return a warning of the fit as a sentence; an unknown id is spelt out."""
    return _WARNINGS.get(warning, warning.replace("-", " "))


def name_stations(level: Level) -> str | None:
    """Return what limits a level; both names where the evidence does not separate them, None where there is none."""
    names = [level["station"]] if level["station"] else level["candidates"]
    return " or ".join(STATION_WORDS.get(name, name) for name in names) or None


def adopted_variant(recommendation: Recommendation) -> str:
    """Return the variant that the recommendation's curve was measured under: "stock", or names joined by "+"."""
    return name_set(recommendation["variants"])


def name_curve(variant: str) -> str:
    """Return how the settings of a curve are spoken of."""
    return "stock settings" if variant == "stock" else f"with {join_names(variant.split('+'))}"


def join_names(names: Sequence[str]) -> str:
    """Return *names* as a list in words."""
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
