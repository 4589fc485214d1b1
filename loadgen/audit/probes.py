"""The three probes of the guide (2.4): both ports of a filter, and a message on its way through; with the reason of a failure.

The reason comes from this host: what runs, what listens, what the log says.
"""

import os
import smtplib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from loadgen.audit.auditing import Result
from loadgen.audit.facts import Facts, parse_method
from loadgen.audit.rule import Answer, Rule, answer, unknown
from loadgen.chain.local import find_mail_log
from loadgen.chain.spec import Address, Chain
from loadgen.errors import ChainError, LoadgenError
from loadgen.following import Way, follow_message
from loadgen.safety import resolve_target

__all__ = ["find_way", "probe"]

_TIMEOUT_S = 5.0
_PASSAGE = "accepted, scanned, reinjected, delivered"
_MENDS = {
    "refused": "its reply and its log say why; is the recipient one of its own domains?",
    "not handed back": "let $forward_method and the reinjection service of {directory}/master.cf name one address (C11)",
    "blocked": "its log line has the verdict: which check holds up even a plain message?",
    "looping": (
        "give the reinjection service -o content_filter= (C06 has the command), postfix reload, then postsuper -d {queue_id}"
    ),
    "deferred": "the text is the next hop's: is it reachable, and does it accept this recipient?",
    "bounced": "the text says who refused it: is the recipient a valid one? soft_bounce=yes keeps mail meanwhile",
    "lost from sight": "postqueue -p, and the log after {queue_id}, say where it is",
}
"""What to do, by what became of the message."""


def probe(facts: Facts, way: Way | None, why_not: str = "") -> Result:
    """Return the greeting of the filter, what it offers, the greeting of the service that takes mail back, and a passage.

    Args:
        facts: The configuration.
        way: Of the message that is followed; None: none is sent.
        why_not: Why none is sent.
    """
    answers = [*_probe(facts)]
    if way is None:
        answers.append(unknown(f"no message was sent: {why_not}", _PASSAGE))
    elif not answers or any(one.ok is not True for one in answers):
        answers.append(unknown("no message was sent: one of the ports does not answer as it should", _PASSAGE))
    else:
        answers.append(_follow(facts, way))
    return Result(_RULE, tuple(answers))


def find_way(
    facts: Facts, chain: Chain | None, why_no_chain: str, domain: str, recipient: str | None
) -> tuple[Way | None, str]:
    """Return the way of a message through the filter, or None and why there is none.

    Args:
        facts: The configuration.
        chain: As far as it is known; its sink is where the message comes out.
        why_no_chain: Why it is not.
        domain: Mail for it comes out at the sink.
        recipient: An address of the user's, instead of one whose mail comes out at the sink.
    """
    places = [Address(host=hop.host, port=int(hop.port)) for hop in facts.hops if hop.host and hop.port.isdigit()]
    if not places:
        return None, "no filter is configured"
    if chain is None and recipient is None:
        return None, f"{why_no_chain}; or name an address to send it to with --to"
    logs = [path if path is not None and os.access(path, os.R_OK) else None for path in _find_logs(facts, chain)]
    return Way(
        filter=places[0],
        recipient=recipient or f"check@{domain}",
        sink=chain.sink if chain is not None and recipient is None else None,
        mail_log=logs[0],
        filter_log=logs[1],
    ), ""


def _find_logs(facts: Facts, chain: Chain | None) -> tuple[Path | None, Path | None]:
    """Return Postfix's log and amavisd's own, as far as they are known."""
    mail_log = chain.postfix.maillog if chain is not None and chain.postfix is not None else None
    if mail_log is None:
        with suppress(ChainError):  # without it the sink alone tells
            mail_log = find_mail_log(facts.main.get("maillog_file", ""))
    filter_log = chain.amavis.log if chain is not None and chain.amavis is not None else None
    if filter_log is None and facts.amavis.get("logfile") and not int(facts.amavis.get("do_syslog") or 0):
        filter_log = Path(str(facts.amavis["logfile"]))
    return mail_log, filter_log


_RULE = Rule(
    "C46", "both ports of the filter answer, and a message passes", "error", "2.4",
    "Mail is deferred while one of them does not; without XFORWARD the filter does not learn of the client.", lambda _: (),
)  # fmt: skip


