import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("250ms", 0.25, id="milliseconds"),
        pytest.param("90s", 90.0, id="seconds"),
        pytest.param("1.5min", 90.0, id="fractions-of-a-minute"),
        pytest.param("2h", 7200.0, id="hours"),
    ],
)
def test_duration_with_a_unit_becomes_seconds(text: str, want: float) -> None:
    assert parse_duration(text) == want


@pytest.mark.parametrize("text", ["90", "s", "-3s", "3 days", "1e3s", ""])
def test_duration_without_a_known_unit_says_what_it_wants(text: str) -> None:
    with pytest.raises(ValueError, match='want a duration with a unit .* such as "90s"'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "want"), [("512B", 512), ("4kB", 4000), ("4KiB", 4096), ("1.5MiB", 1572864), ("1GB", 10**9)]
)
def test_size_with_a_unit_becomes_bytes(text: str, want: int) -> None:
    assert parse_size(text) == want


@pytest.mark.parametrize("text", ["4096", "4K", "-1B", "KiB"])
def test_size_without_a_known_unit_says_what_it_wants(text: str) -> None:
    with pytest.raises(ValueError, match="want a size with a unit"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        (0.85, "850 ms"),
        (12.5, "12.5 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (float("inf"), "-"),
    ],
)
def test_duration_reads_like_a_person_would_write_it(seconds: float, want: str) -> None:
    assert format_duration(seconds) == want


@given(st.floats(min_value=0, max_value=1e9))
def test_any_duration_can_be_formatted(seconds: float) -> None:
    assert format_duration(seconds).split()[-1] in ("ms", "s", "min", "h")


@pytest.mark.parametrize(("size", "want"), [(512, "512 B"), (4096, "4.0 KiB"), (3 << 30, "3.0 GiB")])
def test_size_is_given_in_the_unit_that_fits(size: int, want: str) -> None:
    assert format_size(size) == want
