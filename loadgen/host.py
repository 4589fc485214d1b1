"""Facts about this machine, the software on it and the settings of its chain, recorded with every run."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil

from loadgen import __version__
from loadgen.chain import amavis, postfix
from loadgen.chain.spec import Chain
from loadgen.errors import ChainError

__all__ = ["describe_chain_host", "describe_host", "describe_software"]


def describe_chain_host(chain: Chain) -> dict[str, Any]:
    """Return `host`, `software`, `settings` and `unread` (why settings could not be read) of *chain*, which is on this host."""
    settings, unread = _read_settings(chain)
    return {
        "host": describe_host(chain.postfix.queue_directory if chain.postfix is not None else None),
        "software": describe_software(real_chain=chain.kind != "reference"),
        "settings": settings,
        "unread": unread,
    }


def describe_host(queue_directory: Path | None) -> dict[str, object]:
    """Return the facts that decide how fast a chain on this host can be; *queue_directory* names its disk."""
    facts: dict[str, object] = {
        "hostname": platform.node(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _cpu_model(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    if queue_directory is not None and (mount := _find_mount(queue_directory)) is not None:
        facts["queue_filesystem"] = mount.fstype
        facts["disk"] = mount.device
    return facts


def describe_software(*, real_chain: bool) -> dict[str, str]:
    """Return name to version of what took part; the mail software only where it did."""
    software = {"loadgen": __version__, "locust": importlib.metadata.version("locust")}
    if real_chain:
        found = {
            "postfix": postfix.postfix_version(),
            "amavisd": amavis.amavisd_version(),
            "spamassassin": amavis.spamassassin_version(),
        }
        software |= {name: version for name, version in found.items() if version}
    return software


def _read_settings(chain: Chain) -> tuple[dict[str, str], str]:
    """Return the configuration texts, or why they cannot be read; the measurement is possible without."""
    directory = chain.postfix.config_directory if chain.postfix is not None else None
    texts: dict[str, str] = {}
    try:
        if directory is not None:
            texts = postfix.read_settings(directory)
        if chain.amavis is not None and (configuration := chain.amavis.configuration) is not None:
            files = sorted(configuration.iterdir()) if configuration.is_dir() else [configuration]
            texts["amavisd.conf"] = "\n".join(file.read_text(errors="replace") for file in files)
    except (ChainError, OSError) as error:
        return texts, str(error)
    return texts, ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _find_mount(path: Path) -> "psutil._ntuples.sdiskpart | None":
    """Return the mount that *path* is on."""
    mounts = [m for m in psutil.disk_partitions(all=True) if path.is_relative_to(m.mountpoint)]
    return max(mounts, key=lambda m: len(m.mountpoint), default=None)
