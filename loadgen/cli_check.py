"""The command `loadgen check`: what is wrong with a chain, before it is measured."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.errors import ExitCode
from loadgen.output import JsonOption, put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.audit.auditing import Result

__all__ = ["check"]


def check(
    chain: Annotated[
        str, typer.Option(help="local (the Postfix and amavisd of this host), or the path of a chain file.")
    ] = "local",
    as_json: JsonOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Also list what is in order or does not apply.")] = False,
) -> None:
    """Look for what is wrong with a chain's configuration, and say how to mend it; changes nothing."""
    from loadgen.audit.auditing import apply_rules, describe_results, has_errors
    from loadgen.audit.probes import probe_ports
    from loadgen.audit.reading import read_facts

    directory, feed, amavis_configuration = _find_sources(chain)
    facts = read_facts(directory, feed, amavis_configuration)
    results = sorted([*apply_rules(facts), probe_ports(facts)], key=lambda result: result.rule.id)
    if as_json:
        put(json.dumps({"directory": str(facts.directory), "rules": describe_results(results)}, indent=2))
    else:
        _print_results(results, everything=everything)
    raise typer.Exit(ExitCode.EXPECTATION_MISSED if has_errors(results) else ExitCode.OK)


def _find_sources(chain: str) -> tuple[Path, str, Path | None]:
    """Return Postfix's directory, the feed's name and amavisd's configuration.

    Raises:
        ChainError: no Postfix here, or a chain file that does not say where it is.
    """
    from loadgen.chain import postfix
    from loadgen.chain.choice import choose_chain
    from loadgen.chain.local import find_amavis_configuration
    from loadgen.errors import ChainError

    if chain == "local":
        if postfix.find_postfix() is None:
            raise ChainError("local: no Postfix on this host; give a chain file with --chain")
        (directory,) = postfix.read_main(None, "config_directory")
        return Path(directory), "", find_amavis_configuration()
    found = choose_chain(chain).chain
    if found is None:
        raise ChainError(
            f"--chain {chain}: loadgen builds that chain itself; want local or a chain file, such as that of 'loadgen lab up'"
        )
    if found.postfix is None or found.postfix.config_directory is None:
        raise ChainError(f"{chain}: its Postfix is not on this host; set postfix.config_directory")
    configuration = found.amavis.configuration if found.amavis is not None else None
    return found.postfix.config_directory, found.postfix.feed, configuration


def _print_results(results: "Sequence[Result]", *, everything: bool) -> None:
    from loadgen.progress import PatientConsole
    from reports.foreign import clean_for_terminal

    console = PatientConsole()
    colours = {"error": "red", "warning": "yellow", "information": "cyan"}
    shown = [result for result in results if result.problems]
    for severity, colour in colours.items():
        for result in (one for one in shown if one.severity == severity):
            rule = result.rule
            guide = f" (guide {rule.section})" if rule.section else " (not in the guide)"
            console.print(f"[{colour}]{severity}[/] [bold]{rule.id}[/] should be: {rule.title}{guide}", highlight=False)
            for one in result.problems:
                console.print(
                    f"  found {clean_for_terminal(one.found)}  [dim]{clean_for_terminal(one.where)}[/]", highlight=False
                )
                console.print(f"  want  {clean_for_terminal(one.want)}", highlight=False)
                console.print(f"  mend  {clean_for_terminal(one.mend)}", highlight=False, soft_wrap=True)
            console.print(f"  why   {rule.why}", highlight=False)
    for result in (one for one in results if one.state == "unknown"):
        console.print(
            f"[yellow]cannot tell[/] [bold]{result.rule.id}[/] {result.rule.title}: {clean_for_terminal(result.answers[0].found)}",
            highlight=False,
        )
    if everything:
        for result in (one for one in results if one.state in ("ok", "not applicable")):
            found = clean_for_terminal(result.answers[0].found) if result.answers else ""
            console.print(
                f"[dim]{result.state}[/] [bold]{result.rule.id}[/] {result.rule.title}  [dim]{found}[/]",
                highlight=False,
            )
    counts = [f"{sum(one.severity == severity for one in shown)} {severity}" for severity in colours]
    others = [f"{sum(one.state == state for one in results)} {state}" for state in ("ok", "not applicable", "unknown")]
    console.print(f"{len(results)} rules: {', '.join(counts)}; {', '.join(others)}", highlight=False)
    if any(one.mend.startswith("postconf") for result in shown for one in result.problems):
        console.print("After mending: postfix reload", highlight=False)
