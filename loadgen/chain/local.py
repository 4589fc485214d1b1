"""Find the chain that this host has, from Postfix's own settings and amavisd's processes.

What is found becomes a `Chain`; what cannot be found is named with the key to
set in a chain file instead. Only what a measurement needs is looked for.
"""

import re
from pathlib import Path

import psutil

from loadgen.chain import postfix
from loadgen.chain.spec import Address, AmavisParts, Chain, PostfixParts
from loadgen.errors import ChainError

__all__ = ["find_amavis_configuration", "find_local_chain"]

_PID_FILES = (
    "/run/amavis/amavisd.pid",
    "/var/run/amavis/amavisd.pid",
    "/var/run/amavisd/amavisd.pid",
    "/var/amavis/amavisd.pid",
)
_CONFIGURATIONS = ("/etc/amavis/conf.d", "/etc/amavisd/amavisd.conf", "/etc/amavisd.conf")
_MAIL_LOGS = ("/var/log/mail.log", "/var/log/maillog")
_NEXT_HOP = re.compile(r"^(?P<transport>[^:]+):\[?(?P<host>[^\]:]+)\]?:(?P<port>\d+)$")


def find_local_chain(domain: str) -> Chain:
    """Return the chain of this host that takes mail for *domain* through a filter to our sink.

    Raises:
        ChainError: no Postfix here, no filter configured, or the domain is not routed to a sink; says what to do.
    """
    if postfix.find_postfix() is None:
        raise ChainError("local: no Postfix on this host; give a chain file, or use --chain lab")
    directory, queue, content_filter, log, syslog_name = postfix.read_main(
        None, "config_directory", "queue_directory", "content_filter", "maillog_file", "syslog_name"
    )
    etc = Path(directory)
    hop = _NEXT_HOP.match(content_filter)
    if hop is None:
        raise ChainError(
            f'local: content_filter is "{content_filter}", want transport:[host]:port, such as amavisfeed:[127.0.0.1]:10024; '
            "describe a chain that filters in another way in a chain file"
        )
    feed, filter_ = hop["transport"], Address(host=_literal(hop["host"]), port=int(hop["port"]))
    reinjection = _find_reinjection(etc)
    state = postfix.read_feed(etc, feed, reinjection)
    amavis = _find_amavis()
    servers = len(psutil.Process(int(amavis.pid_file.read_text().split()[0])).children()) if amavis.pid_file else None
    same = state.processes if state.processes == servers else None
    return Chain(
        kind="local", name="local", about=f"the Postfix in {etc} and the amavisd of this host",
        front=Address(host="127.0.0.1", port=25), sink=_find_sink(etc, domain), filter=filter_, reinjection=reinjection,
        processes=same, feed_processes=state.processes, filter_servers=servers,
        destination_concurrency_limit=state.destination_concurrency, reinjection_processes=state.reinjection_processes,
        postfix=PostfixParts(
            config_directory=etc, queue_directory=Path(queue), maillog=_find_log(log), syslog_name=syslog_name, feed=feed,
        ),
        amavis=amavis,
    )  # fmt: skip


def _find_reinjection(etc: Path) -> Address:
    """Return where the filter hands mail back: the inet service that has no content filter of its own."""
    for (service, kind), value in postfix.read_options(etc, "content_filter").items():
        if kind == "inet" and not value:
            host, _, port = service.rpartition(":")
            if port.isdigit():
                return Address(host=_literal(host.strip("[]") or "127.0.0.1"), port=int(port))
    raise ChainError(
        f"local: {etc}/master.cf: no inet service with -o content_filter= (where the filter hands mail back); "
        "name it with reinjection in a chain file"
    )


def _find_sink(etc: Path, domain: str) -> Address:
    transport = postfix.find_transport(etc, domain)
    hop = _NEXT_HOP.match(transport)
    if hop is None:
        raise ChainError(
            f'local: {domain} is not routed to a sink (transport_maps say "{transport}"); route it to an address where loadgen '
            f"can listen, for example: postconf -e 'transport_maps=inline:{{ {domain}=smtp:[127.0.0.1]:11026 }}' "
            f"'relay_domains={domain}', then postfix reload"
        )
    return Address(host=_literal(hop["host"]), port=int(hop["port"]))


def _find_amavis() -> AmavisParts:
    pid_file = next((path for path in map(Path, _PID_FILES) if path.is_file()), None)
    if pid_file is None:
        raise ChainError(
            f"local: no amavisd runs (no {' or '.join(_PID_FILES)}); name its amavis.pid_file in a chain file"
        )
    return AmavisParts(pid_file=pid_file, configuration=find_amavis_configuration())


def find_amavis_configuration() -> Path | None:
    """Return the configuration file of this host's amavisd, or Debian's directory of it; None where there is none."""
    return next((path for path in map(Path, _CONFIGURATIONS) if path.exists()), None)


def _find_log(named: str) -> Path | None:
    if named:
        return Path(named)
    return next((path for path in map(Path, _MAIL_LOGS) if path.is_file()), None)


def _literal(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host
