"""Only what is read: selections of positions move up through what works position by position.

A classifier often reads one position of many (``x[:, 0]``, the last token), and a language model a few of
very many classes. What a position gets after the last mixing of positions depends on no other, so it can be
picked before: ``f(x)[:, 0]`` is ``f(x[:, 0])``. (A transformer that reads one token computes the others'
last feed-forward layer for nothing.)
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from ..seen import ADDED
from ..targets import is_altered
from .dataflow import downstream, is_inplace
from .halves import plain_type
from .shapes import SHAPE

_MODULES: tuple[type[nn.Module], ...] = (
    nn.Linear, nn.Dropout, nn.Identity, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU,
    nn.Softplus, nn.Hardswish, nn.Mish, nn.ReLU6,
)  # fmt: skip

_FUNCTIONS: set[Any] = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pow, torch.add,
    torch.sub, torch.mul, torch.div, torch.pow, torch.rsqrt, torch.sqrt, torch.tanh, torch.sigmoid,
    torch.relu, torch.exp, torch.square, F.relu, F.gelu, F.silu, F.tanh, F.sigmoid, F.leaky_relu, F.elu,
    F.dropout, F.linear, F.hardswish, F.mish, F.softplus,
}  # fmt: skip

_METHODS = {
    "add", "sub", "mul", "div", "neg", "pow", "__pow__", "__neg__", "__rsub__", "__radd__", "__rmul__",
    "rsqrt", "sqrt", "tanh", "sigmoid", "relu", "exp", "square", "float", "to", "type_as", "contiguous",
    "clone", "abs", "clamp",
}  # fmt: skip


def select_early(model: nn.Module, graph: fx.Graph, targets: Collection[str]) -> None:
    """Move selections up in a graph, and take from Linear layers only those outputs that are read.

    Args:
        model: what the graph is of; it gets a module for each Linear that is cut down.
        graph: changed in place; its values are immutable, see
            :func:`rledit.scoring.dataflow.clone_before_inplace`, and their shapes known, see
            :func:`rledit.scoring.shapes.note_shapes`.
        targets: names of the modules whose weights are edited.
    """
    calls = {node for node in graph.nodes if node.op == "call_module" and node.target in targets}
    dynamic = downstream(graph, calls)
    if not any(_index(node) is not None and node.args[0] in dynamic for node in graph.nodes):
        return
    for node in list(graph.nodes):
        if node in dynamic and _picks_all(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node in dynamic and node.users and not is_inplace(model, node):
            dynamic |= _moved_before(model, graph, node)
    for node in list(graph.nodes):
        if node in dynamic:
            _cut_down(model, graph, node, targets)


def _is_getitem(node: fx.Node) -> bool:
    return (
        node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[0], fx.Node)
    )


def _parts(node: fx.Node) -> tuple[Any, ...]:
    """The index of a getitem as a tuple."""
    return node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)


def _picks_all(node: fx.Node) -> bool:
    """Whether slices pick all that there is."""
    if not _is_getitem(node) or node.meta.get(SHAPE) is None:
        return False
    slices = all(isinstance(part, slice) and part.step in (None, 1) for part in _parts(node))
    return slices and node.meta[SHAPE] == node.args[0].meta.get(SHAPE)  # type: ignore[union-attr]


def _index(node: fx.Node) -> tuple[Any, ...] | None:
    """What a node picks by the leading dimensions of its first argument; None if that is not what it does."""
    if not _is_getitem(node):
        return None
    index = _parts(node)
    while index and index[-1] == slice(None):
        index = index[:-1]
    if not index or not all(isinstance(part, (int, slice, fx.Node)) for part in index):
        return None
    return None if isinstance(index[0], bool) else index


def _moved_before(model: nn.Module, graph: fx.Graph, node: fx.Node) -> set[fx.Node]:
    """Pick what the users of a node pick from its arguments instead; the new nodes, none where that is not
    possible."""
    users = list(node.users)
    index = _index(users[0])
    shape = node.meta.get(SHAPE)
    if index is None or shape is None or any(_index(u) != index or u.args[0] is not node for u in users):
        return set()
    depth = len(index)
    if depth < 2 or depth >= len(shape) or not _is_by_position(model, node, len(shape) - depth):
        return set()
    for part in index:
        if isinstance(part, fx.Node) and (part.meta.get(SHAPE) is None or len(part.meta[SHAPE]) != 1):
            return set()
    picked: dict[fx.Node, fx.Node] = {}
    for argument in node.all_input_nodes:
        own = argument.meta.get(SHAPE)
        if own is None:
            return set()
        if len(own) == len(shape) and own[:depth] == shape[:depth]:
            picked[argument] = argument
        elif len(own) > len(shape) - depth and not _is_weight(node, argument):
            return set()  # it is broadcast over some of the positions
    first = min(users, key=list(graph.nodes).index)
    result = first.meta.get(SHAPE)
    with graph.inserting_before(first):
        for argument in picked:
            sel = picked[argument] = graph.call_function(operator.getitem, (argument, first.args[1]))
            sel.meta[SHAPE] = (
                None
                if result is None
                else (*result[: len(result) - len(shape) + depth], *argument.meta[SHAPE][depth:])
            )
        copy = graph.node_copy(node, lambda before: picked.get(before, before))
    copy.meta = {**node.meta, SHAPE: result}
    for user in users:
        user.replace_all_uses_with(copy)
        graph.erase_node(user)
    graph.erase_node(node)
    return {copy, *picked.values()}


def _is_weight(node: fx.Node, argument: fx.Node) -> bool:
    return node.target is F.linear and argument in node.args[1:]


def _is_by_position(model: nn.Module, node: fx.Node, kept: int) -> bool:
    """Whether a node works on each position alone, of which ``kept`` dimensions are whole."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        if is_altered(module):
            return False
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            return len(module.normalized_shape) <= kept
        return isinstance(module, _MODULES) or plain_type(module) is nn.Linear
    if node.op == "call_function":
        if node.target is F.layer_norm:
            return len(node.args[1] if len(node.args) > 1 else node.kwargs["normalized_shape"]) <= kept  # type: ignore[arg-type]
        return node.target in _FUNCTIONS and not node.kwargs.get("inplace")
    if node.op == "call_method":
        if node.target == "mean":
            axes = node.args[1:] or (node.kwargs.get("dim"),)
            return axes in ((-1,), ((-1,),), ([-1],)) and node.kwargs.get("keepdim") is True
        return node.target in _METHODS
    return False


