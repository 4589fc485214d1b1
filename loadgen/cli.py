"""The command line: what a user types, and what the exit code says.

Thin: every command hands over to the room that does the work, importing it
only then, so that `loadgen --help` answers at once. Results go to standard
output, progress and warnings to standard error.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loadgen.cli_check import check
from loadgen.cli_collect import collect
from loadgen.cli_compare import CompareCommand, compare
from loadgen.cli_lab import lab_app
from loadgen.errors import ExitCode, LoadgenError
from loadgen.gating import AnnotationsOption, GateFiles, JUnitOption, MarkdownOption
from loadgen.output import JsonOption, put, say

if TYPE_CHECKING:
    from loadgen.profile import Profile

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Load-test a Postfix -> amavisd -> Postfix mail chain to the last delivery.",
    epilog="Examples:  loadgen run quick  |  loadgen report runs/2026-03-01T10-00-00Z-quick",
)
app.add_typer(lab_app, name="lab")
app.command(epilog="Examples:  loadgen check  |  loadgen check --chain mx.toml --json")(check)
app.command(
    cls=CompareCommand,
    epilog="Examples:  loadgen compare runs/old-* -- runs/new-*  |  loadgen compare --ab lmtp.toml smtp.toml ci-gate  |  "
    "loadgen compare --self-test ci-gate",
)(compare)
app.command(epilog='Example, in a chain file:  collector = ["ssh", "mx1", "loadgen", "collect"]')(collect)


@app.command(
    epilog="Examples:  loadgen run quick  |  loadgen run my-load.toml --chain lab --processes 4  |  "
    "loadgen run ci-gate --baseline ci/baseline.json --junit junit.xml"
)
def run(
    profile: Annotated[
        str, typer.Argument(help="A shipped profile (see 'loadgen profiles') or the path of a TOML file.")
    ],
    chain: Annotated[
        str | None,
        typer.Option(
            help="lab, reference, local (this host), or the path of a chain file. Default: lab where it can run, else reference."
        ),
    ] = None,
    entry: Annotated[
        list[str] | None,
        typer.Option(
            help="Where messages are put in: front, submission, pickup, filter or reinjection; several times to compare. "
            "Default: the profile's."
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Process count of a lab or reference chain (maxproc = $max_servers).")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where run directories are made.")] = Path("runs"),
    continues: Annotated[
        Path | None,
        typer.Option("--continue", metavar="RUN", help="Go on with an earlier run: what it has measured counts."),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="Let a sweep change the settings of a chain that runs already; they are put back."
        ),
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare with this one, as [expect.worse_max] in the profile says."),
    ] = None,
    save_baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep what the runs gave, to compare later ones with.")
    ] = None,
    junit: JUnitOption = None,
    markdown: MarkdownOption = None,
    annotations: AnnotationsOption = None,
    as_json: JsonOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the timeline and the chain; touch nothing.")
    ] = False,
    allow_backlog: Annotated[
        bool, typer.Option("--allow-backlog", help="Measure although the queue already holds mail.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            help="Send from this many processes on this machine; 0: from one, without a master.", min=0, max=64
        ),
    ] = 0,
    remote_workers: Annotated[
        int, typer.Option(help="Also wait for this many 'loadgen worker' on other machines.", min=0, max=256)
    ] = 0,
    bind: Annotated[
        str, typer.Option(help="Where Locust's master listens for workers; without a port: any that is free.")
    ] = "127.0.0.1",
) -> None:
    """Run a load profile against a chain and report on it."""
    from loadgen.chain.choice import choose_chain
    from loadgen.errors import ChainError
    from loadgen.profile import load_profile

    name, text, loaded = load_profile(profile)
    if entry:
        loaded = loaded.at_entries(entry)
    left = {} if dry_run else _restore_abandoned(needed=apply)
    choice = choose_chain(chain, processes, apply=apply, domain=loaded.message.recipient_domain)
    if dry_run:
        _print_timeline(name, loaded, choice.why)
        return
    parts = choice.chain.postfix if choice.chain is not None else None
    if apply and parts is not None and parts.config_directory is not None:
        problem = left.get(parts.config_directory.absolute())
        if problem is not None:
            raise ChainError(problem)
    say(choice.why)
    from loadgen.run import RunRequest
    from loadgen.running import run_gate
    from loadgen.workers import parse_workers

    request = RunRequest(
        name, text, loaded, choice, output, allow_backlog, continues, parse_workers(workers, remote_workers, bind)
    )
    files = GateFiles(junit, markdown, annotations)
    raise typer.Exit(run_gate(request, baseline, save_baseline, files, as_json=as_json))


@app.command(epilog="Examples:  loadgen calibrate  |  loadgen calibrate my-load.toml --sessions 200 --json")
def calibrate(
    profile: Annotated[
        str | None,
        typer.Argument(
            help="What will be sent: a shipped profile, or the path of a TOML file. Default: 4 KiB messages."
        ),
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(help="Open at once. Default: the most that the profile has, or 50.", min=1, max=20000)
    ] = None,
    size: Annotated[str | None, typer.Option(help="Of each message, such as 32KiB, instead of the profile's.")] = None,
    messages: Annotated[int, typer.Option(help="Sent in each round.", min=1000, max=1_000_000)] = 50_000,
    rounds: Annotated[int, typer.Option(help="Of all generators and sinks in turn.", min=1, max=100)] = 5,
    workers: Annotated[int, typer.Option(help="As for 'run'.", min=0, max=64)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure how much load this machine can generate, beside Postfix's smtp-source."""
    from loadgen.calibrate import calibrate as measure
    from loadgen.calibrate import make_profile
    from loadgen.calibration import Load, describe, print_calibration
    from loadgen.progress import PatientConsole

    text, loaded = make_profile(profile, size)
    sessions = sessions or max((entry.concurrency for entry in loaded.step), default=50)
    found = asyncio.run(
        measure(
            loaded,
            text,
            Load(sessions, messages, rounds, workers),
            lambda name, per_s: say(f"{name}: {per_s:.0f} msg/s"),
        )
    )
    if as_json:
        put(json.dumps(describe(found), indent=2))
        return
    print_calibration(found, PatientConsole())


