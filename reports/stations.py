"""Where messages spend their time, from the logs: Postfix's delays and amavisd's TIMING, per step.

Delays are joined to messages by queue id, so each belongs to a message that
started in the hold of its step. TIMING lines are taken by their instant: they
say how the filter spends its time, and that does not depend on whose message
it is. Log times have a resolution of a second, the delays two digits: good
enough to tell stations apart, not for percentiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from reports.steprow import Delays
from reports.tables import Run, message_key

__all__ = ["LogJoin", "StationTimes", "join_log", "read_station_times"]


@dataclass(frozen=True)
class LogJoin:
    """Which message has which queue ids."""

    key_of: dict[str, str]
    """Queue id to message id."""

    def keys(self) -> set[str]:
        """Return the messages that the log knows."""
        return set(self.key_of.values())


@dataclass
class StationTimes:
    """Of one step."""

    feed: Delays | None = None
    delivery: Delays | None = None
    timing_s: dict[str, float] = field(default_factory=dict)
    smtp_data_median_s: float | None = None


def join_log(run: Run) -> LogJoin:
    """Return the queue ids of the messages of this run."""
    key_of = {}
    for queue_id, message_id, _, _ in run.reader.rows("queue_entry"):
        key_of[queue_id] = message_key(message_id)
    return LogJoin(key_of)


def read_station_times(run: Run, join: LogJoin) -> dict[int, StationTimes]:
    """Return step to the times at its stations."""
    times = {row["step"]: StationTimes() for row in run.steps}
    holds = {number: hold for number in times if (hold := run.hold(number)) is not None}
    measured: dict[str, int] = {}
    for key, step, started in zip(run.messages.id, run.messages.step, run.messages.started, strict=True):
        hold = holds.get(int(step))
        if hold is not None and hold.began_at <= started < hold.ended_at:
            measured[key] = int(step)
    sums: dict[tuple[int, str], list[float]] = {}
    wanted = "WHERE status = 'sent' AND a_s IS NOT NULL AND station IN ('feed', 'delivery')"
    for row in run.reader.rows("delivery", wanted):
        step = measured.get(join.key_of.get(row[2], ""))
        if step is None or None in row[6:10]:
            continue
        total = sums.setdefault((step, row[1]), [0.0] * 5)
        for place, value in enumerate((*row[6:10], 1)):
            total[place] += value
    for number, station_times in times.items():
        station_times.feed = _mean_delays(sums, number, "feed")
        station_times.delivery = _mean_delays(sums, number, "delivery")
        if (hold := holds.get(number)) is not None:
            window = (hold.began_at, hold.ended_at)
            station_times.timing_s = {
                str(section): mean
                for section, mean in run.reader.query(
                    "SELECT section, avg(seconds) FROM timing WHERE at >= ? AND at < ? GROUP BY section ORDER BY 2 DESC",
                    window,
                )
                if mean is not None
            }
            stalls = run.reader.query(
                "SELECT seconds FROM timing WHERE at >= ? AND at < ? AND section = 'SMTP DATA' AND seconds IS NOT NULL",
                window,
            )
            if stalls:
                station_times.smtp_data_median_s = float(np.median(np.array(stalls)))
    return times


def _mean_delays(sums: Mapping[tuple[int, str], list[float]], step: int, station: str) -> Delays | None:
    total = sums.get((step, station))
    if total is None:
        return None
    a, b, c, d, n = total
    return Delays(a_s=a / n, b_s=b / n, c_s=c / n, d_s=d / n, messages=int(n))
