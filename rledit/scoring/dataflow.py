"""What depends on what in a traced graph, and which of its calls change a value in place."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable

from torch import fx, nn


def downstream(graph: fx.Graph, sources: set[fx.Node]) -> set[fx.Node]:
    """The sources and all that depends on them."""
    reached: set[fx.Node] = set()
    for node in graph.nodes:
        if node in sources or any(before in reached for before in node.all_input_nodes):
            reached.add(node)
    return reached


def upstream(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes and all that they depend on."""
    needed: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return needed


def clone_before_inplace(model: nn.Module, graph: fx.Graph) -> set[fx.Node]:
    """Make the graph's values immutable as far as the graph can tell, so that it may be cut anywhere.

    What reads a value after an in-place call on it reads the call's result instead; where it was read
    before, the call works on a copy. Returns the copies. Views of a value are not followed.
    """
    clones = set()
    seen: set[fx.Node] = set()
    for node in list(graph.nodes):
        if is_inplace(model, node) and node.all_input_nodes:
            value = node.all_input_nodes[0]
            for user in list(value.users):
                if user is not node and user not in seen:
                    user.replace_input_with(value, node)
            if len(value.users) > 1 or value.op == "get_attr":
                with graph.inserting_before(node):
                    clone = graph.call_method("clone", (value,))
                node.replace_input_with(value, clone)
                clones.add(clone)
        seen.add(node)
    return clones


_INPLACE_OPERATORS = {
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod,
    operator.ipow, operator.iand, operator.ior, operator.ixor,
}  # fmt: skip


def is_inplace(model: nn.Module, node: fx.Node) -> bool:
    """Whether a call changes its first input."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op != "call_function":
        return False
    assert callable(node.target)
    try:
        arguments = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # a builtin
        arguments = node.kwargs
    name = getattr(node.target, "__name__", "")
    return bool(arguments.get("inplace")) or name.endswith("_") or node.target in _INPLACE_OPERATORS
