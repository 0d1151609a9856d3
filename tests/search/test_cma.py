"""CMA-ES: what is drawn is what the package would draw, and what it learns is kept whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from editing_tasks import make_task

import rledit
from rledit.search import cma

cmaes = pytest.importorskip("cmaes")

pytestmark = pytest.mark.usefixtures("one_thread")

SEARCHES = {"sep": (rledit.SepCMAES, "SepCMA"), "full": (rledit.CMAES, "CMA")}


@pytest.mark.parametrize("name", SEARCHES)
def test_it_draws_and_adapts_as_the_package_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same normal numbers the package's own ask and tell give the same."""
    ours, theirs = SEARCHES[name]
    search = ours(rledit.ShiftWorld(make_task(), num_envs=8, rank=1))
    start = search.optimizer.mean.copy()
    package = getattr(cmaes, theirs)(mean=start, sigma=search.sigma, population_size=8, seed=3)
    numbers = np.random.RandomState(3)
    monkeypatch.setattr(
        search, "noise", lambda rows, columns, dtype: torch.from_numpy(numbers.randn(rows, columns))
    )
    slope = np.linspace(-1, 1, search.dimensions)
    for _ in range(5):
        asked = search.ask().double().numpy()
        expected = np.stack([package.ask() for _ in range(8)])
        np.testing.assert_allclose(asked, expected, rtol=1e-5, atol=1e-5)
        search.tell(torch.from_numpy(expected @ slope))
        package.tell([(vector, float(-(vector @ slope))) for vector in expected])
        np.testing.assert_allclose(search.optimizer.mean, package.mean, rtol=1e-7, atol=1e-9)


def test_too_many_dimensions_for_a_covariance_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    env = rledit.ShiftWorld(make_task(), num_envs=8, rank=2)
    monkeypatch.setattr(cma, "MOST_DIMENSIONS", 27)
    with pytest.raises(ValueError, match=r"at most 27 entries .* got 28\. SepCMAES or ES takes any number"):
        rledit.CMAES(env)
    rledit.SepCMAES(env)
    monkeypatch.setattr(cma, "MOST_DIMENSIONS", 28)
    rledit.CMAES(env)
    monkeypatch.setattr(cma, "MOST_NUMBERS", 8 * 27 * 27)
    with pytest.raises(ValueError, match="at most 27 entries"):
        rledit.CMAES(env)
