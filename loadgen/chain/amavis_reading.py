"""What an amavisd is set to, as it evaluates its own configuration: Perl that only Perl can read."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from loadgen.chain import amavis

__all__ = ["read_amavis"]

_VARIABLES = (
    "max_servers", "max_requests", "child_timeout", "smtpd_timeout", "inet_socket_port", "inet_socket_bind", "forward_method",
    "notify_method", "soft_bounce", "sa_local_tests_only", "log_level", "do_syslog", "logfile", "pid_file",
)  # fmt: skip
_LISTS = (
    "bypass_virus_checks_maps", "bypass_spam_checks_maps", "bypass_banned_checks_maps", "bypass_header_checks_maps",
    "inet_acl", "mynetworks",
)  # fmt: skip
_DEBIAN = (Path("/usr/share/amavis/conf.d"), Path("/etc/amavis/conf.d"))
"""Read in this order by Debian's amavisd when it is given no file."""

_TELL = """\
package Amavis::Conf;
no strict;
require JSON::PP;
sub loadgen_plain {{
  my($value, $depth) = @_;
  return $value if !ref $value;
  return [map {{ loadgen_plain($_, $depth + 1) }} @$value] if ref $value eq 'ARRAY' && $depth < 4;
  return loadgen_plain($$value, $depth + 1) if (ref $value eq 'SCALAR' || ref $value eq 'REF') && $depth < 4;
  return ref $value;
}}
my %told;
for my $name (qw({variables})) {{ $told{{$name}} = loadgen_plain(${{"Amavis::Conf::$name"}}, 0) }}
for my $name (qw({lists})) {{ $told{{$name}} = loadgen_plain(\\@{{"Amavis::Conf::$name"}}, 0) }}
open(my $loadgen_out, '>', '{path}') or die "{path}: $!";
print $loadgen_out JSON::PP->new->allow_nonref->encode(\\%told);
close $loadgen_out;
exit 0;
"""
"""Read by amavisd as the last of its configuration files: writes down what the others have set, and ends there."""


def read_amavis(configuration: Path | None) -> tuple[dict[str, Any], str]:
    """Return variables of amavisd's configuration as it evaluates them itself, or none and why.

    *configuration* is its file, Debian's directory, or None where it is not known.
    """
    program = amavis.find_amavisd()
    if program is None:
        return {}, "amavisd is not installed on this host"
    if os.geteuid() != 0:
        return {}, "amavisd reads no file of the user that asks it, so only root can ask"
    if configuration is None:
        return {}, "amavisd's configuration is not known; name amavis.configuration in the chain file"
    if configuration.is_dir():
        directories = [*(one for one in _DEBIAN if one != configuration and configuration in _DEBIAN), configuration]
        files = [
            file
            for one in directories
            if one.is_dir()
            for file in sorted(one.iterdir())
            if re.match(r"^[\w-]+$", file.name)
        ]
    else:
        files = [configuration]
    with tempfile.TemporaryDirectory(prefix="loadgen-audit-") as place:
        told, ask = Path(place) / "told.json", Path(place) / "ask.conf"
        ask.write_text(_TELL.format(variables=" ".join(_VARIABLES), lists=" ".join(_LISTS), path=told))
        ask.chmod(0o644)
        # what amavisd runs as later must not matter: it ends before it becomes somebody else
        command = [program, *(word for file in [*files, ask] for word in ("-c", str(file))), "test-config"]
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=60,
            check=False,
        )
        if not told.is_file():
            said = (result.stderr or result.stdout).strip().splitlines()
            return {}, f"amavisd cannot read {configuration}: {said[-1] if said else f'exit {result.returncode}'}"
        values: dict[str, Any] = json.loads(told.read_text())
        return values, ""
