"""The command `loadgen check`: what is wrong with a chain, before it is measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.errors import ExitCode
from loadgen.output import JsonOption, put, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.audit.auditing import Result
    from loadgen.audit.facts import Facts
    from loadgen.chain.spec import Chain

__all__ = ["check"]

_DOMAIN = "loadgen.test"
"""Recipient domain of the message that is followed, and of a load unless its profile says otherwise."""


def check(
    chain: Annotated[
        str, typer.Option(help="local (the Postfix and amavisd of this host), or the path of a chain file.")
    ] = "local",
    as_json: JsonOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Also list what is in order or does not apply.")] = False,
    recipient: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="ADDRESS", help="Send the message that is followed here; default: to the chain's sink."
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the chain of this host, as far as it is found, as a chain file."),
    ] = None,
) -> None:
    """Look for what is wrong with a chain's configuration, and say how to mend it; changes nothing."""
    from loadgen.audit.auditing import apply_rules, describe_results, has_errors
    from loadgen.audit.probes import find_way, probe
    from loadgen.audit.reading import read_facts

    source = _find_source(chain)
    facts = read_facts(source.directory, source.feed, source.amavis_configuration)
    if write is not None:
        _write_chain_file(chain, write, facts)
    way, why_not = find_way(facts, source.chain, source.why_no_chain, recipient)
    results = sorted([*apply_rules(facts), probe(facts, way, why_not)], key=lambda result: result.rule.id)
    if as_json:
        put(json.dumps({"directory": str(facts.directory), "rules": describe_results(results)}, indent=2))
    else:
        _print_results(results, everything=everything)
    raise typer.Exit(ExitCode.EXPECTATION_MISSED if has_errors(results) else ExitCode.OK)


@dataclass(frozen=True)
class _Source:
    """Where a chain's configuration is, and the chain as far as it is known."""

    directory: Path
    feed: str
    amavis_configuration: Path | None
    chain: "Chain | None"
    why_no_chain: str = ""


def _find_source(wanted: str) -> _Source:
    """Return where the configuration is that *wanted* means.

    Raises:
        ChainError: no Postfix here, or a chain file that does not say where it is.
    """
    from loadgen.chain import postfix
    from loadgen.chain.choice import choose_chain
    from loadgen.chain.local import find_amavis_configuration, find_local_chain
    from loadgen.errors import ChainError

    if wanted == "local":
        if postfix.find_postfix() is None:
            raise ChainError("local: no Postfix on this host; give a chain file with --chain")
        (directory,) = postfix.read_main(None, "config_directory")
        try:
            return _Source(Path(directory), "", find_amavis_configuration(), find_local_chain(_DOMAIN))
        except ChainError as error:
            return _Source(Path(directory), "", find_amavis_configuration(), None, str(error))
    found = choose_chain(wanted).chain
    if found is None:
        raise ChainError(
            f"--chain {wanted}: loadgen builds that chain itself; want local or a chain file, such as that of 'loadgen lab up'"
        )
    if found.collector is not None:
        raise ChainError(f"{wanted}: this chain is on another host (collector); run 'loadgen check' there")
    if found.postfix is None or found.postfix.config_directory is None:
        raise ChainError(f"{wanted}: its Postfix is not on this host; set postfix.config_directory")
    configuration = found.amavis.configuration if found.amavis is not None else None
    return _Source(found.postfix.config_directory, found.postfix.feed, configuration, found)


def _write_chain_file(wanted: str, path: Path, facts: "Facts") -> None:
    """Write what is found of this host's chain, and say what is not.

    Raises:
        ChainError: another chain was asked for, or there is such a file.
    """
    from loadgen.chain.local import discover, render_chain_file
    from loadgen.errors import ChainError

    if wanted != "local":
        raise ChainError(f"--write: got --chain {wanted}, want --chain local; a chain file is written already")
    known = discover(_DOMAIN, facts.hops[0].text if facts.hops else "")
    try:
        with path.open("x") as file:
            file.write(render_chain_file(known))
    except FileExistsError:
        raise ChainError(f"{path}: there is one already; choose another name, or move it away") from None
    except OSError as error:
        raise ChainError(f"{path}: {error.strerror}") from error
    say(f"written: {path}, {len(known.found)} keys")
    for key, why in known.missing.items():
        say(f"  not found: {key}: {why}")


def _print_passage(result: "Result") -> None:
    """Print what became of the message that was followed, with the log lines about it."""
    from loadgen.progress import PatientConsole
    from reports.foreign import clean_for_terminal

    console = PatientConsole()
    for one in (one for one in result.answers if one.evidence):
        console.print(f"followed {clean_for_terminal(one.where)}: {clean_for_terminal(one.found)}", highlight=False)
        for line in one.evidence:
            console.print(f"  [dim]{clean_for_terminal(line)}[/]", highlight=False, soft_wrap=True)


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
    unknown: dict[str, list[str]] = {}
    for result in (one for one in results if one.state == "unknown"):
        unknown.setdefault(result.answers[0].found, []).append(result.rule.id)
    for why, ids in unknown.items():
        console.print(f"[yellow]cannot tell[/] [bold]{', '.join(ids)}[/]: {clean_for_terminal(why)}", highlight=False)
    if everything:
        for result in (one for one in results if one.state in ("ok", "not applicable")):
            found = clean_for_terminal(result.answers[0].found) if result.answers else ""
            console.print(
                f"[dim]{result.state}[/] [bold]{result.rule.id}[/] {result.rule.title}  [dim]{found}[/]",
                highlight=False,
            )
    for result in results:
        _print_passage(result)
    counts = [f"{sum(one.severity == severity for one in shown)} {severity}" for severity in colours]
    others = [f"{sum(one.state == state for one in results)} {state}" for state in ("ok", "not applicable", "unknown")]
    console.print(f"{len(results)} rules: {', '.join(counts)}; {', '.join(others)}", highlight=False)
    if any(one.mend.startswith("postconf") for result in shown for one in result.problems):
        console.print("After mending: postfix reload", highlight=False)
