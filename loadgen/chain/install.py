"""What the lab needs on Debian, and how it is installed without questions and without starting services.

Postfix is preseeded with "No configuration": the package then neither writes
a main.cf nor delivers this host's mail. Nothing is run here unless asked to.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from loadgen.chain import amavis, postfix, submission
from loadgen.errors import ChainError

__all__ = ["Command", "plan_commands", "run_commands"]

_SELECTION = "postfix postfix/main_mailer_type select No configuration\n"


@dataclass(frozen=True)
class Command:
    """One command, with what goes to its standard input."""

    arguments: tuple[str, ...]
    given: str = ""

    def describe(self) -> str:
        """Return it as one would type it."""
        text = " ".join(self.arguments)
        return f"echo '{self.given.strip()}' | {text}" if self.given else text


def plan_commands() -> list[Command]:
    """Return the commands that install what is missing; empty when nothing is.

    Raises:
        ChainError: this is not a Debian with apt-get.
    """
    packages = [
        package
        for package, found in (
            ("postfix", postfix.find_postfix()),
            ("amavisd-new", amavis.find_amavisd()),
            ("spamassassin", amavis.spamassassin_version()),
        )
        if found is None
    ]
    packages += submission.find_missing()
    if not packages:
        return []
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise ChainError(f"no apt-get here; install {', '.join(packages)} with this system's own means")
    commands = [Command(("apt-get", "update"))]
    if "postfix" in packages:
        commands.append(Command(("debconf-set-selections",), _SELECTION))
    commands.append(Command(("apt-get", "install", "--yes", "--no-install-recommends", *packages)))
    return commands


def run_commands(commands: list[Command]) -> None:
    """Run *commands* in order.

    Raises:
        ChainError: not root, or one of them fails; it says which.
    """
    if os.geteuid() != 0:
        raise ChainError("installing packages needs root; run 'sudo loadgen lab install', or the commands of --dry-run")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in commands:
        result = subprocess.run(command.arguments, input=command.given, text=True, env=environment, check=False)
        if result.returncode:
            raise ChainError(f"{command.describe()}: exit {result.returncode}; mend what it says above, then try again")
