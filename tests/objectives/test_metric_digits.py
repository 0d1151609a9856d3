"""Numbers for people: as many digits as the interval allows, and none for what is unknown."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rledit.objectives.metric_digits import amount, change, places, rounded, with_interval


@pytest.mark.parametrize(
    ("key", "value", "interval", "text"),
    [
        ("bpsn_auc", 0.8312, (0.8112, 0.8512), "0.831 [0.811, 0.851]"),
        ("bpsn_auc", 0.99971, (0.99951, 0.99991), "0.99971 [0.99951, 0.99991]"),
        ("bpsn_auc", 0.5, (0.2, 0.8), "0.50 [0.20, 0.80]"),
        ("fped", 14.7327, (12.1, 17.4), "14.7 [12.1, 17.4]"),
        ("fped", 147.327, (121.4, 174.2), "147 [121, 174]"),
        ("accuracy", 0.85904, (0.83904, 0.87904), "85.9% [83.9, 87.9]"),
        ("false_positive_rate", 0.41, (0.21, 0.61), "41% [21, 61]"),
        ("bpsn_auc", 0.8312, None, "0.8312"),
        ("bpsn_auc", 0.8312, (None, None), "0.8312"),
        ("bpsn_auc", 0.8312, (math.nan, 1.0), "0.8312"),
        ("bpsn_auc", 1.0, (1.0, 1.0), "1.0000 [1.0000, 1.0000]"),
        ("bpsn_auc", None, (0.1, 0.2), "n/a"),
        ("bpsn_auc", math.nan, None, "n/a"),
        ("my_figure", 3.14159, (3.0, 3.4), "3.14 [3.00, 3.40]"),
        ("my_figure", 3.14159, None, "3.142"),
    ],
)
def test_two_significant_digits_of_the_interval(key: str, value: Any, interval: Any, text: str) -> None:
    assert with_interval(key, value, interval) == text


def test_half_widths_that_round_up_to_the_next_power() -> None:
    assert places("bpsn_auc", (0.0, 2 * 0.0996)) == 2
    assert places("bpsn_auc", (0.0, 2 * 0.0994)) == 3
    assert places("bpsn_auc", (0.0, 1e-12)) == 6
    assert places("fped", (0.0, 1e9)) == 0


def test_units() -> None:
    assert with_interval("accuracy", 0.859, (0.839, 0.879), unit=False) == "85.9 [83.9, 87.9]"
    assert rounded("accuracy", 0.859, (0.839, 0.879)) == "85.9%"
    assert amount("accuracy", 0.005) == "0.50 points"
    assert amount("accuracy", 0.005, (-0.005, 0.015)) == "0.5 points [-0.5, 1.5]"
    assert amount("bpsn_auc", 0.005) == "0.0050"
    assert amount("bpsn_auc", None) == "n/a"
    assert amount("bpsn_auc", 0.2762, like=(0.70, 0.74)) == "0.276"
    assert amount("bpsn_auc", 0.2762, (0.1762, 0.3762), like=(0.70, 0.74)) == "0.28 [0.18, 0.38]"


@pytest.mark.parametrize(
    ("key", "value", "interval", "text"),
    [
        ("bpsn_auc", 0.2762, (0.2562, 0.2962), "+0.276 [0.256, 0.296]"),
        ("bpsn_auc", -0.2762, (-0.2962, -0.2562), "-0.276 [-0.296, -0.256]"),
        ("accuracy", 0.012, (0.002, 0.022), "+1.2 points [0.2, 2.2]"),
        ("accuracy", 0.0, None, "+0.00 points"),
        ("fped", None, None, "n/a"),
    ],
)
def test_changes_have_signs(key: str, value: Any, interval: Any, text: str) -> None:
    assert change(key, value, interval) == text
