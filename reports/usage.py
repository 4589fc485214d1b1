"""What was used during a hold: CPU of the chain and of this tool, and the host as a whole.

CPU comes from cumulative counters, so it is exact over the hold however
coarse the sampling; the host's gauges are means of their readings.
"""

import numpy as np

from reports.steady import time_mean
from reports.steprow import Cost, Host
from reports.tables import Floats, Hold, Run

__all__ = ["mean_gauge", "read_cost", "read_host"]

OWN = ("generator", "sink", "collector", "conductor")


def read_cost(run: Run, hold: Hold | None, deliveries: int) -> Cost:
    """Return the CPU that the chain and the processes of this tool used in a hold."""
    own = {name: _cores(run, f"own.{name}_cpu_s", hold) for name in OWN}
    workers = run.reader.query("SELECT DISTINCT name FROM sample WHERE name LIKE 'own.worker-%_cpu_s'")
    sending = [cores for (name,) in workers if (cores := _cores(run, name, hold)) is not None]
    chain = _cores(run, "chain.cpu_s", hold)
    known = [cores for cores in own.values() if cores is not None] + sending
    total = sum(known) if known else None
    lag = run.sample("own.generator_lag_s")
    lags = lag[1][(lag[0] >= hold.began_at) & (lag[0] < hold.ended_at)] if hold is not None else np.empty(0)
    length = hold.ended_at - hold.began_at if hold is not None else 0.0
    busy = mean_gauge(run, "host.cpu_busy", hold)
    # where the chain is on another host, of ours only the collector is there
    is_elsewhere = bool((run.meta.get("chain") or {}).get("collector"))
    beside = (own["collector"] or 0.0) if is_elsewhere else (total or 0.0)
    return Cost(
        chain_cores=chain,
        chain_cpu_s_per_message=chain * length / deliveries if chain is not None and deliveries else None,
        # of several, the one nearest to its limit
        generator_cores=max(sending) if sending else own["generator"],
        sink_cores=own["sink"],
        collector_cores=own["collector"],
        conductor_cores=own["conductor"],
        own_cores=total,
        own_share=total / chain if total is not None and chain else None,
        others_cores=max(0.0, busy - chain - beside) if busy is not None and chain is not None else None,
        generator_lag_s=float(lags.max()) if len(lags) else None,
    )


def read_host(run: Run, hold: Hold | None) -> Host:
    """Return what the host did in a hold."""
    least = _window(run, "host.memory_available_bytes", hold)
    return Host(
        cpu_busy=mean_gauge(run, "host.cpu_busy", hold),
        cpu_iowait=mean_gauge(run, "host.cpu_iowait", hold),
        cpu_steal=mean_gauge(run, "host.cpu_steal", hold),
        psi_cpu_some=mean_gauge(run, "host.psi_cpu_some", hold),
        psi_io_some=mean_gauge(run, "host.psi_io_some", hold),
        psi_io_full=mean_gauge(run, "host.psi_io_full", hold),
        psi_memory_some=mean_gauge(run, "host.psi_memory_some", hold),
        disk_busy=mean_gauge(run, "host.disk_busy", hold),
        disk_write_bytes_per_s=mean_gauge(run, "host.disk_write_bytes_per_s", hold),
        memory_available_bytes=float(least.min()) if len(least) else None,
    )


def _cores(run: Run, name: str, hold: Hold | None) -> float | None:
    """Return the mean slope of a cumulative CPU gauge; a counter that went back (a restart) gives None."""
    if hold is None:
        return None
    at, value = run.sample(name)
    inside = (at >= hold.began_at) & (at < hold.ended_at)
    at, value = at[inside], value[inside]
    if len(at) < 2 or at[-1] <= at[0] or np.any(np.diff(value) < -1e-6):
        return None
    return float((value[-1] - value[0]) / (at[-1] - at[0]))


def mean_gauge(run: Run, name: str, hold: Hold | None) -> float | None:
    """Return the mean of a gauge over a hold, None without readings."""
    return time_mean(*run.sample(name), hold.began_at, hold.ended_at) if hold is not None else None


def _window(run: Run, name: str, hold: Hold | None) -> Floats:
    at, value = run.sample(name)
    return value[(at >= hold.began_at) & (at < hold.ended_at)] if hold is not None else np.empty(0)
