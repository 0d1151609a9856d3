"""What shapes the values of a graph have, and along which axis their samples lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

SHAPE = "rledit_shape"
"""Key in ``node.meta`` of a tensor's shape for two samples."""

AXIS = "rledit_axis"
"""Key in ``node.meta`` of where the samples lie: the axis, and how many entries along it each has, one after
the other. Missing where there is no such axis, or more than one."""


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the shape of every tensor by the name of its node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.found: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n.name] = tuple(value.shape)
        return value


@torch.no_grad()
def note_shapes(model: nn.Module, graph: fx.Graph, inputs: Any) -> None:
    """Note the shapes of all tensors, and where their samples lie.

    Args:
        model: what the graph is of.
        inputs: at least 3 samples.
    """
    module = fx.GraphModule(model, graph)
    few, more = _Shapes(module), _Shapes(module)
    few.run(inputs[:2].clone())
    more.run(inputs[:3].clone())
    for node in graph.nodes:
        if node.name in few.found and node.name in more.found:
            node.meta[SHAPE] = few.found[node.name]
            if (axis := axis_of(few.found[node.name], more.found[node.name])) is not None:
                node.meta[AXIS] = axis


def axis_of(few: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, int] | None:
    """The axis along which shapes for 2 and for 3 samples differ, and its entries per sample."""
    if len(few) != len(more):
        return None
    differing = [axis for axis, (a, b) in enumerate(zip(few, more, strict=True)) if a != b]
    if len(differing) != 1:
        return None
    [axis] = differing
    if 3 * few[axis] != 2 * more[axis]:
        return None
    return axis, few[axis] // 2


def kept_by_sample(graph: fx.Graph, node: fx.Node, users: Iterable[fx.Node]) -> tuple[fx.Node, list[fx.Node]]:
    """Let some users of a value read it by way of a form with a row per sample, [s, ...].

    Returns:
        the value in that form, the node itself where it has it; and the nodes that make of it what it was.
    """
    axis, per_sample = node.meta.get(AXIS, (0, 1))
    if (axis, per_sample) == (0, 1):
        return node, []
    front, back = node, []
    with graph.inserting_after(node):
        if axis:
            front = graph.call_function(torch.movedim, (front, axis, 0))
    if per_sample != 1:
        with graph.inserting_after(front):
            front = graph.call_method("unflatten", (front, 0, (-1, per_sample)))
    last = front
    if per_sample != 1:
        with graph.inserting_after(last):
            last = graph.call_method("flatten", (last, 0, 1))
        back.append(last)
    if axis:
        with graph.inserting_after(last):
            last = graph.call_function(torch.movedim, (last, 0, axis))
        back.append(last)
    for user in users:
        user.replace_input_with(node, last)
    return front, back


def targets_by_sample(graph: fx.Graph, calls: set[fx.Node]) -> None:
    """Call Linear targets whose inputs have their samples along another axis with these in front: what runs
    candidates side by side takes rows by sample."""
    for call in calls:
        if len(call.args) != 1 or call.kwargs or not isinstance(call.args[0], fx.Node):
            continue
        value = call.args[0]
        axis, _ = value.meta.get(AXIS, (0, 1))
        if axis == 0 or axis == len(value.meta[SHAPE]) - 1:
            continue
        users = list(call.users)
        with graph.inserting_before(call):
            call.args = (graph.call_function(torch.movedim, (value, axis, 0)),)
        with graph.inserting_after(call):
            back = graph.call_function(torch.movedim, (call, 0, axis))
        back.meta = dict(call.meta)
        for user in users:
            user.replace_input_with(call, back)
