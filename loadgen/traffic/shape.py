"""Locust's load shape: how many users there should be, as the plan says."""

from locust import LoadTestShape

from loadgen.plan import Step, concurrency_in

__all__ = ["PlanShape"]

_SPAWN_PER_S = 1000
"""Users started per second; how many connect at once is bounded by the load itself."""


class PlanShape(LoadTestShape):  # type: ignore[misc]
    """Follows the phases that the conductor announces; between them the plan decides."""

    def __init__(self) -> None:
        super().__init__()
        self.step: Step | None = None
        self.phase = "end"
        self.finished = False
        self.asked = 0
        """Users that Locust was last told to have."""

    def tick(self) -> tuple[int, float] | None:
        """Return users wanted and users to start per second; None ends Locust's run."""
        if self.finished:
            return None
        self.asked = concurrency_in(self.step, self.phase)
        return self.asked, _SPAWN_PER_S
