"""The table `[expect]` of a profile: what a run must show, and against earlier runs how much worse it may be.

Only what may be asked for; whether it was met is worked out in `reports.expecting`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from loadgen.checkedtoml import Duration
from loadgen.errors import RunFileError

__all__ = ["Expect", "WorseMax", "read_expect"]

Share = Annotated[float, Field(ge=0.005, le=0.5, strict=False)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class WorseMax(_Table):
    """Relative change for the worse that each metric may show against a baseline; the names are those of `compare`."""

    delivered_per_s: Share | None = None
    response_p50_light_s: Share | None = None
    """At the step with the fewest sessions."""
    response_p95_light_s: Share | None = None
    cpu_s_per_message: Share | None = None
    memory_bytes: Share | None = None


class Expect(_Table):
    """What decides whether a run has passed."""

    delivered_per_s_min: Annotated[float, Field(gt=0, strict=False)] | None = None
    """Delivered throughput: of the plateau where one was found, else of the step with the most sessions."""
    response_p95_max_s: Duration | None = Field(default=None, alias="response_p95_max")
    """In no step longer than this."""
    error_ratio_max: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    """Messages that were not delivered, of all that were sent."""
    lost_max: Annotated[int, Field(ge=0)] | None = None
    """Messages that were accepted and of which nothing is known."""
    recommended_processes: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None,
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ] = None
    """Only of a sweep: fewest and most processes that it may recommend."""
    worse_max: WorseMax = WorseMax()

    @model_validator(mode="after")
    def _range_is_one(self) -> "Expect":
        wanted = self.recommended_processes
        if wanted is not None and wanted[0] > wanted[1]:
            raise ValueError(f"recommended_processes: got {list(wanted)}, want the smaller one first")
        return self


def read_expect(recorded: Mapping[str, Any], where: str) -> Expect:
    """Return the table of a recorded run; *where* names the run in errors.

    Raises:
        RunFileError: it has expectations that this version does not know.
    """
    try:
        return Expect.model_validate(recorded)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors(include_url=False))
        raise RunFileError(
            f"{where}: its profile expects what this version does not know: {places}; use the loadgen that wrote it"
        ) from None
