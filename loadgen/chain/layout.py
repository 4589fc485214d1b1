"""How a lab is laid out: the variants of the integration guide, and the Postfix configuration of each.

What a layout leaves alone is the guide's own recommendation (sections 2.2 and
2.3) on loopback ports, with what the guide lacks for a measurement: long queue
ids, a log file of its own, XFORWARD accepted at reinjection (so that both
passes of a message can be joined), and destination limits out of the way of
maxproc.
"""

import ipaddress
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from loadgen.chain import postfix
from loadgen.chain.spec import Address

__all__ = [
    "DEFAULT_PROCESS_LIMIT",
    "FEED",
    "INSIDE_NETWORK",
    "Layout",
    "Places",
    "find_entry_options",
    "write_postfix",
]

FEED = "amavisfeed"

DEFAULT_PROCESS_LIMIT = 150
"""Of a private instance: every session of the generator needs an smtpd, and this is the backlog of every master socket."""

INSIDE_NETWORK = "127.0.1.0/24"
"""Clients that a lab trusts where it tells its own from external ones."""

_SERVICES = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_REINJECTION_OPTIONS = (
    "content_filter=",
    "smtpd_delay_reject=no",
    "smtpd_client_restrictions=permit_mynetworks,reject",
    "smtpd_helo_restrictions=",
    "smtpd_sender_restrictions=",
    "smtpd_recipient_restrictions=permit_mynetworks,reject",
    "smtpd_relay_restrictions=permit_mynetworks,reject",
    "smtpd_data_restrictions=reject_unauth_pipelining",
    "smtpd_end_of_data_restrictions=",
    "smtpd_restriction_classes=",
    "mynetworks=127.0.0.0/8",
    "smtpd_error_sleep_time=0",
    "smtpd_soft_error_limit=1001",
    "smtpd_hard_error_limit=1000",
    "smtpd_client_connection_count_limit=0",
    "smtpd_client_connection_rate_limit=0",
    "receive_override_options=no_header_body_checks,no_unknown_recipient_checks,no_milters",
    "local_header_rewrite_clients=",
    "smtpd_milters=",
    "local_recipient_maps=",
    "relay_recipient_maps=",
    "smtpd_authorized_xforward_hosts=127.0.0.0/8",
)
_FEED_OPTIONS = ("data_done_timeout=1200", "send_xforward_command=yes", "tls_note_starttls_offer=no")
"""Without the name of the client, lmtp or smtp."""
_DONE_BEFORE = ("mime_header_checks=", "nested_header_checks=", "body_checks=", "header_checks=")
"""Options of the second cleanup: checks that the first one has made already."""


