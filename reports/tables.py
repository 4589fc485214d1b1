"""What a run directory holds, in memory and joined: the one place that reads rows for the analysis.

Messages become arrays, arrivals become one completion per message, gauges
become pairs of arrays. Nothing is judged here. Any prefix of a run can be
read: tables may be empty, phases may be missing, messages may have arrived
whose own row was lost with the process that was to write it.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.records import RunReader
from reports.steady import find_warm_up

__all__ = ["Arrivals", "Floats", "Hold", "Messages", "Run", "Setting", "load_run", "message_key"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Messages:
    """The table `message` by columns; NULL is NaN."""

    id: list[str]
    step: Ints
    session: Floats
    recipients: Ints
    intended: Floats
    started: Floats
    ended: Floats
    outcome: NDArray[np.str_]
    answers: dict[int, tuple[int | None, str]]
    """Position to code and reply, for those that were not accepted."""

    @property
    def accept_s(self) -> Floats:
        """MAIL to the last reply."""
        return self.ended - self.started


@dataclass(frozen=True)
class Arrivals:
    """When each message was at the end of the chain for all of its recipients."""

    completed: Floats
    """Aligned with the messages; NaN: not (for all recipients)."""
    instants: Floats
    """Sorted; those without a row of their own included."""
    extra: Floats
    """Sorted instants of copies beyond the ones that were sent."""
    unrecorded: int


@dataclass(frozen=True)
class Hold:
    """The measured part of one step."""

    began_at: float
    ended_at: float
    whole: bool
    """It ran as long as planned."""
    trimmed_s: float = 0.0
    """Cut from its beginning as warm-up."""
    settled: bool = True
    """False: no steady state was reached, by MSER-5."""


@dataclass(frozen=True)
class Setting:
    """What was in force during one step of a sweep."""

    visit: int
    purpose: str
    load: str
    feed_processes: int
    filter_servers: int
    changed_s: float


@dataclass(frozen=True)
class Run:
    """One run, ready to be asked."""

    reader: RunReader
    meta: dict[str, Any]
    steps: list[dict[str, Any]]
    """Rows of `step` with their column names."""
    phases: dict[int, dict[str, float]]
    """Step to phase to the instant it began."""
    messages: Messages
    arrivals: Arrivals
    remarks: list[tuple[float, str, str, str]]
    sessions: list[tuple[int, float, float, str]]
    """Step, opened_at, ended_at, error."""
    end_at: float
    """The last instant anything was recorded."""
    settings: dict[int, Setting] = field(default_factory=dict)
    """Step to its setting; empty for a run that is no sweep."""
    entries: dict[int, str] = field(default_factory=dict)
    """Step to where its messages were put in; one that is missing: at the front."""
    _samples: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)

    @property
    def is_sweep(self) -> bool:
        """Whether it went over several process counts."""
        return bool((self.meta.get("profile") or {}).get("processes"))

    def sample(self, name: str) -> tuple[Floats, Floats]:
        """Return instants and values of one gauge; empty arrays when there are none."""
        if name not in self._samples:
            flat = array("d")
            for at, _, value in self.reader.rows("sample", "WHERE name = ? ORDER BY at", (name,)):
                flat.append(at)
                flat.append(value)
            pairs = np.frombuffer(flat, dtype=np.float64).reshape(-1, 2) if flat else np.empty((0, 2))
            self._samples[name] = (pairs[:, 0].copy(), pairs[:, 1].copy())
        return self._samples[name]

    def sample_sum(self, names: Iterable[str]) -> tuple[Floats, Floats]:
        """Return the sum of gauges that are read at the same instants; those that are absent are left out."""
        total: tuple[Floats, Floats] | None = None
        for name in names:
            at, values = self.sample(name)
            if not len(at):
                continue
            if total is None:
                total = (at, values)
            else:
                shared, left, right = np.intersect1d(total[0], at, return_indices=True)
                total = (shared, total[1][left] + values[right])
        return total if total is not None else (np.empty(0), np.empty(0))

    def hold(self, step: int) -> Hold | None:
        """Return the hold of *step*, None when it never began.

        Cut at the end of the record, and, where the step was held for a precision, at the beginning (MSER-5).
        """
        began = self.phases.get(step, {})
        if "hold" not in began:
            return None
        planned = next((s["hold_s"] for s in self.steps if s["step"] == step), 0.0) or 0.0
        ended = min((at for phase, at in began.items() if phase in ("drain", "end")), default=self.end_at)
        whole = ("drain" in began or "end" in began) and ended - began["hold"] >= 0.95 * planned
        start, ended = began["hold"], max(ended, began["hold"])
        if self.precision(step) is None:
            return Hold(start, ended, whole)
        steady_at = find_warm_up(self.arrivals.instants, start, ended)
        trimmed_s = steady_at - start if steady_at is not None else 0.0
        return Hold(start + trimmed_s, ended, whole, trimmed_s, steady_at is not None)

    def precision(self, step: int) -> float | None:
        """Return the relative half-width that *step* was held for, None when it was just held."""
        profile = self.meta.get("profile") or {}
        wanted = (profile.get("timing") or {}).get("precision")
        if step in self.settings:
            return wanted
        planned = [one for one in profile.get("step") or [] for _ in profile.get("entries") or ["front"]]
        return wanted if step < len(planned) and planned[step].get("hold_limit_s") is not None else None

    def span(self, step: int) -> tuple[float, float] | None:
        """Return from when to when *step* was on: its first phase to its end."""
        began = self.phases.get(step)
        if not began:
            return None
        return min(began.values()), began.get("end", self.end_at)


def message_key(text: object) -> str:
    """Return our message id from a Message-ID, with or without brackets and domain."""
    return str(text or "").strip().removeprefix("<").removesuffix(">").partition("@")[0]


def load_run(reader: RunReader) -> Run:
    """Read everything but gauges and log rows, which are read when asked for."""
    messages = _load_messages(reader)
    phases: dict[int, dict[str, float]] = {}
    for at, step, phase in reader.rows("phase", "ORDER BY at"):
        phases.setdefault(step, {}).setdefault(phase, at)
    names = ("step", "processes", "variant", "concurrency", "rate_per_s", "warm_up_s", "hold_s")
    return Run(
        reader=reader,
        meta=reader.meta,
        steps=[dict(zip(names, row, strict=True)) for row in reader.rows("step", "ORDER BY step")],
        phases=phases,
        messages=messages,
        arrivals=_load_arrivals(reader, messages),
        remarks=[(at or 0.0, str(s), str(k), str(t)) for at, s, k, t in reader.rows("remark", "ORDER BY at")],
        sessions=[
            (r[1], r[2], r[7], str(r[9] or "")) for r in reader.rows("session") if None not in (r[1], r[2], r[7])
        ],
        end_at=_find_end(reader),
        settings={row[0]: Setting(*row[1:]) for row in reader.rows("setting")},
        entries=dict(reader.rows("entry")),
    )


def _load_messages(reader: RunReader) -> Messages:
    ids: list[str] = []
    outcomes: list[str] = []
    answers: dict[int, tuple[int | None, str]] = {}
    numbers = array("d")
    nan = float("nan")
    for row in reader.rows("message", "ORDER BY coalesce(started_at, intended_at), id"):
        outcome = row[10] or "unknown"
        if outcome not in ("accepted", "dropped"):
            answers[len(ids)] = (row[11], str(row[12] or ""))
        ids.append(row[0])
        outcomes.append(outcome)
        for value in (row[1], row[2], row[4] or 1, row[5], row[6], row[7]):
            numbers.append(nan if value is None else value)
    table = np.frombuffer(numbers, dtype=np.float64).reshape(-1, 6) if numbers else np.empty((0, 6))
    return Messages(
        id=ids,
        step=np.nan_to_num(table[:, 0], nan=-1).astype(np.int64),
        session=table[:, 1],
        recipients=table[:, 2].astype(np.int64),
        intended=table[:, 3],
        started=table[:, 4],
        ended=table[:, 5],
        outcome=np.array(outcomes, dtype=np.str_),
        answers=answers,
    )


def _load_arrivals(reader: RunReader, messages: Messages) -> Arrivals:
    """Work out when each message was complete, and which copies were too many."""
    position = {message_id: index for index, message_id in enumerate(messages.id)}
    missing = messages.recipients.copy()
    completed = np.full(len(missing), np.nan)
    run_id = str(reader.meta.get("run_id", ""))
    alone: dict[str, float] = {}
    extra: list[float] = []
    for message_id, at, recipients, _ in reader.rows("arrival", "ORDER BY at"):
        index = position.get(message_id)
        if index is None:
            if not run_id or not str(message_id).startswith(f"{run_id}.") or str(message_id) == f"{run_id}.probe":
                continue
            if message_id in alone:
                extra.append(at)
            else:
                alone[message_id] = at
        elif missing[index] > 0:
            missing[index] -= recipients or 1
            if missing[index] <= 0:
                completed[index] = at
        else:
            extra.append(at)
    known = completed[~np.isnan(completed)]
    return Arrivals(
        completed=completed,
        instants=np.sort(np.concatenate([known, np.array(list(alone.values()))])),
        extra=np.array(extra),
        unrecorded=len(alone),
    )


def _find_end(reader: RunReader) -> float:
    """Return the last instant recorded; `ended_at` when the run came that far."""
    instants = [reader.meta.get("ended_at")]
    for table, column in (
        ("phase", "at"), ("message", "ended_at"), ("arrival", "at"), ("sample", "at"), ("remark", "at"), ("session", "ended_at"),
    ):  # fmt: skip
        instants.append(reader.query(f"SELECT max({column}) FROM {table}")[0][0])  # noqa: S608 (own names)
    return max((float(at) for at in instants if isinstance(at, int | float)), default=0.0)
