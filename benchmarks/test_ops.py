"""Microbenchmarks of the ops: ``pytest benchmarks/test_ops.py`` (two minutes at most)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from rledit import _native, ops

S, I, O, C, N, R = 10_000, 128, 32, 10, 64, 4  # noqa: E741 - the paper's layer, in the design's letters


@pytest.fixture(params=_native.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.active_isa()
    _native.select_isa(request.param)
    yield request.param
    _native.select_isa(before)


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_score_tail(benchmark: BenchmarkFixture, isa: str, world: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, C, (S,))
    arguments = (
        torch.randn(S, I).relu(), [torch.randn(O, I), torch.randn(C, O)], [torch.randn(O), torch.randn(C)],
        ["relu", "identity"], labels, torch.stack([labels == 7, labels != 7]),
        [torch.randn(N, O, R), None], [torch.randn(N, R, I), None], world, 0.1, "float32", ["correct"],
    )  # fmt: skip
    benchmark(ops.score_tail, *arguments)


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_apply_lowrank(benchmark: BenchmarkFixture, isa: str, world: str) -> None:
    torch.manual_seed(0)
    weight, left, right = torch.randn(256, O, I), torch.zeros(256, O, R), torch.randn(256, R, I)
    benchmark(ops.apply_lowrank_, weight, left, right, world, 0.1)


def test_tally_logits(benchmark: BenchmarkFixture, isa: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, C, (S,))
    groups = torch.stack([labels == 7, labels != 7])
    benchmark(ops.tally_logits, torch.randn(16, S, C), labels, groups, ["correct", "loss"])
