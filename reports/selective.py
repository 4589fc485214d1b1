"""What a chain that filters only some of its mail does with each kind, for reports: filtered and not, told apart by the log.

A message was filtered if the feed handed it over or amavisd scanned it. One
that the log knows and that neither happened to was not; of one that the log
does not know it cannot be said.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reports.stations import LogJoin
from reports.steady import measure_rate
from reports.steprow import StepRow
from reports.steps import take_percentiles
from reports.summary import MailClass, Selective, SelectiveStep
from reports.tables import Run, message_key

__all__ = ["split_filtered"]

_LEAST_SHARE = 0.005
"""A kind of mail that is rarer is an accident, not a policy."""
_PASS_THE_QUEUE = ("front", "inside", "submission", "pickup")


def split_filtered(run: Run, join: LogJoin, rows: Sequence[StepRow]) -> Selective | None:
    """Return filtered and unfiltered mail side by side, step by step; None where all mail had the same fate."""
    known = join.keys()
    filtered = _find_filtered(run, join)
    # 1: filtered, 0: not, -1: not known
    fates = np.array([1 if key in filtered else 0 if key in known else -1 for key in run.messages.id], dtype=np.int8)
    mine = [row for row in rows if row["entry"] in _PASS_THE_QUEUE]
    counted = fates[np.isin(run.messages.step, [row["step"] for row in mine])]
    counted = counted[counted >= 0]
    if not len(counted) or not _LEAST_SHARE <= counted.mean() <= 1 - _LEAST_SHARE:
        return None
    steps = [_describe_step(run, row, fates) for row in mine]
    return Selective(
        filtered=int(counted.sum()),
        unfiltered=int(len(counted) - counted.sum()),
        not_known=int((fates[np.isin(run.messages.step, [row["step"] for row in mine])] < 0).sum()),
        steps=steps,
        sentences=_say(int(counted.sum()), len(counted), steps),
    )


def _find_filtered(run: Run, join: LogJoin) -> set[str]:
    handed = {join.key_of.get(queue_id) for (queue_id,) in run.reader.query(
        "SELECT DISTINCT queue_id FROM delivery WHERE station = 'feed'"
    )}  # fmt: skip
    scanned = {message_key(message_id) for (message_id,) in run.reader.query("SELECT DISTINCT message_id FROM scan")}
    by_queue_id = {join.key_of.get(queue_id) for (queue_id,) in run.reader.query("SELECT DISTINCT queue_id FROM scan")}
    return {key for key in handed | scanned | by_queue_id if key}


def _describe_step(run: Run, row: StepRow, fates: NDArray[np.int8]) -> SelectiveStep:
    mine = run.messages.step == row["step"]
    return SelectiveStep(
        step=row["step"],
        entry=row["entry"],
        concurrency=row["concurrency"],
        valid=row["valid"],
        filtered=_describe_class(run, row, mine & (fates == 1)),
        unfiltered=_describe_class(run, row, mine & (fates == 0)),
    )


def _describe_class(run: Run, row: StepRow, mine: NDArray[np.bool_]) -> MailClass:
    """Return what became of the messages in *mine*: rates over the hold, times of those that started in it."""
    start, end = row["hold_began_at"], row["hold_ended_at"]
    completed, started = run.arrivals.completed, run.messages.started
    if start is None or end is None:
        return MailClass(
            messages=int(mine.sum()), delivered_per_s=None, delivered_per_s_interval=None,
            response_s=take_percentiles(np.empty(0)),
        )  # fmt: skip
    rate = measure_rate(np.sort(completed[mine & ~np.isnan(completed)]), start, end)
    response = (completed - started)[mine & (started >= start) & (started < end)]
    return MailClass(
        messages=int(mine.sum()),
        delivered_per_s=rate.per_s if end > start else None,
        delivered_per_s_interval=list(rate.interval) if rate.interval else None,
        response_s=take_percentiles(response[~np.isnan(response)]),
    )


def _say(filtered: int, known: int, steps: Sequence[SelectiveStep]) -> list[str]:
    sentences = [
        f"{filtered / known:.0%} of the mail went through the filter, {filtered} of {known} messages; the rest went past it."
    ]
    told = [
        (step, step["filtered"]["response_s"]["p50"], step["unfiltered"]["response_s"]["p50"])
        for step in steps
        if step["valid"]
    ]
    both = [(step, one, other) for step, one, other in told if one is not None and other is not None]
    # where mail comes in at several places, the outermost is the one to speak of
    both = [each for each in both if each[0]["entry"] == both[0][0]["entry"]]
    if both:
        step, one, other = both[-1]
        assert one is not None and other is not None  # noqa: S101, PT018 (just chosen so)
        sentences.append(
            f"At N = {step['concurrency']} half of the filtered mail was through within {one * 1000:.0f} ms, half of the rest "
            f"within {other * 1000:.0f} ms."
        )
    return sentences
