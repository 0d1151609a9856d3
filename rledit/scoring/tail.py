"""Recognize suffixes that the fused op can run: Linear layers with elementwise functions between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..targets import is_altered
from .halves import plain_type
from .tracing import Cut


@dataclass(frozen=True)
class Tail:
    """The layers after the cut, first the first target.

    Attributes:
        names: names of each layer, as targets are called; a layer that is not a target has the name of its
            module.
        layers: the modules.
        nonlinearities: what follows each, keys of :data:`rledit.ops.NONLINEARITIES`.
    """

    names: tuple[str, ...]
    layers: tuple[nn.Linear, ...]
    nonlinearities: tuple[str, ...]


def find_tail(cut: Cut, activations: Tensor) -> Tail | None:
    """The tail, if the whole suffix is one; else None.

    Args:
        activations: the cached value of a few samples; only [s, I] can be a tail's input.
    """
    if len(cut.boundary) != 1 or cut.extras or activations.dim() != 2:
        return None
    nodes = list(cut.suffix.graph.nodes)
    names: list[str] = []
    layers: list[nn.Linear] = []
    nonlinearities: list[str] = []
    previous = nodes[0]
    flat = False  # whether the values are [S], of a layer with one output
    for node in nodes[1:]:
        # A chain: each value is read once, by the next node.
        if list(previous.users) != [node] or node.all_input_nodes != [previous]:
            return None
        previous = node
        if _axis(node) == ("unsqueeze" if flat else "squeeze") and layers and layers[-1].out_features == 1:
            flat = not flat
            continue
        if flat:
            return None
        if node.op == "output":
            return Tail(tuple(names), tuple(layers), tuple(nonlinearities)) if layers else None
        module = cut.suffix.get_submodule(str(node.target)) if node.op == "call_module" else None
        if module is not None and is_altered(module):
            return None
        if module is not None and plain_type(module) is nn.Linear:
            assert isinstance(module, nn.Linear)
            names.append(cut.targets.get(str(node.target), str(node.target)))
            layers.append(module)
            nonlinearities.append("identity")
            continue
        name = _nonlinearity(node, module)
        if name is None or not layers:
            return None
        if name == "identity":
            continue
        if nonlinearities[-1] != "identity":
            return None  # two functions in a row
        nonlinearities[-1] = name
    return None


_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.SiLU: "silu",
    nn.Identity: "identity",
    nn.Dropout: "identity",  # eval mode
    nn.Flatten: "identity",  # of [S, I]
}
_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    F.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.tanh: "tanh",
    torch.tanh: "tanh",
    F.silu: "silu",
}
_METHODS = {"relu": "relu", "relu_": "relu", "tanh": "tanh", "contiguous": "identity"}


def _nonlinearity(node: fx.Node, module: nn.Module | None) -> str | None:
    """The function that a node applies to [S, I], or None if it is none of ours."""
    if module is not None:
        if type(module) is nn.GELU:
            return "gelu_tanh" if module.approximate == "tanh" else "gelu"
        if type(module) is nn.Flatten and module.start_dim != 1:
            return None
        return _MODULES.get(type(module))
    if node.op == "call_function":
        if node.target is F.gelu:
            return "gelu_tanh" if node.kwargs.get("approximate") == "tanh" else "gelu"
        if node.target is F.dropout:
            training = node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True)
            return "identity" if training is False else None
        if node.target is torch.flatten:
            return _flatten(node.args[1:], node.kwargs)
        return _FUNCTIONS.get(node.target) if _is_plain(node) else None
    if node.op == "call_method":
        if node.target == "flatten":
            return _flatten(node.args[1:], node.kwargs)
        return _METHODS.get(str(node.target)) if len(node.args) == 1 else None
    return None


def _axis(node: fx.Node) -> str:
    """ "squeeze" of [S, 1], or "unsqueeze" of [S] to it; else ""."""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    if node.op not in ("call_method", "call_function") or name not in ("squeeze", "unsqueeze"):
        return ""
    axes = (*node.args[1:], *node.kwargs.values())
    return name if axes in ((-1,), (1,)) else ""


def _flatten(args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    start = args[0] if args else kwargs.get("start_dim", 0)
    return "identity" if start == 1 else None


def _is_plain(node: fx.Node) -> bool:
    return len(node.args) == 1 and set(node.kwargs) <= {"inplace"}
