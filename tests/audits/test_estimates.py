"""Intervals against closed forms, published values and simulation."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from rledit.audits.estimates import Estimate, auc, balanced, hit_rate, mean, proportion, share


def test_an_estimate_is_a_float_that_keeps_its_interval() -> None:
    figure = Estimate(0.5, 0.25, 0.75)
    assert figure + 1 == 1.5
    assert Estimate(0.5).interval is None
    for other in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure))):
        assert other == 0.5
        assert other.interval == [0.25, 0.75]


def test_exact_intervals_of_shares() -> None:
    nothing = proportion(0, 1028)
    assert nothing.low == 0
    assert nothing.high == pytest.approx(1 - 0.025 ** (1 / 1028), rel=1e-9)
    everything = proportion(10, 10)
    assert everything.high == 1
    assert everything.low == pytest.approx(0.025**0.1, rel=1e-9)
    assert proportion(5, 10).interval == pytest.approx([0.1870860, 0.8129140], abs=1e-6)
    assert proportion(9000, 9982).interval == pytest.approx([0.8956126, 0.9073977], abs=1e-6)
    assert share(torch.tensor([True, False])) == 0.5
    assert math.isnan(proportion(0, 0))
    with pytest.raises(ValueError, match=r"expected 0\.\.3, got 4"):
        proportion(4, 3)


def test_students_interval() -> None:
    found = mean(torch.tensor([1.0, 2, 3, 4, 5]))
    half = 2.7764451 * math.sqrt(2.5 / 5)  # the quantile of 4 degrees of freedom
    assert found == 3
    assert found.interval == pytest.approx([3 - half, 3 + half], abs=1e-4)
    assert mean(torch.tensor([0.0, 1.0]), least=0, most=1).interval == [0, 1]
    assert mean(torch.tensor([2.0])).interval is None
    assert math.isnan(mean(torch.tensor([])))


def test_areas_count_pairs_and_half_of_the_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    positives = torch.randint(0, 9, (40,), generator=generator).double()
    negatives = torch.randint(-2, 7, (30,), generator=generator).double()
    above = positives[:, None] - negatives
    assert auc(positives, negatives) == pytest.approx(float((above.sign() + 1).mean()) / 2)
    infinite = torch.full((5,), -torch.inf)
    assert auc(infinite, infinite) == 0.5
    apart = auc(torch.arange(10.0) + 50, torch.arange(12.0))
    assert apart == apart.high == 1
    assert 0.7 < apart.low < 0.95
    assert math.isnan(auc(positives, negatives[:0]))
    with pytest.raises(ValueError, match="NaN"):
        auc(torch.tensor([math.nan]), negatives)


def test_the_interval_of_an_area_covers_it() -> None:
    generator = torch.Generator().manual_seed(1)
    true = 0.5 * (1 + math.erf(1.0 / 2))  # of normal scores, one apart
    covered = 0
    for _ in range(200):
        positives = torch.randn(25, generator=generator) + 1
        found = auc(positives, torch.randn(40, generator=generator))
        covered += found.low <= true <= found.high
    assert covered >= 182  # 190 expected


def test_true_positives_at_few_false_ones() -> None:
    negatives = torch.arange(200.0)
    # two of the 200 may pass, 199 and 198, so the threshold is 197
    assert hit_rate(torch.tensor([197.0, 197.5, 300, 0]), negatives, 0.01) == 0.5
    assert hit_rate(torch.tensor([9.0, 9.5]), torch.arange(10.0), 0.01) == 0.5  # none may


def test_the_mean_of_two_shares() -> None:
    one = proportion(50, 100)
    both = balanced(one, one)
    assert both == 0.5
    assert both.high - both == pytest.approx((one.high - one) / math.sqrt(2))
