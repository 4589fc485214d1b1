"""Which chain a run uses: `--chain lab`, `--chain reference`, a chain file, or whichever fits this host.

Owns the chain file (TOML). One with a `[lab]` or `[reference]` table sets how
that chain is built; any other describes a chain that runs already.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from loadgen.chain import lab
from loadgen.chain.layout import Layout
from loadgen.chain.local import find_local_chain
from loadgen.chain.reference import ReferenceSettings
from loadgen.chain.spec import AmavisParts, Chain, HostPort, Login, PostfixParts
from loadgen.checkedtoml import Duration, check_toml
from loadgen.errors import ChainError

__all__ = ["Allow", "ChainChoice", "LabSettings", "choose_chain"]

MAX_PROCESSES = 200


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Allow(_Table):
    """What lies outside the safe defaults and is meant nevertheless."""

    targets: tuple[str, ...] = ()
    """Hosts or addresses that are neither loopback nor private."""
    domains: tuple[str, ...] = ()
    """Sender and recipient domains that are not reserved for tests."""


class LabSettings(Layout):
    """How the lab is built."""

    processes: Annotated[int, Field(ge=1, le=MAX_PROCESSES)] = 2
    """maxproc = $max_servers; 2 is the guide's value to start from."""
    filter_servers: Annotated[int, Field(ge=1, le=MAX_PROCESSES)] | None = None
    """$max_servers where the two sides are to differ."""
    feed_options: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Annotated[str, Field(pattern=r"^\S*$")]] = (
        Field(default_factory=dict)
    )
    """`-o` options of the feed besides the guide's."""
    wait_s: Duration | None = Field(default=None, alias="wait")
    """What every scan waits without using a CPU, as look-ups and scanners of others make it."""


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class _ChainFile(_Table):
    about: str = ""
    lab: LabSettings | None = None
    reference: ReferenceSettings | None = None
    front: HostPort | None = None
    sink: HostPort | None = None
    filter: HostPort | None = None
    reinjection: HostPort | None = None
    inside: HostPort | None = None
    submission: HostPort | None = None
    login: Login | None = None
    feed_processes: Annotated[int, Field(ge=1)] | None = None
    filter_servers: Annotated[int, Field(ge=1)] | None = None
    destination_concurrency_limit: Annotated[int, Field(ge=1)] | None = None
    reinjection_processes: Annotated[int, Field(ge=1)] | None = None
    collector: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_listed)] | None = None
    postfix: PostfixParts | None = None
    amavis: AmavisParts | None = None
    allow: Allow = Allow()

    @model_validator(mode="after")
    def _one_kind(self) -> "_ChainFile":
        kinds = [name for name in ("lab", "reference", "front") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"got {' and '.join(kinds) or 'none'} of lab, reference and front, want exactly one")
        if self.front is not None and self.sink is None:
            raise ValueError('sink: missing; where the chain delivers, such as "127.0.0.1:11026"')
        return self


@dataclass(frozen=True)
class ChainChoice:
    """What to measure, before it is up."""

    why: str
    """One line for the user: which chain, and why."""
    allow: Allow
    lab: LabSettings | None = None
    reference: ReferenceSettings | None = None
    chain: Chain | None = None
    """A chain that runs already."""
    apply: bool = False
    """Its settings may be changed, and are put back afterwards."""


def choose_chain(
    wanted: str | None, processes: int | None = None, *, apply: bool = False, domain: str = "loadgen.test"
) -> ChainChoice:
    """Return the chain that *wanted* names ("lab", "reference", "local" or a path), or the best that can run here.

    Args:
        wanted: The option's text; None: `lab` where it can run, else `reference`.
        processes: Process count for a lab or reference chain, instead of its own setting.
        apply: The settings of a chain that runs already may be changed.
        domain: Recipient domain of the load, which leads to the sink on this host.

    Raises:
        ChainError: no such chain, or its file says something wrong.
    """
    if processes is not None and not 1 <= processes <= MAX_PROCESSES:
        raise ChainError(f"--processes: got {processes}, want 1 to {MAX_PROCESSES}")
    choice = _choose(wanted, processes, domain)
    if not apply:
        return choice
    if choice.chain is None:
        raise ChainError("--apply: a lab or reference chain is loadgen's own and is changed anyway; leave --apply out")
    if choice.chain.collector is not None:
        raise ChainError("--apply: this chain is on another host (collector); run the sweep there")
    if os.geteuid() != 0:
        raise ChainError("--apply: changing the settings of Postfix and amavisd needs root; run this command as root")
    return replace(choice, apply=True)


