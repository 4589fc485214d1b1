"""Ask the two ports of a filter whether they answer, and where they do not, look for the reason on this host."""

import smtplib
from collections.abc import Iterator

import psutil

from loadgen.audit.auditing import Result
from loadgen.audit.facts import Facts, parse_method
from loadgen.audit.rule import Answer, Rule, answer
from loadgen.errors import LoadgenError
from loadgen.safety import resolve_target

__all__ = ["probe_ports"]

_TIMEOUT_S = 5.0


def probe_ports(facts: Facts) -> Result:
    """Return the greeting of the filter, what it offers, and the greeting of the service that takes mail back."""
    return Result(_RULE, tuple(_probe(facts)))


_RULE = Rule(
    "C46", "both ports of the filter answer", "error", "2.4",
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
