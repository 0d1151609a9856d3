"""Layers by blocks of their outputs, so that weights that are made for one call take little memory.

A block has about a megabyte and a multiple of 64 rows, as the blocks of torch's own products have: the sums
of some rows are added up like those of all, and give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

BLOCK_BYTES = 1 << 20
"""Bytes of a block of a weight; a weight of up to two blocks stays whole."""
ROWS = 64


def row_blocks(weight: Tensor, most: int = BLOCK_BYTES) -> list[slice]:
    """Rows of a float32 weight [O, ...] that are made at a time: all, where it is small or on a GPU."""
    outputs = weight.shape[0]
    row_bytes = 4 * weight.numel() // outputs
    step = max(most // row_bytes // ROWS, 1) * ROWS
    if weight.device.type != "cpu" or outputs * row_bytes <= 2 * most:
        return [slice(0, outputs)]
    starts = list(range(0, outputs, step))
    if outputs - starts[-1] < ROWS and len(starts) > 1:  # torch has other products for a few rows
        del starts[-1]
    return [slice(*ends) for ends in zip(starts, [*starts[1:], outputs], strict=True)]


def by_blocks(blocks: list[slice], dim: int, outputs: Callable[[slice], Tensor]) -> Tensor:
    """The outputs of all rows, side by side in dimension ``dim``."""
    if len(blocks) == 1:
        return outputs(blocks[0])
    return torch.cat([outputs(rows) for rows in blocks], dim)


def bias_rows(bias: Tensor | None, rows: slice) -> Tensor | None:
    """The rows of a bias [O]; None without a bias."""
    return None if bias is None else bias[rows]


def convolve(
    layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, rows_of: Callable[[slice], Tensor]
) -> Tensor:
    """The layer's output with other weights, a block of them at a time. Its ``_conv_forward`` knows the
    padding modes.

    Args:
        weight: a weight of the shape of these.
        rows_of: rows -> some of the weights.
    """
    blocks = row_blocks(weight) if layer.groups == 1 else [slice(None)]
    return by_blocks(blocks, 1, lambda rows: layer._conv_forward(x, rows_of(rows), bias_rows(bias, rows)))
