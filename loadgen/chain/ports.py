"""Loopback ports: which are free, and when a station behind one answers."""

import socket
import time

from loadgen.chain.spec import Address
from loadgen.errors import ChainError, UnreachableError

__all__ = ["find_free_ports", "find_passing_port", "wait_for_banner"]

# below the range from which the kernel takes ports for outgoing connections (32768 and up on Linux)
_FIRST, _LAST = 20_000, 32_000
_RETRY_S = 0.05


def find_free_ports(count: int, taken: set[int]) -> list[int]:
    """Return *count* ports on 127.0.0.1 that nobody listens on and that are not in *taken*.

    Raises:
        ChainError: there are not that many.
    """
    found: list[int] = []
    for port in range(_FIRST, _LAST):
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ChainError(f"127.0.0.1: fewer than {count} free ports between {_FIRST} and {_LAST}; end what holds them")


def find_passing_port() -> int:
    """Return a port on 127.0.0.1 from the kernel's own range, away from those that labs keep for themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_banner(address: Address, station: str, timeout_s: float) -> str:
    """Return the 220 banner at *address*, trying until it comes; *station* names it in the error.

    Raises:
        UnreachableError: nothing there within *timeout_s*, or something that does not greet with 220.
    """
    deadline = time.monotonic() + timeout_s
    problem = "no connection"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((address.host, address.port), timeout=left) as connection:
                banner = connection.makefile("rb").readline(1000).decode("ascii", "replace").strip()
                if not banner.startswith("220"):
                    raise UnreachableError(f'{address}: got "{banner[:80]}", want a 220 banner; is this the {station}?')
                connection.sendall(b"QUIT\r\n")
                return banner
        except TimeoutError:
            problem = "connected, but no SMTP banner"
        except OSError as error:
            problem = error.strerror or str(error)
            time.sleep(min(_RETRY_S, max(0.0, left)))
    raise UnreachableError(f"{address}: {problem} after {timeout_s:g} s; is the {station} running?")