def _cut_down(model: nn.Module, graph: fx.Graph, node: fx.Node, targets: Collection[str]) -> None:
    """Where only some outputs of a Linear are read, replace it by one that has no others."""
    if node.op != "call_module" or node.target in targets or len(node.users) != 1:
        return
    module = model.get_submodule(str(node.target))
    user, shape = next(iter(node.users)), node.meta.get(SHAPE)
    if type(module) is not nn.Linear or is_altered(module) or shape is None or user.args[0] is not node:
        return
    if not _is_getitem(user) or len(_parts(user)) != len(shape):
        return
    *before, last = _parts(user)
    if any(part != slice(None) for part in before) or not isinstance(last, fx.Node) or last.op != "get_attr":
        return
    rows = model.get_buffer(str(last.target))
    if rows.dim() != 1 or rows.dtype != torch.int64:
        return
    own = nn.Linear(module.in_features, len(rows), bias=module.bias is not None, device="meta")
    own.weight = nn.Parameter(module.weight.detach()[rows], requires_grad=False)
    if module.bias is not None:
        own.bias = nn.Parameter(module.bias.detach()[rows], requires_grad=False)
    name = f"{ADDED}rows_{sum(name.startswith(ADDED) for name, _ in model.named_children())}"
    model.add_module(name, own.eval())
    node.target = name
    user.replace_all_uses_with(node)
    graph.erase_node(user)