def _choose(wanted: str | None, processes: int | None, domain: str) -> ChainChoice:
    if wanted == "local":
        if processes is not None:
            raise ChainError("--processes: the chain of this host is measured as it is; leave --processes out")
        return ChainChoice(
            "chain: local, the Postfix and amavisd of this host", Allow(), chain=find_local_chain(domain)
        )
    if wanted == "reference":
        return ChainChoice(
            "chain: reference, as asked for", Allow(), reference=_reference(ReferenceSettings(), processes)
        )
    if wanted in ("lab", None):
        missing = lab.missing_requirements()
        if not missing:
            why = "as asked for" if wanted else "real Postfix and amavisd are installed and this is root"
            return ChainChoice(f"chain: lab, {why}", Allow(), lab=_lab(LabSettings(), processes))
        if wanted:
            raise ChainError(f"lab: missing {', '.join(missing)}; see 'loadgen lab install', or use --chain reference")
        return ChainChoice(
            f"chain: reference (a stand-in, not a mail server), because the lab misses {', '.join(missing)}",
            Allow(),
            reference=_reference(ReferenceSettings(), processes),
        )
    return _read_chain_file(Path(wanted), processes)


def _read_chain_file(path: Path, processes: int | None) -> ChainChoice:
    if path.suffix != ".toml" and not path.exists():
        raise ChainError(f'"{path}": no such chain; want lab, reference, local, or the path of a chain file (TOML)')
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ChainError(
            f"{path}: {error.strerror}; want lab, reference, local, or the path of a chain file (TOML)"
        ) from error
    except UnicodeDecodeError as error:
        raise ChainError(f"{path}: not UTF-8 at byte {error.start}; a chain file is a TOML text file") from error
    try:
        file = check_toml(_ChainFile, text, str(path))
    except ValueError as error:
        raise ChainError(str(error)) from None
    why = f"chain: {path}"
    if file.lab is not None:
        return ChainChoice(f"{why} (lab)", file.allow, lab=_lab(file.lab, processes))
    if file.reference is not None:
        return ChainChoice(
            f"{why} (reference, not a mail server)",
            file.allow,
            reference=_reference(file.reference, processes),
        )
    if processes is not None:
        raise ChainError(f"--processes: {path} describes a chain that runs already; its process counts are not changed")
    assert file.front is not None  # noqa: S101 (checked by the model)
    assert file.sink is not None  # noqa: S101 (checked by the model)
    same = file.feed_processes if file.feed_processes == file.filter_servers else None
    chain = Chain(
        kind="file", name=path.stem, about=file.about, front=file.front, sink=file.sink, filter=file.filter,
        reinjection=file.reinjection, inside=file.inside, submission=file.submission, login=file.login,
        collector=file.collector, processes=same, feed_processes=file.feed_processes, filter_servers=file.filter_servers,
        destination_concurrency_limit=file.destination_concurrency_limit,
        reinjection_processes=file.reinjection_processes, postfix=file.postfix, amavis=file.amavis,
    )  # fmt: skip
    return ChainChoice(why, file.allow, chain=chain)


def _lab(settings: LabSettings, processes: int | None) -> LabSettings:
    return settings if processes is None else settings.model_copy(update={"processes": processes})


def _reference(settings: ReferenceSettings, processes: int | None) -> ReferenceSettings:
    if processes is None:
        return settings
    return settings.model_copy(update={"feed_processes": processes, "filter_servers": processes})
