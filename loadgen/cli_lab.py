"""The commands of `loadgen lab`: private chains, brought up, listed, taken down; and what they need installed."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.errors import ExitCode
from loadgen.output import JsonOption, put, say

if TYPE_CHECKING:
    from loadgen.chain.lab import Lab

__all__ = ["lab_app"]

lab_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Bring up, list and take down private chains (real Postfix and amavisd on loopback ports).",
    epilog="Examples:  loadgen lab install --dry-run  |  loadgen lab up --processes 4",
)


@lab_app.command(
    "up", epilog="Examples:  loadgen lab up --processes 4 --name four  |  loadgen lab up --chain my-lab.toml"
)
def lab_up(
    processes: Annotated[
        int | None, typer.Option(help="maxproc of the feed and $max_servers of amavisd; default: 2.", min=1, max=200)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the lab.")] = None,
    chain: Annotated[
        str | None, typer.Option(metavar="FILE", help="Build it as the [lab] table of this chain file says.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring up a lab and leave it up; 'run' and other programs can then use its ports."""
    from loadgen.chain import lab
    from loadgen.chain.choice import choose_chain
    from loadgen.errors import ChainError

    settings = choose_chain(chain or "lab", processes).lab
    if settings is None:
        raise ChainError(f"--chain {chain}: no [lab] table; want one, such as: [lab] processes = 2")
    for removed in lab.remove_abandoned():
        say(f"removed {removed}, which a crash had left behind")
    built = lab.bring_up(
        processes=settings.processes, filter_servers=settings.filter_servers, layout=settings,
        feed_options=settings.feed_options, wait_s=settings.wait_s or 0.0, keep=True, name=name,
    )  # fmt: skip
    if as_json:
        put(json.dumps(_describe_lab(built), indent=2))
        return
    parts = built.chain
    sides = "on both sides" if parts.processes else f"in the feed, {parts.filter_servers} in the filter"
    put(f"{built.name} is up in {built.directory}, with {parts.feed_processes} processes {sides}")
    for station in ("front", "inside", "submission", "filter", "reinjection", "sink"):
        if (place := getattr(parts, station)) is not None:
            put(f"  {station:<12} {place}")
    put(f"  chain file   {built.directory / 'chain.toml'}")


@lab_app.command("status", epilog="Examples:  loadgen lab status  |  loadgen lab status --json")
def lab_status(as_json: JsonOption = False) -> None:
    """List the labs on this host."""
    from loadgen.chain import lab

    labs = lab.list_labs()
    if as_json:
        put(json.dumps([_describe_lab(one) for one in labs], indent=2))
        return
    if not labs:
        put("no labs")
    for one in labs:
        put(f"{one.name:<10} {_lab_state(one):<38} front {one.chain.front}, sink {one.chain.sink}")


@lab_app.command("down", epilog="Examples:  loadgen lab down  |  loadgen lab down lab2")
def lab_down(
    names: Annotated[
        list[str] | None, typer.Argument(help="Labs to take down; default: all that no run is using.")
    ] = None,
) -> None:
    """Take labs down, and remove what a crash left behind."""
    from loadgen.chain import lab
    from loadgen.errors import ChainError

    gone = lab.remove_abandoned()
    for removed in gone:
        put(f"{removed} is down")
    names = [name for name in names or [] if name not in gone]
    labs = {one.name: one for one in lab.list_labs()}
    if unknown := [name for name in names if name not in labs]:
        raise ChainError(f'no lab "{unknown[0]}"; there are {", ".join(labs) or "none"}')
    # without names, a lab that a run has just made and is using is left alone
    chosen = [labs[n] for n in names] if names else [x for x in labs.values() if x.owner is None]
    for one in chosen:
        lab.take_down(one.directory)
        put(f"{one.name} is down")
    if not chosen and not gone:
        put("no labs to take down")


@lab_app.command("install", epilog="Examples:  loadgen lab install --dry-run  |  loadgen lab install --yes")
def lab_install(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands only.")] = False,
) -> None:
    """Install what the lab needs on Debian: Postfix, amavisd-new and SpamAssassin."""
    from loadgen.chain import install

    commands = install.plan_commands()
    if dry_run:
        for command in commands:
            put(command.describe())
        return
    if not commands:
        put("everything the lab needs is installed")
        return
    for command in commands:
        say(f"  {command.describe()}")
    if not yes and not typer.confirm("Run these commands as root?", err=True):
        raise typer.Exit(ExitCode.USAGE)
    install.run_commands(commands)
    put("everything the lab needs is installed")


def _describe_lab(one: "Lab") -> dict[str, object]:
    return {
        "name": one.name,
        "directory": str(one.directory),
        "running": one.running,
        "owner": one.owner,
        "abandoned": one.abandoned,
        "chain": one.chain.model_dump(mode="json"),
    }


def _lab_state(one: "Lab") -> str:
    if one.abandoned:
        return "left behind (lab down removes it)"
    return "up" if one.owner is None else f"up, used by process {one.owner}"
