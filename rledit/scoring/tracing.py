"""Cut a network at its targets: what does not depend on an edit is computed once and cached.

The network is traced with torch.fx (Reed et al. 2022, arXiv:2112.08429), so functional calls, residual sums
and reshapes are seen as they are. A node is *dynamic* if a target's output reaches it. The *prefix* is the
part that is not dynamic; the values that dynamic nodes read from it are the *boundary*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg


class TracingError(Exception):
    """This network cannot be cut; it must be run whole."""


@dataclass(frozen=True)
class Cut:
    """A network cut at its targets.

    Attributes:
        prefix: inputs [s, ...] -> tuple of boundary values, each [s, ...].
        suffix: graph whose placeholders are the boundary values in that order and then the sizes; its output
            is the network's.
        boundary: names of the suffix's placeholders for tensors.
        sizes: names of its placeholders for batch sizes (``x.shape[0]`` and the like).
    """

    prefix: fx.GraphModule
    suffix: fx.GraphModule
    boundary: tuple[str, ...]
    sizes: tuple[str, ...]


class _Tracer(fx.Tracer):
    """Keeps targets whole even where they are modules that fx would look into."""

    def __init__(self, targets: Sequence[str]) -> None:
        super().__init__()
        self._targets = set(targets)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._targets or super().is_leaf_module(m, module_qualified_name)


def cut(model: nn.Module, targets: Sequence[str], inputs: Tensor) -> Cut:
    """Cut ``model`` (in eval mode) at ``targets``.

    Args:
        inputs: at least 3 samples, [s, ...], to see which values grow with the batch.

    Raises:
        TracingError: if fx cannot trace the network, a target is not called as a module, or a value on the
            cut is neither one row per sample nor a batch size.
    """
    graph = _trace(model, targets)
    reached = _downstream(graph, lambda node: node.op == "call_module" and node.target in targets)
    from_inputs = _downstream(graph, lambda node: node.op == "placeholder")
    boundary = [
        node
        for node in graph.nodes
        if node in from_inputs and node not in reached and any(user in reached for user in node.users)
    ]
    prefix = _prefix(model, graph, boundary)
    tensors, sizes = _kinds(prefix, boundary, inputs)
    return Cut(
        prefix=_prefix(model, graph, tensors),
        suffix=_suffix(model, graph, [*tensors, *sizes], from_inputs),
        boundary=tuple(node.name for node in tensors),
        sizes=tuple(node.name for node in sizes),
    )


def _trace(model: nn.Module, targets: Sequence[str]) -> fx.Graph:
    try:
        graph = _Tracer(targets).trace(model)
    except Exception as error:  # any code may stand in a forward(), and fail on a proxy in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TracingError(reason) from error
    called = {node.target for node in graph.nodes if node.op == "call_module"}
    for target in targets:
        if target not in called:
            raise TracingError(f"target {target!r} is never called as a module")
    required = [node for node in graph.nodes if node.op == "placeholder" and not node.args]
    if len(required) != 1:
        raise TracingError(f"forward() takes {len(required)} inputs, expected 1")
    return graph


def _downstream(graph: fx.Graph, is_source: object) -> set[fx.Node]:
    assert callable(is_source)
    reached: set[fx.Node] = set()
    for node in graph.nodes:
        if is_source(node) or any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    return reached


def _copy(graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    return graph.node_copy(node, lambda source: copies[source])


def _ancestors(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return needed


def _prefix(model: nn.Module, graph: fx.Graph, boundary: Sequence[fx.Node]) -> fx.GraphModule:
    """Everything that the boundary depends on, in the original order, which keeps in-place calls right."""
    out = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    needed = _ancestors(boundary)
    # An in-place call changes a value that others read although nothing reads its own result.
    for node in graph.nodes:
        if node not in needed and _is_inplace(model, node) and set(node.all_input_nodes) <= needed:
            needed.add(node)
    for node in graph.nodes:
        if node.op == "placeholder" or node in needed:
            copies[node] = _copy(out, node, copies)
    out.output(tuple(copies[node] for node in boundary))
    return fx.GraphModule(model, out)


def _is_inplace(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        return bool(node.kwargs.get("inplace")) or name.endswith("_") or name in ("iadd", "isub", "imul")
    return False


def _kinds(
    prefix: fx.GraphModule, boundary: Sequence[fx.Node], inputs: Tensor
) -> tuple[list[fx.Node], list[fx.Node]]:
    """Which boundary values are tensors with a row per sample, and which are batch sizes."""
    tensors, sizes = [], []
    with torch.no_grad():
        few, more = prefix(inputs[:2].clone()), prefix(inputs[:3].clone())
    for node, a, b in zip(boundary, few, more, strict=True):
        if isinstance(a, Tensor) and a.dim() > 0 and a.shape[0] == 2 and b.shape[0] == 3:
            tensors.append(node)
        elif isinstance(a, int) and a == 2 and b == 3:
            sizes.append(node)
        else:
            kind = f"{list(a.shape)} tensor" if isinstance(a, Tensor) else type(a).__name__
            raise TracingError(f"the value {node.name!r} ({kind}) before the targets has no row per sample")
    return tensors, sizes


def _suffix(
    model: nn.Module, graph: fx.Graph, boundary: Sequence[fx.Node], from_inputs: set[fx.Node]
) -> fx.GraphModule:
    out = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in boundary:
        copies[node] = out.placeholder(node.name)
    result = next(node for node in graph.nodes if node.op == "output")
    for node in graph.nodes:
        # Constants, like a learned position, belong to the suffix itself.
        if node in copies or node.op in ("placeholder", "output"):
            continue
        if node not in from_inputs or all(source in copies for source in node.all_input_nodes):
            copies[node] = _copy(out, node, copies)
    if any(node not in copies for node in result.all_input_nodes):
        raise TracingError("the output does not follow from the values at the cut")
    out.output(map_arg(result.args[0], lambda node: copies[node]))
    suffix = fx.GraphModule(model, out)
    if suffix.graph.eliminate_dead_code():
        suffix.recompile()
    return suffix
