"""Weights that are made a few rows at a time give the bits of those that are made at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rledit.ops import backend
from rledit.ops.rules import EditRule
from rledit.scoring.blocks import row_blocks
from rledit.scoring.population import Population
from rledit.scoring.simplify import Folded


def test_blocks_are_whole_and_cover_all_rows() -> None:
    weight = torch.empty(1000, 300)
    blocks = row_blocks(weight, 64 * 300 * 4)
    assert [row for rows in blocks for row in range(1000)[rows]] == list(range(1000))
    assert all(rows.start % 64 == 0 for rows in blocks)
    assert len(blocks) == 15  # the last has the 40 rows more that are no block
    assert row_blocks(weight, 1 << 20) == [slice(0, 1000)]
    assert len(row_blocks(weight, 1)) == 15  # 64 rows at least


@pytest.mark.parametrize("name", ["native", "reference"])
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("kind", ["linear", "linear, no bias", "conv", "groups"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_populations_outputs_do_not_depend_on_the_blocks(
    kind: str, world: str, name: str, own: bool, shared: bool
) -> None:
    torch.manual_seed(0)
    target: Any
    n, samples = 5, 9
    rows = samples if shared else n * samples
    if kind.startswith("linear"):
        target = nn.Linear(70, 200, bias=kind == "linear")
        x = torch.randn(rows, 70)
    else:
        target = nn.Conv2d(32, 192, 3, groups=1 if kind == "conv" else 2)
        x = torch.randn(rows, 32, 5, 5)
    outputs, inputs = target.weight.flatten(1).shape
    factors = {"target": (torch.randn(n, outputs, 2), torch.randn(n, 2, inputs))}
    weights: Mapping[str, Tensor] = {"target": torch.randn(n, outputs, inputs)} if own else {}
    before = target.weight.detach().clone()
    whole = Population(
        size=n, factors=factors, weights=weights, rule=EditRule(world), backend=backend(name),
        precision="float32", block_bytes=1 << 40,
    )  # fmt: skip
    with torch.no_grad():
        expected = whole.run("target", target, x, shared)
        for block_bytes in (1, 2 * outputs * inputs * 4):
            some = replace(whole, block_bytes=block_bytes, outputs={})
            assert torch.equal(some.run("target", target, x, shared), expected)
    assert torch.equal(target.weight, before)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_batch_norm_is_torchs_own(groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(256, 300 - 300 % groups, 3, padding=1, groups=groups, bias=bias).eval()
    norm = nn.BatchNorm2d(convolution.out_channels).eval()
    for values in (norm.weight, norm.running_var):
        nn.init.uniform_(values, 0.5, 2)
    for values in (norm.bias, norm.running_mean):
        nn.init.normal_(values)
    x = torch.randn(3, 256, 4, 4)
    with torch.no_grad():
        expected = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)(x)
        assert torch.equal(Folded(convolution, norm)(x), expected)
