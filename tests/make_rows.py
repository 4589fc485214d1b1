"""Builds rows of steps by hand, and lets a search measure a chain that is a formula."""

import math
import random
from collections.abc import Callable
from typing import Any, cast

from loadgen.chain.tuning import Setting
from loadgen.profile import Profile, parse_profile
from loadgen.search import Search, Visit, concurrency_of
from loadgen.variants import Variant, make_setting
from reports.steprow import Cost, Host, Percentiles, QueueDepth, StepRow

NOTHING = Percentiles(mean=None, p50=None, p95=None, p99=None, max=None, messages=0)


def make_row(step: int = 0, **changes: Any) -> StepRow:
    """Return a valid step of a sweep with *changes*; what is not given was not measured."""
    host = dict.fromkeys(Host.__annotations__) | changes.pop("host", {})
    row: dict[str, Any] = dict.fromkeys(StepRow.__annotations__) | {
        "entry": "front",
        "step": step, "visit": step, "variant": "stock", "purpose": "level", "load": "saturated", "level": 1,
        "concurrency": 8, "valid": True, "reasons": [], "delivered_per_s": 10.0, "timing_s": {}, "hold_s": 10.0,
        "response_s": NOTHING, "accept_s": NOTHING, "cost": dict.fromkeys(Cost.__annotations__), "host": host,
        "queue_depth": dict.fromkeys(QueueDepth.__annotations__), "overloaded": False,
    }  # fmt: skip
    return cast(StepRow, row | changes)


class Simulated:
    """A chain whose throughput at every setting is known, measured with noise."""

    def __init__(
        self, law: Callable[[int], float], spread: float, seed: int, variants: tuple[Variant, ...] = ()
    ) -> None:
        self.law = law
        self.variants = variants
        self.effects: dict[str, float] = {}
        """Variant to its factor on the throughput."""
        self.broken: set[int] = set()
        """Levels that never give a valid step."""
        self.memory: Callable[[int], float] | None = None
        """Filter processes to bytes."""
        self.memory_total = 8e9
        self.present = Setting(2, 2)
        self._spread = spread
        self._rng = random.Random(seed)
        self.rows: list[StepRow] = []
        self.visits: list[Visit] = []

    def sweep(self, profile: Profile, cpus: int = 2) -> Search:
        """Let a search measure until it has enough."""
        search = Search(profile, self.variants, self.present, cpus, int(self.memory_total))
        while (visit := search.next_visit(self.rows)) is not None:
            self._take(visit)
            assert len(self.visits) < 1000
        return search

    def _take(self, visit: Visit) -> None:
        setting = make_setting(visit.processes, visit.variants)
        for load in visit.loads:
            factor = math.prod(self.effects.get(variant.name, 1.0) for variant in visit.variants)
            busy = setting.feed_processes if load == "saturated" else concurrency_of(load, visit.processes, 0)
            rate = self.law(busy) * factor * math.exp(self._rng.gauss(0, self._spread))
            host = {}
            used = None
            if self.memory is not None:
                used = self.memory(setting.filter_servers)
                host = {"memory_available_bytes": self.memory_total - used}
            self.rows.append(
                make_row(
                    len(self.rows), visit=len(self.visits), level=visit.processes, variant=visit.name, load=load,
                    purpose=visit.purpose, delivered_per_s=rate, valid=visit.processes not in self.broken, memory_bytes=used,
                    feed_processes=setting.feed_processes, filter_servers=setting.filter_servers, host=host,
                )
            )  # fmt: skip
        self.visits.append(visit)


def make_profile(text: str, seed: int = 1) -> Profile:
    return parse_profile(f'about = "a test"\nseed = {seed}\n{text}', "p.toml")
