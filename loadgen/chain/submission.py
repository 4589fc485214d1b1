"""The lab's submission service: STARTTLS with a certificate of its own, and AUTH with one account.

Postfix asks Cyrus SASL, whose accounts are in a small database that only this
lab has. Without the programs that make certificate and database a lab has no such service.
"""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from loadgen.chain.spec import Address, Login
from loadgen.errors import ChainError

__all__ = ["DIRECTORY", "describe_service", "find_missing", "prepare"]

DIRECTORY = "submission"
"""Below a lab's own."""

_SASL = "etc/sasl"
"""Where Debian's Postfix looks, whatever cyrus_sasl_config_path says: beside its own configuration."""
_REALM = "lab.test"
_USERNAME = "loadgen"
_PLUGINS = Path("/usr/lib")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


def find_missing() -> list[str]:
    """Return the packages without which a lab has no submission service; empty when it can have one."""
    missing = [
        package
        for package, program in (("openssl", "openssl"), ("sasl2-bin", "saslpasswd2"))
        if shutil.which(program, path=_PATH) is None
    ]
    if not any(_PLUGINS.glob("**/sasl2/libplain.so*")):
        missing.append("libsasl2-modules")
    return missing


def prepare(directory: Path) -> Login:
    """Make certificate, account and SASL's configuration below the lab's *directory*, and return the account.

    Postfix's configuration is there already.

    Raises:
        ChainError: one of the programs fails.
    """
    place = directory / DIRECTORY
    place.mkdir()
    _run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650",
         "-subj", "/CN=mx.lab.test", "-keyout", str(place / "key.pem"), "-out", str(place / "certificate.pem")]
    )  # fmt: skip
    password, accounts = place / "password", place / "accounts.db"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24) + "\n")
    _run(["saslpasswd2", "-p", "-c", "-f", str(accounts), "-u", _REALM, _USERNAME], password.read_text().strip())
    shutil.chown(accounts, "postfix")
    (directory / _SASL).mkdir()
    (directory / _SASL / "smtpd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {accounts}\n"
    )
    return Login(username=_USERNAME, password_file=password)


def describe_service(directory: Path, address: Address, *more: str) -> str:
    """Return the lines of master.cf, with *more* options: only who has logged in over TLS may send."""
    place = directory / DIRECTORY
    options = (
        "smtpd_tls_security_level=encrypt",
        f"smtpd_tls_cert_file={place / 'certificate.pem'}",
        f"smtpd_tls_key_file={place / 'key.pem'}",
        "smtpd_sasl_auth_enable=yes",
        "smtpd_tls_auth_only=yes",
        f"smtpd_sasl_local_domain={_REALM}",
        "smtpd_sasl_path=smtpd",
        f"cyrus_sasl_config_path={directory / _SASL}",
        "smtpd_client_restrictions=permit_sasl_authenticated,reject",
        "smtpd_relay_restrictions=permit_sasl_authenticated,reject",
        *more,
    )
    return f"{address} inet n - n - - smtpd\n" + "".join(f"    -o {option}\n" for option in options)


def _run(command: list[str], given: str = "") -> None:
    result = subprocess.run(
        command, input=given, capture_output=True, text=True, env={**os.environ, "PATH": _PATH}, timeout=60, check=False
    )
    if result.returncode:
        raise ChainError(f"{command[0]}: exit {result.returncode}: {result.stderr.strip()[-300:]}")
