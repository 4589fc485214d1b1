"""The reference chain's logs, in the formats of Postfix and amavisd, so that the same collectors follow it."""

import os
import time
from pathlib import Path

__all__ = ["ChainLog"]


class ChainLog:
    """Two log files, written in batches."""

    def __init__(self, directory: Path, filter_port: int, reinjection_port: int, sink: str) -> None:
        self._maillog = (directory / "maillog").open("a")
        self._amavis = (directory / "amavis.log").open("a")
        self._mail_lines: list[str] = []
        self._amavis_lines: list[str] = []
        self._pid = os.getpid()
        self._filter = f"127.0.0.1[127.0.0.1]:{filter_port}"
        self._mta = f"MTA(smtp:[127.0.0.1]:{reinjection_port})"
        self._sink = "{0}[{0}]:{1}".format(*sink.rsplit(":", 1))

    def received(
        self, queue_id: str, message_id: str, sender: str, size: int, recipients: int, origin: str = ""
    ) -> None:
        """Log that a message entered the queue; *origin* is the queue id of its first pass, if this is the second."""
        client = "client=unknown[127.0.0.1]" + (
            f", orig_queue_id={origin}, orig_client=unknown[127.0.0.1]" if origin else ""
        )
        self._mail("smtpd", f"{queue_id}: {client}")
        self._mail("cleanup", f"{queue_id}: message-id={message_id}")
        self._mail("qmgr", f"{queue_id}: from={sender}, size={size}, nrcpt={recipients} (queue active)")

    def fed(self, queue_id: str, recipient: str, delays: tuple[float, float, float, float], queued_as: str) -> None:
        """Log a delivery from the feed to the filter."""
        status = f"sent (250 2.0.0 from {self._mta}: 250 2.0.0 Ok: queued as {queued_as})"
        self._delivered("lmtp", queue_id, recipient, self._filter, delays, "2.0.0", status)

    def delivered(self, queue_id: str, recipient: str, delays: tuple[float, float, float, float], reply: str) -> None:
        """Log the final delivery."""
        self._delivered("smtp", queue_id, recipient, self._sink, delays, "2.0.0", f"sent ({reply})")

    def deferred(self, queue_id: str, recipient: str, waited_s: float, reason: str) -> None:
        """Log a delivery that failed for now."""
        self._delivered("smtp", queue_id, recipient, self._sink, (waited_s, 0, 0, 0), "4.4.1", f"deferred ({reason})")

    def removed(self, queue_id: str) -> None:
        """Log that a message has left the queue."""
        self._mail("qmgr", f"{queue_id}: removed")

    def scanned(
        self,
        task: str,
        envelope: tuple[str, str],
        queue_id: str,
        message_id: str,
        size: int,
        queued_as: str,
        took_s: float,
    ) -> None:
        """Log what amavisd would say of a message that passed."""
        sender, recipient = envelope
        milliseconds = took_s * 1000
        self._scan(
            task,
            f"Passed CLEAN {{RelayedInbound}}, [127.0.0.1]:0 {sender} -> {recipient}, Queue-ID: {queue_id}, "
            f"Message-ID: {message_id}, mail_id: {task}, Hits: -, size: {size}, queued_as: {queued_as}, {milliseconds:.0f} ms",
        )
        self._scan(task, f"size: {size}, TIMING [total {milliseconds:.0f} ms] - SA check: {milliseconds:.1f} (100%)100")

    def flush(self) -> None:
        """Write what was logged since the last call."""
        for file, lines in ((self._maillog, self._mail_lines), (self._amavis, self._amavis_lines)):
            if lines:
                file.write("".join(lines))
                file.flush()
                lines.clear()

    def close(self) -> None:
        """Flush and close both files."""
        self.flush()
        self._maillog.close()
        self._amavis.close()

    def _delivered(
        self, daemon: str, queue_id: str, recipient: str, relay: str, delays: tuple[float, ...], dsn: str, status: str
    ) -> None:
        # finer than Postfix's, but never with an exponent, which no reader of a mail log expects
        parts = "/".join(f"{d:.6f}" for d in delays)
        self._mail(
            daemon,
            f"{queue_id}: to={recipient}, relay={relay}, delay={sum(delays):.6f}, delays={parts}, dsn={dsn}, status={status}",
        )

    def _mail(self, daemon: str, text: str) -> None:
        self._mail_lines.append(f"{_stamp()} reference reference/{daemon}[{self._pid}]: {text}\n")

    def _scan(self, task: str, text: str) -> None:
        self._amavis_lines.append(
            f"{_stamp()} reference.loadgen.test /usr/sbin/amavisd[{self._pid}]: ({task}) {text}\n"
        )


def _stamp() -> str:
    return time.strftime("%b %e %H:%M:%S")
