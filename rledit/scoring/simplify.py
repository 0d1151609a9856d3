"""Take work out of a suffix that runs thousands of times: fold batch norms, and apply ReLUs in place."""

from __future__ import annotations

import operator
from collections.abc import Collection

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..targets import is_altered
from .blocks import convolve
from .halves import held_weight, plain_type, weight_rows


class Folded(nn.Module):
    """BatchNorm2d(Conv2d(x)) as one convolution (B. Jacob et al. 2018, arXiv:1712.05877, 3.2).

    Its weights are made in each call, the numbers of ``torch.nn.utils.fusion``: that is a product per weight,
    next to one per weight and pixel, and kept they would be a second copy of the network.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        weight = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
        bias = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
        own = torch.zeros_like(mean) if convolution.bias is None else convolution.bias.detach()
        scale = torch.rsqrt(variance + norm.eps)
        self.convolution = convolution
        self.factor = (weight * scale).reshape(-1, 1, 1, 1)
        self.bias = (own - mean) * scale * weight + bias

    def forward(self, x: Tensor) -> Tensor:
        convolution, factor = self.convolution, self.factor
        held = held_weight(convolution)
        return convolve(
            convolution, x, held, self.bias, lambda rows: weight_rows(convolution, rows) * factor[rows]
        )


_FRESH_MODULES = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, Folded)
_FRESH_FUNCTIONS = {operator.add, torch.add}


def simplify(suffix: fx.GraphModule, targets: Collection[str]) -> None:
    """Change a suffix (eval mode) in place; its logits stay what they are, up to rounding.

    Targets keep their weights: the batch norm behind one is not folded.
    """
    for node in list(suffix.graph.nodes):
        _fold(suffix, node, targets)
    for node in list(suffix.graph.nodes):
        _in_place(suffix, node)
    suffix.graph.lint()
    suffix.recompile()


def _module(suffix: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    module = suffix.get_submodule(str(node.target)) if node.op == "call_module" else None
    return None if module is None or is_altered(module) else module


def _fold(suffix: fx.GraphModule, node: fx.Node, targets: Collection[str]) -> None:
    norm = _module(suffix, node)
    if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or len(node.args) != 1:
        return
    before = node.args[0]
    if not isinstance(before, fx.Node) or list(before.users) != [node] or before.target in targets:
        return
    convolution = _module(suffix, before)
    if convolution is None or plain_type(convolution) is not nn.Conv2d:
        return
    assert isinstance(convolution, nn.Conv2d)
    name = f"folded_{before.name}"
    suffix.add_submodule(name, Folded(convolution, norm))
    before.target = name
    node.replace_all_uses_with(before)
    suffix.graph.erase_node(node)


def _in_place(suffix: fx.GraphModule, node: fx.Node) -> None:
    """Make a ReLU in-place if nothing else reads its input; a cached value or a view of one may be read."""
    called = node.op == "call_function" and node.target in (F.relu, torch.relu)
    if not called and type(_module(suffix, node)) is not nn.ReLU:
        return
    if len(node.args) != 1 or not isinstance(node.args[0], fx.Node) or list(node.args[0].users) != [node]:
        return
    before = node.args[0]
    fresh = isinstance(_module(suffix, before), _FRESH_MODULES) or (
        before.op == "call_function" and before.target in _FRESH_FUNCTIONS
    )
    if fresh:
        node.op, node.target, node.kwargs = "call_function", F.relu_, {}
