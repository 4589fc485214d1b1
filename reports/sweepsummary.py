"""What `summary.json` says of a sweep over process counts: levels, laws, variants, and what to set."""

from typing import TypedDict

from reports.steprow import Delays, Interval, Percentiles

__all__ = [
    "Ceiling",
    "Gain",
    "Level",
    "Mismatch",
    "Model",
    "Models",
    "Parameter",
    "Recommendation",
    "Repeat",
    "Sweep",
    "VariantResult",
]


class Repeat(TypedDict):
    """One measurement of a level."""

    step: int
    visit: int | None
    delivered_per_s: float
    interval: Interval | None
    """From within the step alone; the spread between repeats is wider."""


class Level(TypedDict):
    """One process count under one variant, over its valid saturated steps; without a sweep, the run as it was."""

    processes: int | None
    filter_servers: int | None
    variant: str
    delivered_per_s: float | None
    """Mean of the repeats."""
    interval: Interval | None
    """95 %, from the spread between repeats pooled over all levels."""
    saturated: bool | None
    repeats: list[Repeat]
    dropped: int
    """Steps of this level that were not valid, and are not in these numbers."""
    response_s: Percentiles
    """Of all messages of the repeats, at the load of the sweep."""
    memory_bytes: float | None
    cpu_busy: float | None
    """Cores busy on the host."""
    cpu_s_per_message: float | None
    """CPU of the chain for one message."""
    demand_s: float | None
    """Service demand of the filter: busy processes / throughput."""
    feed_delays: Delays | None
    timing_s: dict[str, float]
    station: str | None
    """The one that limits at this level, when the evidence separates it."""
    candidates: list[str]
    why: list[str]
    """Sentences of the attribution."""


class Parameter(TypedDict):
    """One parameter of a fitted model."""

    value: float
    standard_error: float | None
    """None where the parameter is on its bound, or there are too few points."""
    interval: list[float | None] | None
    """95 %, profile likelihood; an end that the data do not bound is None."""


class Model(TypedDict):
    """One fitted law of throughput against processes."""

    parameters: dict[str, Parameter]
    aicc: float | None
    """None: too few points for it."""
    rss: float
    peak_concurrency: float | None
    """USL only: where throughput is highest, when that is within the tested range."""
    peak_interval: list[float | None] | None
    """95 % for the peak, whether or not it is within the tested range; None as an end: not bounded."""
    curve: list[list[float]]
    """[N, X, low, high] over the tested range; low and high bound the mean at 95 %."""


class Models(TypedDict):
    """The laws compared on one set of points."""

    chosen: str | None
    """Smallest AICc; a tie (less than 2) goes to the simpler one."""
    ties: list[str]
    models: dict[str, Model]
    """"hard_cap", "smooth_min", "amdahl", "usl"."""
    warnings: list[str]
    """Ids: fewer-than-six-points, peak-outside-range, parameter-on-bound, hard-cap-fits-better, super-linear, ..."""
    points: list[list[float]]
    """[N, X] as fitted."""
    variant: str


class Gain(TypedDict):
    """A variant against stock at one load, measured in alternation."""

    load: str
    """"low" or "saturated"."""
    concurrency: int
    ratio: float
    """Throughput with it over throughput without, minus 1."""
    interval: Interval
    """95 % of the ratio."""
    pairs: int
    stock_per_s: float
    variant_per_s: float
    stock_response_s: float | None
    """Mean response time without it."""
    variant_response_s: float | None
    significant: bool


class VariantResult(TypedDict):
    """What one variant is worth."""

    name: str
    about: str
    settings: list[str]
    """What it changes, as a person would write it."""
    processes: int | None
    """The level it was tried at."""
    feed_processes: int | None
    filter_servers: int | None
    gains: list[Gain]
    adopted: bool
    """It is part of the recommendation."""
    why: str


class Ceiling(TypedDict):
    """What would limit next."""

    name: str
    """What it is: "feed and filter processes", "CPU", "memory", "destination concurrency limit", "reinjection processes" ..."""
    per_s: float | None
    """Throughput it allows, msg/s."""
    processes: int | None
    """Process count it allows."""
    text: str


class Recommendation(TypedDict):
    """What to set; a run at one process count can only say what that count carries."""

    processes: int | None
    """P: maxproc of the feed, and $max_servers unless `filter_servers` says otherwise."""
    interval: list[int] | None
    """95 % for P: process counts that the data do not tell from it."""
    filter_servers: int | None
    variants: list[str]
    """Variants that are part of it."""
    within: float | None
    """It is the smallest P whose throughput is within this share of the best."""
    best_processes: int | None
    """Where throughput was highest."""
    delivered_per_s: float | None
    delivered_per_s_interval: Interval | None
    response_s: Percentiles | None
    """At that level and the load of the sweep (the queue never dry)."""
    memory_bytes: float | None
    """Pss of the filter's processes at that level."""
    memory_bytes_interval: Interval | None
    memory_available_bytes: float | None
    """Least that was available on the host at that level, filter running."""
    ceilings: list[Ceiling]
    """The next two."""
    present: dict[str, int | None]
    """feed_processes and filter_servers as found."""
    already_right: bool | None
    headline: str
    sentences: list[str]
    """Why, how sure, what it costs to differ."""
    settings: list[str]
    """The lines in the form of the guide: master.cf, amavisd.conf, main.cf."""
    commands: list[str]
    """The same as commands to paste."""


class Mismatch(TypedDict):
    """What was measured with different numbers on the two sides."""

    feed_processes: int
    filter_servers: int
    delivered_per_s: float
    interval: Interval | None
    equal_processes: int
    """The synchronised level it is compared with: the smaller of the two."""
    equal_per_s: float
    ratio: float
    """Against that, minus 1."""
    ratio_interval: Interval | None
    c_s: float | None
    """Mean wait for the filter to answer (c of the delays)."""


class Sweep(TypedDict):
    """What a run over several process counts found; None in `Summary.sweep` for any other run."""

    search: str
    """"auto", or "levels"."""
    levels_asked: list[int]
    """Process counts it was to try; for "auto" those it chose."""
    visits: int
    measured_s: float
    """Wall-clock time of all visits."""
    spread: float | None
    """Relative standard deviation between repeats of one level."""
    models: Models | None
    """On the stock curve."""
    models_adopted: Models | None
    """On the curve with the recommended variants, where that was measured over enough levels."""
    variants: list[VariantResult]
    mismatches: list[Mismatch]