@app.command(epilog="Examples:  loadgen worker --master 10.0.0.1:5557")
def worker(
    master: Annotated[str, typer.Option(help="host:port that 'loadgen run --bind' named.")],
) -> None:
    """Send load for a run on another machine, until that run is over."""
    import os

    from loadgen.child import python_module
    from loadgen.workers import check_master

    check_master(master)
    command = [*python_module("loadgen.traffic.worker"), master]
    os.execv(command[0], command)  # noqa: S606 (Locust wants a process of its own, from its first import on)


@app.command(epilog="Examples:  loadgen report runs/2026-03-01T10-00-00Z-quick  |  loadgen report RUN --json")
def report(
    directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="A directory that 'loadgen run' made, finished or not.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Analyse a run directory again and write its summary.json and report.html."""
    from loadgen.running import report_gate

    raise typer.Exit(report_gate(directory, as_json=as_json))


@app.command(epilog="Examples:  loadgen fit measured.csv  |  loadgen fit - --json < measured.csv")
def fit(
    table: Annotated[
        str,
        typer.Argument(
            metavar="CSV", help="Columns concurrency and throughput, optionally error; - reads standard input."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Fit the laws of scalability to a table of your own."""
    from loadgen.progress import PatientConsole
    from reports.fit import describe_fit, fit_table, print_fit

    models = fit_table(table)
    if as_json:
        put(json.dumps(describe_fit(models), indent=2))
    else:
        print_fit(models, PatientConsole())


@app.command(epilog="Examples:  loadgen restore  |  loadgen restore --force")
def restore(
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where somebody else has changed a file since; theirs is kept beside it."),
    ] = False,
) -> None:
    """Put back what a run with --apply changed and could not put back itself."""
    from loadgen.chain.journal import list_journals
    from loadgen.chain.live import put_back
    from loadgen.errors import ChainError

    journals = list_journals()
    if not journals:
        put("nothing to put back")
    problems = []
    for journal in journals:
        if journal.host_is_gone:
            put(f"{journal.config_directory} is no longer there; what it held is kept in {journal.set_aside()}")
        elif left := put_back(journal, force=force):
            problems.extend(left)
        else:
            put(f"put back: {', '.join(map(str, journal.files))}")
    if problems:
        raise ChainError("\n".join(problems))


@app.command(epilog="Examples:  loadgen profiles  |  loadgen profiles --json")
def profiles(as_json: JsonOption = False) -> None:
    """List the shipped load profiles."""
    from loadgen.profile import list_profiles, parse_profile

    about = {name: parse_profile(text, name).about for name, text in list_profiles().items()}
    if as_json:
        put(json.dumps(about, indent=2))
        return
    for name, text in about.items():
        put(f"{name:<10} {text}")


def main() -> NoReturn:
    """Run the command line and exit with its code; only our own bugs show a traceback."""
    code = ExitCode.OK
    try:
        app()  # exits by itself, with 2 for a wrong call
    except LoadgenError as error:
        from reports.foreign import clean  # a server's words may be among ours

        for line in str(error).splitlines():
            say(f"loadgen: {clean(line)}")
        code = error.exit_code
    except KeyboardInterrupt:
        say("loadgen: interrupted")
        code = ExitCode.INTERRUPTED
    sys.exit(int(code))


def _restore_abandoned(*, needed: bool) -> "dict[Path, str]":
    """Put back what earlier runs left changed; return what is in the way of it, by configuration directory.

    Args:
        needed: A journal that cannot be read is an error; otherwise a warning.
    """
    from loadgen.chain.journal import list_journals
    from loadgen.chain.live import put_back
    from loadgen.errors import ChainError

    in_the_way: dict[Path, str] = {}
    try:
        for journal in list_journals():
            say(f"an earlier run (process {journal.owner}) left settings changed; putting them back")
            if journal.host_is_gone:
                say(f"{journal.config_directory} is no longer there; what it held is kept in {journal.set_aside()}")
            elif problems := put_back(journal):
                in_the_way[journal.config_directory] = "\n".join(problems)
                say(f"warning: {in_the_way[journal.config_directory]}")
    except ChainError as error:
        if needed:
            raise
        say(f"warning: {error}")
    return in_the_way


def _print_timeline(name: str, profile: "Profile", why: str) -> None:
    from loadgen.plan import make_plan
    from loadgen.units import format_duration

    plan = make_plan(profile)
    put(f"{name}: {profile.about}")
    put(why)
    for step in plan.steps:
        rate = "" if step.rate_per_s is None else f" at {step.rate_per_s:g} msg/s"
        where = "" if profile.entries == ("front",) else f" into the {step.entry}"
        put(
            f"step {step.step + 1}: {step.concurrency} sessions{where}{rate}, warm-up {format_duration(step.warm_up_s)}, "
            f"hold {format_duration(step.hold_s)}, drain up to {format_duration(step.drain_limit_s)}"
        )
    if (wanted := profile.processes) is not None:
        levels = (
            f"levels {', '.join(map(str, wanted.levels))}" if wanted.levels else f"search up to {wanted.max} processes"
        )
        put(
            f"sweep: {levels}, {wanted.repeats} repeats, each held {format_duration(wanted.hold_s)} to "
            f"{format_duration(wanted.hold_limit_s)}"
        )
        if profile.variants is not None:
            own = ", ".join(profile.variants.own) or "none of your own"
            known = "the known mends" if profile.variants.known else "no known mends"
            put(f"variants: {known}, {own}; {profile.variants.blocks} blocks")
        return
    total = profile.runs * sum(step.warm_up_s + step.hold_s for step in plan.steps)
    times = f", {profile.runs} runs" if profile.runs > 1 else ""
    put(f"about {format_duration(total)} of load in all{times}")
