"""The command `loadgen check`: what is wrong with a chain, before it is measured."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.errors import ExitCode, UsageError
from loadgen.output import JsonOption, put, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.audit.auditing import Result
    from loadgen.audit.facts import Facts
    from loadgen.chain.local import Discovery
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

    if write is not None and chain != "local":
        raise UsageError(f"--write: got --chain {chain}, want --chain local; a chain file is written already")
    if chain == "local":
        facts, found, why_no_chain = _read_this_host(write)
    else:
        found, why_no_chain = _read_chain_file(chain), ""
        facts = read_facts(*_find_sources(chain, found))
    way, why_not = find_way(facts, found, why_no_chain, _DOMAIN, recipient)
    results = sorted([*apply_rules(facts), probe(facts, way, why_not)], key=lambda result: result.rule.id)
    if as_json:
        put(json.dumps({"directory": str(facts.directory), "rules": describe_results(results)}, indent=2))
    else:
        _print_results(results, everything=everything)
    raise typer.Exit(ExitCode.EXPECTATION_MISSED if has_errors(results) else ExitCode.OK)


def _read_this_host(write: Path | None) -> "tuple[Facts, Chain | None, str]":
    """Return what this host's configuration says, its chain, or why there is none that could be measured.

    What is found for a chain file is written to *write*.

    Raises:
        ChainError: no Postfix here, or that file cannot be written.
    """
    from loadgen.audit.reading import read_facts
    from loadgen.chain import postfix
    from loadgen.chain.local import discover, find_amavis_configuration, make_local_chain
    from loadgen.errors import ChainError

    if postfix.find_postfix() is None:
        raise ChainError("local: no Postfix on this host; give a chain file with --chain")
    (directory,) = postfix.read_main(None, "config_directory")
    facts = read_facts(Path(directory), "", find_amavis_configuration())
    known = discover(_DOMAIN, facts.hops[0].text if facts.hops else "", dict(facts.amavis))
    if facts.amavis_unread:
        known.missing["amavis.log"] = f"{facts.amavis_unread}; name its log, unless it logs to the mail log"
    if write is not None:
        _write_chain_file(write, known)
    try:
        return facts, make_local_chain(known), ""
    except ChainError as error:
        return facts, None, str(error)


def _read_chain_file(wanted: str) -> "Chain":
    """Return the chain that a chain file describes.

    Raises:
        ChainError: it is none that could be checked here.
    """
    from loadgen.chain.choice import choose_chain
    from loadgen.errors import ChainError

    found = choose_chain(wanted).chain
    if found is None:
        raise ChainError(
            f"--chain {wanted}: loadgen builds that chain itself; want local or a chain file, such as that of 'loadgen lab up'"
        )
    if found.collector is not None:
        raise ChainError(f"{wanted}: this chain is on another host (collector); run 'loadgen check' there")
    return found


def _find_sources(wanted: str, chain: "Chain") -> tuple[Path, str, Path | None]:
    """Return Postfix's directory, the feed's name and amavisd's configuration.

    Raises:
        ChainError: the file does not say where Postfix's is.
    """
    from loadgen.errors import ChainError

    if chain.postfix is None or chain.postfix.config_directory is None:
        raise ChainError(f"{wanted}: its Postfix is not on this host; set postfix.config_directory")
    configuration = chain.amavis.configuration if chain.amavis is not None else None
    return chain.postfix.config_directory, chain.postfix.feed, configuration


def _write_chain_file(path: Path, known: "Discovery") -> None:
    """Write what was found as a chain file, and say what was not.

    Raises:
        ChainError: there is such a file, or it cannot be written.
    """
    from loadgen.chain.local import render_chain_file
    from loadgen.errors import ChainError

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
        console.print(
            "After mending: postfix reload, then amavisd reload, whose open sessions are with processes of the old settings",
            highlight=False,
        )
