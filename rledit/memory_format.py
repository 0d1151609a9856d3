"""Images channels last: the layout in which CPUs run convolutions fastest.

Channels then lie side by side, so convolutions need not reorder what they read, and poolings run over whole
vectors. Values stay the same but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .heads import eval_mode
from .runtime import alone


@contextmanager
def channels_last(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Inside, the weights of 2d convolutions lie channels last, and so does what they make of images.

    Nothing happens on a GPU, without convolutions, or to a model that cannot do with it, such as one that
    calls ``view`` on what a convolution made. Afterwards each weight is where it was, with the values that it
    has by then, so a model may be trained inside.

    Args:
        model: any module.
        inputs: some of what it reads, [S, ...], to try it on: the first two are run, in eval mode.
    """
    before = lay_out_(model, inputs)
    try:
        yield
    finally:
        put_back_(before)


LaidOut: TypeAlias = list[tuple[nn.Parameter, Tensor, int]]
"""Weights that were laid out anew, with what held their values before, and the version of those values."""


def lay_out_(model: nn.Module, inputs: Tensor) -> LaidOut:
    """Lay the weights out as in :func:`channels_last`; give the result to :func:`put_back_`."""
    changed: LaidOut = []
    if inputs.dim() != 4 or inputs.device.type != "cpu":
        return changed
    with alone(), torch.inference_mode(False):  # or two threads would each put back what the other made
        for weight in _weights(model):
            if not weight.is_contiguous(memory_format=torch.channels_last):
                before = weight.data
                weight.data = before.contiguous(memory_format=torch.channels_last)
                changed.append((weight, before, weight._version))
    if changed and not _runs(model, inputs[:2]):
        put_back_(changed)
        return []
    return changed


def put_back_(changed: LaidOut) -> None:
    """Put weights back where they were before :func:`lay_out_`."""
    with alone(), torch.inference_mode(False):
        for weight, before, version in changed:
            if weight._version != version:  # else nothing is written: files may be mapped for reading alone
                before.copy_(weight.data)
            weight.data = before


def contiguous_(model: nn.Module) -> None:
    """Lay the weights of 2d convolutions out as torch makes them, for good."""
    for weight in _weights(model):
        weight.data = weight.data.contiguous()


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of 2d convolutions that are plain tensors in memory, each once."""
    found = {}
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weight = module._parameters.get("weight")  # not the attribute, which parametrizations compute
            if isinstance(weight, nn.Parameter) and type(weight.data) is Tensor and _is_plain(weight):
                found[id(weight)] = weight
    return list(found.values())


def _is_plain(weight: Tensor) -> bool:
    strided = weight.layout == torch.strided and weight.dim() == 4
    return strided and weight.device.type == "cpu" and not weight.is_inference()


def _runs(model: nn.Module, inputs: Tensor) -> bool:
    with torch.inference_mode(False), torch.no_grad(), eval_mode(model):
        try:
            model(inputs.clone())
        except RuntimeError:
            return False
    return True
