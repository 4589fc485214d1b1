"""The gauges of a reference chain, which it tells by itself: it has no queue directory and no processes to look at."""

import json
import math
import socket
from pathlib import Path

from loadgen.collect.sampler import Sampler, Target
from loadgen.errors import CollectorError

__all__ = ["make_samplers"]

_TIMEOUT_S = 0.2
_LONGEST_ANSWER = 1 << 16


class ReferenceStatus:
    """Whatever the reference chain answers on its status socket."""

    reading = "reference chain"

    def __init__(self, path: Path) -> None:
        self._path = path

    def sample(self, at: float) -> dict[str, float]:  # noqa: ARG002 (a sampler)
        """Return the gauges as the chain names them."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(self._path))
            data = b""
            while chunk := connection.recv(_LONGEST_ANSWER):
                data += chunk
                if len(data) > _LONGEST_ANSWER:
                    raise CollectorError(f"{self._path}: an answer without end; is this the reference chain?")
        gauges = json.loads(data)
        if not isinstance(gauges, dict):
            raise CollectorError(f"{self._path}: got {data[:40]!r}, want a JSON object of gauges")
        return {
            name: float(value)
            for name, value in gauges.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }


def make_samplers(target: Target) -> list[Sampler]:
    """Return the sampler of a reference chain."""
    return [ReferenceStatus(target.chain.reference_status)] if target.chain.reference_status is not None else []
