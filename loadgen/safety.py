"""Where load may go: loopback and private addresses, recipients in reserved domains, unless named.

The address is resolved once, checked, and the checked address is the one used
afterwards, so a name that changes its mind in between changes nothing. No MX
record is ever looked up.
"""

import ipaddress
import socket

from loadgen.errors import SafetyError, UnreachableError

__all__ = ["RESERVED_DOMAINS", "check_domain", "resolve_target"]

RESERVED_DOMAINS = ("test", "example", "invalid", "example.com", "example.net", "example.org")
"""Never delegated on the Internet (RFC 2606, RFC 6761). Not "localhost": a mail server delivers that to its users."""


def resolve_target(host: str, port: int, allowed: tuple[str, ...] = ()) -> str:
    """Return the IP address to use for *host*, once it is known to be a permitted target.

    Permitted are loopback and private addresses (RFC 1918, RFC 4193, link-local)
    and hosts that the chain file names under `allow.targets`.

    Raises:
        SafetyError: a public address that nobody named.
        UnreachableError: *host* has no address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnreachableError(f"{host}:{port}: {error.strerror}; is the name right?") from error
    address = str(found[0][4][0])
    ip = ipaddress.ip_address(address.split("%")[0])
    if host in allowed or address in allowed:
        return address
    # is_private alone would let documentation and other special ranges through
    if (
        ip.is_loopback
        or ip.is_link_local
        or any(ip in network for network in _PRIVATE if network.version == ip.version)
    ):
        return address
    raise SafetyError(
        f"{host}:{port}: {address} is neither a loopback nor a private address; "
        "to load a server of yours there, name it in the chain file under [allow] targets"
    )


def check_domain(domain: str, role: str, allowed: tuple[str, ...] = ()) -> None:
    """Accept *domain* for a sender or recipient (*role*) if it is reserved for tests or named.

    Raises:
        SafetyError: mail for it could reach people.
    """
    domain = domain.lower().rstrip(".")
    for good in (*RESERVED_DOMAINS, *(name.lower() for name in allowed)):
        if domain == good or domain.endswith("." + good):
            return
    raise SafetyError(
        f"{role} domain {domain}: not reserved for tests ({', '.join(RESERVED_DOMAINS)}), so mail could reach people; "
        "use one of these, or name it in the chain file under [allow] domains"
    )


_PRIVATE = tuple(
    ipaddress.ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
