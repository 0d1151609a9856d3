"""The sample that make test takes of many parameters has all pairs of them."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from pairwise import covering, pairwise


@pytest.mark.parametrize("sizes", [(3, 2), (7, 2, 2, 2), (4, 1, 3), (5, 4, 3, 2)])
def test_a_sample_has_every_pair_of_values(sizes: tuple[int, ...]) -> None:
    rows = list(product(*map(range, sizes)))
    kept = covering(rows)
    for (i, m), (j, n) in combinations(enumerate(sizes), 2):
        assert {(row[i], row[j]) for row in kept} == set(product(range(m), range(n)))
    assert kept == covering(rows)
    first, second = sorted(sizes)[-2:]
    assert first * second <= len(kept) <= 1.5 * first * second


def test_the_rest_is_exhaustive() -> None:
    names, rows = pairwise(world=["shift", "mask"], size=[1, 2, 3], half=[True, False]).args
    assert names == ("world", "size", "half")
    assert len({row.values for row in rows}) == 12
    assert sum(not row.marks for row in rows) == 6
    assert {mark.name for row in rows for mark in row.marks} == {"exhaustive"}
