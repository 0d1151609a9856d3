"""Take work out of a suffix that runs thousands of times: fold batch norms, and apply ReLUs in place."""

from __future__ import annotations

import operator
from collections.abc import Collection

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..targets import is_altered

_FRESH_MODULES = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
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
    """BatchNorm2d(Conv2d(x)) becomes one convolution (B. Jacob et al. 2018, arXiv:1712.05877, 3.2)."""
    norm = _module(suffix, node)
    if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or len(node.args) != 1:
        return
    before = node.args[0]
    if not isinstance(before, fx.Node) or list(before.users) != [node] or before.target in targets:
        return
    convolution = _module(suffix, before)
    if type(convolution) is not nn.Conv2d:
        return
    name = f"folded_{before.name}"
    suffix.add_submodule(name, fuse_conv_bn_eval(convolution, norm))
    before.target = name
    node.replace_all_uses_with(before)
    suffix.graph.erase_node(node)


def _in_place(suffix: fx.GraphModule, node: fx.Node) -> None:
    """A ReLU on memory that nobody else reads. Cached values and views of them are somebody else's."""
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