def _loopback(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ValueError(f'got "{text}", want an IPv4 loopback address, such as "127.0.0.3"')
    return text


Loopback = Annotated[str, AfterValidator(_loopback)]


class Layout(BaseModel):
    """Which of the guide's variants a lab is; they combine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feed: Literal["lmtp", "smtp"] = "lmtp"
    """The client that hands mail to the filter (guide 2.2.1, 2.2.2)."""
    filter: Literal["global", "service", "recipient-domain", "external-recipient-domain", "sender-domain", "header"] = (
        "global"
    )
    """Which mail is filtered (guide 3.1 to 3.5): all; what comes in at the front and not at the listener inside;
    what goes to loadgen.test; the same from external clients only; what comes from sender.loadgen.test; what has
    "offer" in its subject."""
    cleanup: Literal["single", "dual"] = "single"
    """Dual: a cleanup service of its own before the filter (guide 4.2)."""
    limit: Literal["master.cf", "main.cf"] = "master.cf"
    """Where the feed's processes are limited: maxproc, or the destination concurrency limit (guide 5.1, note)."""
    soft_bounce: bool = False
    """Every error is a temporary one (guide 1.2)."""
    filter_host: Loopback = "127.0.0.1"
    """Where amavisd listens (guide 2.1.1)."""
    reinjection_host: Loopback = "127.0.0.1"
    """Where it hands mail back (guide 2.1.2)."""

    @property
    def has_inside(self) -> bool:
        """Whether there is a listener whose mail is not filtered."""
        return self.filter == "service"


@dataclass(frozen=True)
class Places:
    """Where the stations of one lab are."""

    front: Address
    filter: Address
    reinjection: Address
    sink: Address
    inside: Address | None = None
    """A listener whose mail is not filtered; None: the layout has none."""


def write_postfix(
    directory: Path,
    places: Places,
    *,
    processes: int,
    layout: Layout | None = None,
    feed_options: Mapping[str, str] | None = None,
    more_services: str = "",
) -> None:
    """Write `etc/main.cf` and `etc/master.cf` of a private instance below *directory*, and make its directories.

    Args:
        directory: The lab's.
        places: Where everything listens.
        processes: Of the feed.
        layout: None: the guide's recommendation.
        feed_options: Options of the feed besides the guide's.
        more_services: Lines of master.cf as they are.

    Raises:
        ChainError: Postfix is not whole.
    """
    layout = layout or Layout()
    for name in ("etc", "spool", "data", "log"):
        (directory / name).mkdir()
    shutil.chown(directory / "data", "postfix")
    filtering, table = _describe_filtering(directory / "etc", places, layout)
    main = {**_describe_instance(directory), **filtering}
    main |= _describe_limits(processes, layout)
    main["relayhost"] = f"[{places.sink.host}]:{places.sink.port}"
    if layout.soft_bounce:
        main["soft_bounce"] = "yes"
    (directory / "etc" / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
    if table is not None:
        postfix.index_table(directory / "etc", table)
    (directory / "etc" / "master.cf").write_text(
        _describe_listeners(places, layout)
        + _describe_services(layout)
        + _describe_feed(processes, layout, feed_options or {})
        + _service(f"{places.reinjection} inet n - n - - smtpd", *_REINJECTION_OPTIONS)
        + more_services
    )


def find_entry_options(layout: Layout) -> tuple[str, ...]:
    """Return the options of every service that takes new mail."""
    return ("cleanup_service_name=pre-cleanup",) if layout.cleanup == "dual" else ()


def _describe_instance(directory: Path) -> dict[str, object]:
    return {
        "compatibility_level": "3.6",
        "queue_directory": directory / "spool",
        "data_directory": directory / "data",
        "command_directory": postfix.read_default("command_directory"),
        "daemon_directory": postfix.read_default("daemon_directory"),
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        "syslog_name": directory.name,
        "maillog_file": directory / "log" / "maillog",
        "maillog_file_prefixes": directory,
        "enable_long_queue_ids": "yes",
        "myhostname": "mx.lab.test",
        "mydestination": "",
        "mynetworks": "127.0.0.0/8",
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "alias_maps": "",
        "local_recipient_maps": "",
        "notify_classes": "",
        "smtpd_peername_lookup": "no",
        "smtp_dns_support_level": "disabled",
        "default_process_limit": DEFAULT_PROCESS_LIMIT,
    }


def _describe_filtering(etc: Path, places: Places, layout: Layout) -> tuple[dict[str, object], Path | None]:
    """Return the parameters that send mail to the filter, and the table that is to be indexed for them, written here."""
    action = _name_filter(places)
    trusted = "permit_mynetworks, permit_sasl_authenticated"
    table: Path | None = None
    main: dict[str, object] = {}
    match layout.filter:
        case "global":
            main = {"content_filter": action}
        case "recipient-domain":
            table = _write_table(etc / "filter_recipient_domains", f"loadgen.test FILTER {action}")
            checks = f"check_recipient_access hash:{table}, {trusted}, reject_unauth_destination"
            main = {"smtpd_recipient_restrictions": checks}
        case "external-recipient-domain":
            table = _write_table(etc / "filter_recipient_domains", f"loadgen.test FILTER {action}")
            checks = f"{trusted}, reject_unauth_destination, check_recipient_access hash:{table}"
            # an external client may send to our own domains only: all those that are for tests
            main = {"mynetworks": INSIDE_NETWORK, "relay_domains": "test", "smtpd_recipient_restrictions": checks}
        case "sender-domain":
            table = _write_table(etc / "filter_sender_domains", f"sender.loadgen.test FILTER {action}")
            checks = f"check_sender_access hash:{table}, {trusted}, reject_unauth_destination"
            main = {"smtpd_recipient_restrictions": checks}
        case "header":
            patterns = _write_table(etc / "filter_header", f"/^Subject:.*offer/ FILTER {action}")
            main = {"header_checks": f"regexp:{patterns}"}
    return main, table


def _describe_limits(processes: int, layout: Layout) -> dict[str, object]:
    if layout.limit == "main.cf":
        return {f"{FEED}_destination_concurrency_limit": processes}
    limit = max(processes, 20)
    return {f"{FEED}_destination_concurrency_limit": limit, f"{FEED}_initial_destination_concurrency": limit}


def _describe_listeners(places: Places, layout: Layout) -> str:
    options = find_entry_options(layout)
    own: tuple[str, ...] = ()
    if layout.filter == "service":
        own = (f"content_filter={_name_filter(places)}", "receive_override_options=no_address_mappings")
    text = _service(f"{places.front} inet n - n - - smtpd", *own, *options)
    if places.inside is not None:
        text += _service(f"{places.inside} inet n - n - - smtpd", *options)
    return text


def _describe_services(layout: Layout) -> str:
    if layout.cleanup == "single":
        return _SERVICES
    cleanup, pickup = "cleanup unix n - n - 0 cleanup\n", "pickup unix n - n 60 1 pickup\n"
    return (
        _SERVICES.replace(cleanup, _service(cleanup.strip(), *_DONE_BEFORE)).replace(
            pickup, _service(pickup.strip(), *find_entry_options(layout))
        )
    ) + _service("pre-cleanup unix n - n - 0 cleanup", "virtual_alias_maps=")


def _describe_feed(processes: int, layout: Layout, more: Mapping[str, str]) -> str:
    maxproc = processes if layout.limit == "master.cf" else "-"
    options = [f"{layout.feed}_{option}" for option in _FEED_OPTIONS]
    return _service(
        f"{FEED} unix - - n - {maxproc} {layout.feed}", *options, *(f"{name}={value}" for name, value in more.items())
    )


def _name_filter(places: Places) -> str:
    return f"{FEED}:[{places.filter.host}]:{places.filter.port}"


def _write_table(path: Path, entry: str) -> Path:
    path.write_text(f"{entry}\n")
    return path


def _service(line: str, *options: str) -> str:
    return f"{line}\n" + "".join(f"    -o {option}\n" for option in options)
