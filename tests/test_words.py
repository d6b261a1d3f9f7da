from __future__ import annotations

import pytest

from layertap.words import aligned, counted, in_bytes, rate, scaled


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (1536, "1.54 kB"),
        (99_949, "99.9 kB"),
        (99_951, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (17_160_000, "17.2 MB"),
        (8 << 30, "8.59 GB"),
        (5e18, "5,000 PB"),
    ],
)
def test_sizes_have_three_digits(count, text):
    assert in_bytes(count) == text


def test_other_units():
    assert scaled(43_400_000_000, ("FLOP", "kFLOP", "MFLOP", "GFLOP")) == "43.4 GFLOP"


def test_counts_and_rates():
    assert [counted(count, "text") for count in (0, 1, 2000)] == ["0 texts", "1 text", "2,000 texts"]
    assert [rate(count, 2, "text") for count in (5, 19.8, 2500)] == ["2.5 texts/s", "9.9 texts/s", "1,250 texts/s"]
    assert [rate(count, 3600, "text") for count in (3600, 450, 20, 0)] == [
        "1.0 texts/s",
        "7.5 texts/min",
        "20 texts/h",
        "0.0 texts/h",
    ]


def test_columns_are_as_wide_as_their_widest_cells():
    assert aligned([("a", "1", "x"), ("bcd", "100", "")]) == ["  a    1    x", "  bcd  100"]
    assert aligned([("a", "1"), ("bcd", "100")], indent="", right=[1]) == ["a      1", "bcd  100"]
    assert aligned([]) == []
