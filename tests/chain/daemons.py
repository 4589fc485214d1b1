"""A lab's daemons, changed as an administrator would: settings written, both told to reload."""

import signal
import subprocess
import time
from collections.abc import Callable

import psutil

from loadgen.chain import lab


def postconf(built: lab.Lab, *arguments: str) -> None:
    """Change the lab's Postfix configuration; in force after `reload_postfix`."""
    subprocess.run(["postconf", "-c", str(built.directory / "etc"), *arguments], check=True)


def reload_postfix(built: lab.Lab) -> None:
    """Let the lab's Postfix read its configuration again."""
    subprocess.run(["postfix", "-c", str(built.directory / "etc"), "reload"], check=True, capture_output=True)


def amavisd(built: lab.Lab) -> psutil.Process:
    """Return the lab's amavisd, the parent of its children."""
    return psutil.Process(int((built.directory / "amavis" / "amavisd.pid").read_text()))


def reload_amavisd(built: lab.Lab, settings: str) -> None:
    """Append *settings* to the daemon's configuration and wait until its children are new ones."""
    conf = built.directory / "amavisd.conf"
    conf.write_text(conf.read_text() + settings + "\n1;\n")
    master = amavisd(built)
    old = {child.pid for child in master.children()}
    master.send_signal(signal.SIGHUP)
    wait_until(lambda: bool(new := master.children()) and not old & {child.pid for child in new})
    wait_until(lambda: all("virgin" in " ".join(child.cmdline()) for child in master.children()))


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait until *condition* holds; it is nothing that tells by itself."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
