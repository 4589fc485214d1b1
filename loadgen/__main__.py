"""Make `python -m loadgen` the same as `loadgen`."""

from loadgen.cli import main

main()
