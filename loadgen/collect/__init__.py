"""What happens in the chain and on its host while a run lasts: gauges and log lines.

A process of its own (`python -m loadgen.collect.collector`) reads gauges on a
fixed grid and follows the logs; it sends no load and changes nothing. A
reading that cannot be had is absent: never 0, never interpolated.

The gauges, by the name they have in the table `sample`:

queues (`queues`)
    queue.incoming, queue.active, queue.deferred, queue.hold, queue.maildrop: messages in each queue directory;
    queue.free_bytes: free bytes on the queue's file system.
the log join (`maillog`)
    queue.pass1, queue.pass2: messages in the queue before and after the filter.
processes (`processes`)
    postfix.<service>: processes of one master.cf service of this instance, such as postfix.amavisfeed;
    amavis.busy, amavis.held, amavis.free, amavis.children: amavisd's children by what their titles say;
    amavis.pss_bytes: their proportional share of memory together, every 5 s; amavis.pss_children: how many were summed;
    chain.cpu_s: cumulative CPU seconds of Postfix and amavisd, ended children included, once a second;
    own.<process>_cpu_s: cumulative CPU seconds of a process of ours (generator, sink, collector, conductor).
sockets (`sockets`)
    filter.accept_queue: connections waiting to be accepted by the filter;
    feed.sessions: established connections to the filter that the feed's processes hold.
the host (`host`)
    host.cpu_busy, host.cpu_iowait, host.cpu_steal: cores, mean since the last sample;
    host.memory_available_bytes; host.disk_write_bytes_per_s; host.disk_busy: share of time, the disk of the queue;
    host.psi_cpu_some, host.psi_io_some, host.psi_io_full, host.psi_memory_some: share of the time since the last sample.
the generator itself (`loadgen.traffic.load`, not sampled here)
    own.generator_lag_s: longest time by which its event loop ran late, once a second.
a reference chain (`reference`)
    whatever its status socket answers, under the names above.
"""

__all__ = [
    "amavislog",
    "collector",
    "daemons",
    "follow",
    "host",
    "logline",
    "maillog",
    "processes",
    "procfs",
    "queues",
    "reference",
    "sampler",
    "sockdiag",
    "sockets",
]
