"""Microbenchmark of the search for identity terms: ``pytest benchmarks/test_comments.py`` (a few seconds)."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from rledit.zoo.data import find_identities

TEXT = "It is a long way from here to there, and a black cat, some teenage dogs and a bird are on it. "


def test_find_identities(benchmark: BenchmarkFixture) -> None:
    texts = [f"{TEXT}{i}" * 3 for i in range(20_000)]  # a second on two slow cores
    masks = benchmark.pedantic(find_identities, (texts,), rounds=3)
    assert bool(masks["teenage"].all())
