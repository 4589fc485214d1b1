import pytest

from loadgen.errors import ExitCode, SafetyError, UnreachableError
from loadgen.safety import check_domain, resolve_target


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.9", "192.168.1.1", "fd00::1", "fe80::1", "localhost"]
)
def test_loopback_and_private_addresses_are_targets(host: str) -> None:
    assert resolve_target(host, 25)


@pytest.mark.parametrize("host", ["8.8.8.8", "172.32.0.1", "192.0.2.1", "2001:db8::1", "0.0.0.0", "224.0.0.1"])
def test_any_other_address_is_refused_with_its_own_exit_code(host: str) -> None:
    with pytest.raises(SafetyError, match="neither a loopback nor a private address") as caught:
        resolve_target(host, 25)

    assert caught.value.exit_code == ExitCode.REFUSED_FOR_SAFETY


def test_address_named_in_the_chain_file_is_a_target() -> None:
    assert resolve_target("8.8.8.8", 25, allowed=("8.8.8.8",)) == "8.8.8.8"


def test_name_without_address_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match=r"nowhere\.invalid:25"):
        resolve_target("nowhere.invalid", 25)


@pytest.mark.parametrize("domain", ["loadgen.test", "a.b.example", "example.com", "X.EXAMPLE.ORG", "foo.invalid."])
def test_reserved_domains_may_get_mail(domain: str) -> None:
    check_domain(domain, "recipient")


@pytest.mark.parametrize("domain", ["localhost", "gmail.com", "notexample.com", "test.de", "example.com.de"])
def test_other_domains_are_refused(domain: str) -> None:
    with pytest.raises(SafetyError, match=f"recipient domain {domain}"):
        check_domain(domain, "recipient")


def test_domain_named_in_the_chain_file_may_get_mail() -> None:
    check_domain("loadtest.firma.de", "recipient", allowed=("LoadTest.Firma.de",))
