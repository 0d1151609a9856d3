"""The league's statistics, on figures whose answer is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
try:
    from benchmarks.search_league import _interval, _reaches, _spread
finally:
    if str(ROOT) in sys.path:
        sys.path.remove(str(ROOT))


def test_when_a_curve_reaches_its_bar() -> None:
    curve = [(128.0, 0.1, 0.2), (256.0, 0.2, 0.5), (384.0, 0.3, 0.5)]
    assert _reaches(curve, 0.5) == 256.0
    assert _reaches(curve, 0.6) is None


def test_one_value_has_no_deviation() -> None:
    assert _spread([0.5]) == (0.5, None)
    assert _spread([0.0, 1.0]) == (0.5, pytest.approx(0.7071, abs=1e-4))


def test_intervals_are_of_whole_classes() -> None:
    """A hundred seeds of a class that all agree are one observation."""
    alike = [(label, seed, 0.01 * (label - 4.5)) for label in range(10) for seed in range(100)]
    low, high = _interval(alike) or (0.0, 0.0)
    assert low == pytest.approx(-high, abs=0.3)
    assert high == pytest.approx(100 * 1.96 * 0.0287 / 10**0.5, rel=0.1)
    assert _interval([(7, 0, 0.1)]) is None
    assert _interval([(7, 0, 0.1), (7, 1, 0.1)]) == (pytest.approx(10), pytest.approx(10))