def _probe(facts: Facts) -> Iterator[Answer]:
    places: dict[tuple[str, int], str] = {}
    for hop in facts.hops:
        if hop.host and hop.port.isdigit():
            places.setdefault((hop.host, int(hop.port)), "the filter")
    back = parse_method(str(facts.amavis.get("forward_method") or ""))
    if back is None and facts.reinjection is not None:
        host, _, port = facts.reinjection.name.rpartition(":")
        back = (host.strip("[]") or "127.0.0.1", port)
    if back is not None and back[1].isdigit() and back[0] != "*":
        places.setdefault((back[0], int(back[1])), "reinjection")
    for (name, number), role in places.items():
        yield _ask(name, number, role)


def _follow(facts: Facts, way: Way) -> Answer:
    where = f"message to {way.recipient} at {way.filter}"
    try:
        passage = follow_message(way)
    except (OSError, smtplib.SMTPException, LoadgenError) as error:
        return unknown(f"no message was sent: {error}", _PASSAGE)
    good = {"delivered": True, "handed back": None}.get(passage.outcome, False)
    mend = (
        ""
        if good is not False
        else _MENDS[passage.outcome].format(directory=facts.directory, queue_id=passage.queue_id)
    )
    return Answer(good, passage.text, where, _PASSAGE, mend, evidence=passage.lines)


def _ask(host: str, port: int, role: str) -> Answer:
    where = f"{host}:{port}, {role}"
    want = "a 220 greeting" + (", and XFORWARD offered" if role == "the filter" else "")
    try:
        address = resolve_target(host, port)
    except LoadgenError as error:
        return Answer(None, str(error), where, want)
    try:
        with smtplib.SMTP(timeout=_TIMEOUT_S) as session:
            code, banner = session.connect(address, port)
            words = f"{code} {banner.decode('ascii', 'replace')}"
            if code != 220:
                return answer(False, words, where, want, f"look why {role} refuses: its log says it")
            session.ehlo("check.loadgen.test")
            offered = session.has_extn("xforward")
    except smtplib.SMTPServerDisconnected as error:
        return answer(
            False, f"it closes the connection: {error}", where, want, f"look why {role} closes it: its log says it"
        )
    except TimeoutError:
        return answer(False, f"no greeting within {_TIMEOUT_S:g} s: all of its processes are busy, or hang", where, want, (
            "look at the process titles (amavisd-nanny, ps): what are they waiting for?"
        ))  # fmt: skip
    except OSError as error:
        found, mend = _explain(port, role)
        return answer(False, f"{error.strerror or error}; {found}", where, want, mend)
    except smtplib.SMTPException as error:
        return answer(False, f"no SMTP: {error}", where, want, f"find what listens there: ss -ltnp 'sport = :{port}'")
    if role == "the filter" and not offered:
        return answer(
            False, f"{words}, without XFORWARD", where, want, "is this amavisd? ss -ltnp says which program listens"
        )
    return answer(True, words, where, want)


def _explain(port: int, role: str) -> tuple[str, str]:
    """Return why nothing answers at *port*, as far as this host tells, and what to do."""
    if role == "reinjection":
        return "no smtpd listens there", "add the service to master.cf (C11 has the command), then postfix reload"
    running, ports = _listening("amavis")
    if not running:
        return "no amavisd runs on this host", "start it, and read its log if it does not stay: systemctl start amavis"
    if ports:
        listed = ", ".join(map(str, sorted(ports)))
        return (
            f"amavisd runs and listens on {listed}",
            f"set $inet_socket_port = {port}, or point content_filter at {listed}",
        )
    return "amavisd runs; its ports cannot be seen", "run this as root, or look with ss -ltnp"


def _listening(name: str) -> tuple[bool, set[int]]:
    """Return whether a process whose title begins so runs, and on which TCP ports such processes listen."""
    running, ports = False, set()
    for process in psutil.process_iter(["name", "cmdline"]):
        title = " ".join(process.info["cmdline"] or ()) or process.info["name"] or ""
        if name not in title.split(" ")[0]:
            continue
        running = True
        try:
            ports |= {one.laddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
        except (OSError, psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return running, ports
