"""Bounds are those of Clopper and Pearson, and are violated no more often than they say."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rledit.experiments.bounds import loss_bound, lower_bound, upper_bound

SPLITS = 1000


def upper_bounds(count: int, confidence: float = 0.95) -> NDArray[np.float64]:
    """Of 0 to count hits."""
    return np.array([upper_bound(hits, count, confidence) for hits in range(count + 1)])


def chances(count: int, rate: float) -> NDArray[np.float64]:
    """Of 0 to count hits."""
    return np.array([math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(count + 1)])


@pytest.mark.parametrize("count", [1, 7, 100, 1028, 10**6])
def test_no_hits(count: int) -> None:
    assert upper_bound(0, count) == pytest.approx(1 - 0.05 ** (1 / count), rel=1e-9)
    assert lower_bound(0, count) == 0
    assert upper_bound(count, count) == 1
    assert lower_bound(count, count) == pytest.approx(0.05 ** (1 / count), rel=1e-12)


def test_what_is_known() -> None:
    assert f"{upper_bound(0, 1028):.2%}" == "0.29%"
    assert upper_bound(0, 10, 0.5) == pytest.approx(1 - 0.5**0.1)
    # One of two: 1 - p^2 = alpha.
    assert upper_bound(1, 2) == pytest.approx(math.sqrt(0.95), rel=1e-14)
    # Clopper and Pearson's own chart, 95% central: 3 of 10 gives 0.067 and 0.652.
    assert upper_bound(3, 10, 0.975) == pytest.approx(0.652, abs=5e-4)
    assert lower_bound(3, 10, 0.975) == pytest.approx(0.067, abs=5e-4)
    assert upper_bound(0, 0) == 1
    assert lower_bound(0, 0) == 0


def test_against_the_beta_distribution() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    for hits, count in [(1, 3), (5, 1000), (999, 1000), (37, 100), (9842, 10_000), (12, 9_000)]:
        for confidence in (0.5, 0.95, 0.999):
            want = stats.beta.ppf(confidence, hits + 1, count - hits)
            assert upper_bound(hits, count, confidence) == pytest.approx(want, rel=1e-9)
            want = stats.beta.ppf(1 - confidence, hits, count - hits + 1)
            assert lower_bound(hits, count, confidence) == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_a_bound_grows_with_hits_and_confidence_and_shrinks_with_samples() -> None:
    bounds = upper_bounds(40)
    assert (np.diff(bounds) > 0).all()
    assert (bounds[:-1] > np.arange(40) / 40).all()
    assert upper_bound(3, 40, 0.99) > bounds[3] > upper_bound(6, 80)


@pytest.mark.parametrize("count", [5, 40, 103])
def test_the_exact_share_of_samples_that_violate_a_bound(count: int) -> None:
    bounds = upper_bounds(count)
    worst = 0.0
    for rate in [*np.linspace(0.001, 0.999, 400), *(bounds[:-1] + 1e-9), *(bounds[:-1] - 1e-9)]:
        worst = max(worst, float(chances(count, rate)[bounds < rate].sum()))
    assert worst <= 0.05 + 1e-9
    assert worst > 0.0499  # just above a bound: no smaller one would do


def by_chance(share: float) -> float:
    """What a share may come to in so many splits."""
    return share + 3 * math.sqrt(share * (1 - share) / SPLITS)


@pytest.mark.parametrize("rate", [0.0005, 0.003, 0.02, 0.5, 0.98])
def test_resampled_splits(rate: float) -> None:
    hits = np.random.default_rng(0).binomial(1028, rate, SPLITS)
    bounds = {k: upper_bound(k, 1028) for k in set(hits.tolist())}
    assert np.mean([bounds[k] < rate for k in hits.tolist()]) <= by_chance(0.05)


@pytest.mark.parametrize("wrong", [30, 200, 2500])
def test_resampled_splits_of_a_finite_population(wrong: int) -> None:
    """Drawn without replacement, as a test split is: exactly, and so many times."""
    population, count = 10_000, 1000
    hits = np.random.default_rng(1).hypergeometric(wrong, population - wrong, count, SPLITS)
    bounds = {k: upper_bound(k, count) for k in range(int(hits.max()) + 1)}
    violating = [k for k, bound in bounds.items() if bound < wrong / population]
    ways = sum(math.comb(wrong, k) * math.comb(population - wrong, count - k) for k in violating)
    exact = float(Fraction(ways, math.comb(population, count)))
    assert exact < 0.045
    assert np.isin(hits, violating).mean() <= by_chance(exact)


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.008), (0.002, 0.0), (0.05, 0.06)])
def test_resampled_losses(lost: float, gained: float) -> None:
    counts = np.random.default_rng(2).multinomial(300, [lost, gained, 1 - lost - gained], SPLITS)
    bounds = {(a, b): loss_bound(a, b, 300) for a, b in {(a, b) for a, b, _ in counts.tolist()}}
    assert np.mean([bounds[a, b] < lost - gained for a, b, _ in counts.tolist()]) <= 0.05


def test_a_loss() -> None:
    assert loss_bound(0, 0, 100) == pytest.approx(1 - 0.025**0.01)
    assert loss_bound(0, 50, 100) < -0.3
    assert loss_bound(3, 2, 1000) > 0.001
    assert loss_bound(0, 0, 0) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 10), "hits"),
        ((11, 10), "hits: expected at most the count 10, got 11"),
        ((1.5, 10), "hits"),
        ((1, -1), "count"),
        ((1, 10, 1.0), "confidence"),
        ((1, 10, 0.0), "confidence"),
        ((1, 10, math.nan), "confidence"),
    ],
)
def test_wrong_numbers(arguments: tuple[Any, ...], message: str) -> None:
    for bound in (upper_bound, lower_bound):
        with pytest.raises(ValueError, match=message):
            bound(*arguments)


def test_wrong_losses() -> None:
    with pytest.raises(ValueError, match="lost, gained"):
        loss_bound(6, 5, 10)
    with pytest.raises(ValueError, match="gained"):
        loss_bound(1, -5, 10)
