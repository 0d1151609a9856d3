"""The layers of a network as a run shows them: what each of them reads, and which one makes the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..heads import logits_call
from ..targets import Target, as_matrix
from .tuning import mode


def visit_inputs(
    model: nn.Module, inputs: Tensor, visit: Callable[[str, Tensor], None], batch_size: int = 100
) -> None:
    """Run a model in eval mode and show what its Linear and Conv2d layers read.

    Args:
        inputs: [S, ...].
        visit: called with the layer's name and its input [s, P, I] for each batch, in the order in which
            layers run. P is the number of places that a Linear is applied to (1 for [s, I]) or the pixels of
            a Conv2d's output, whose input is cut into patches: its output is ``input @ weight.flatten(1).T +
            bias``. Convolutions with groups are not shown.
    """
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):

            def hook(
                layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any], name: str = name
            ) -> None:
                assert isinstance(layer, nn.Linear | nn.Conv2d)
                visit(name, rows_of(layer, (*given, *named.values())[0].detach()))

            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad(), mode(model, training=False):
            for part in inputs.split(batch_size):
                model(part)
    finally:
        for handle in handles:
            handle.remove()


def rows_of(layer: Target, inputs: Tensor) -> Tensor:
    """What a layer multiplies its weight matrix with: [s, P, I]."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), -1, inputs.shape[-1])
    fill = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=fill)
    size, spread, stride = layer.kernel_size, layer.dilation, layer.stride
    return F.unfold(padded, size, dilation=spread, stride=stride).transpose(1, 2)


def find_logits_layer(model: nn.Module, inputs: Tensor) -> str | None:
    """The name of the Linear whose output the model returns as it is; None if there is no such Linear."""
    with torch.no_grad(), mode(model, training=False):
        head = logits_call(model, inputs)
    return None if head is None else head.name


def right_multiplied_(layer: Target, matrix: Tensor) -> None:
    """Replace a weight W [O, I] by ``W @ matrix`` in place; computed in float64."""
    with torch.no_grad():
        weight = as_matrix(layer.weight.detach()).double() @ matrix.double()
        layer.weight.copy_(weight.reshape(layer.weight.shape).to(layer.weight.dtype))
