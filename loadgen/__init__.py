"""Load-test a mail chain to the last delivery.

The package drives load and records what happened; `reports` reads what it
recorded. README.md has the map of the rooms.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("loadgen")
