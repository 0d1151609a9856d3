"""Cut a network at its targets: what does not depend on an edit is computed once and cached.

The network is traced with torch.fx (Reed et al. 2022, arXiv:2112.08429), so functional calls, residual sums
and reshapes are seen as they are; where fx cannot, it is recorded while it runs (:mod:`.recording`). A node
is *dynamic* if a target's output reaches it. The *prefix* is the part that is not dynamic; the values that
dynamic nodes read from it are the *boundary*.

A trace can miss things (views that are changed in place, a forward that counts its calls): a cut is
compared with the network before it is used.
"""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from ..batch import Inputs
from .dataflow import clone_before_inplace, downstream, is_inplace, upstream
from .recording import READ, record
from .selection import select_early
from .shapes import kept_by_sample, note_shapes, targets_by_sample

__all__ = [
    "Cut",
    "Rows",
    "RowsError",
    "TracingError",
    "called_name",
    "cut",
    "first_line",
    "is_inplace",
    "targets_that_reach",
]


class TracingError(ValueError):
    """This network cannot be cut; it must be run whole."""


class RowsError(TracingError):
    """Values that a cut takes for one row per sample, or for constants, are something else."""


@dataclass(frozen=True)
class Rows:
    """An integer that grows with the batch, like ``x.shape[0]``: ``per_sample`` times the samples."""

    per_sample: int

    def at(self, samples: int) -> int:
        return self.per_sample * samples


@dataclass(frozen=True)
class Cut:
    """A network cut at its targets.

    Attributes:
        prefix: inputs [s, ...] -> tuple of the boundary values, each [s, ...], and then the extras.
        suffix: graph whose placeholders are the boundary values and then the extras; its output is the
            network's.
        boundary: names of the suffix's placeholders for tensors with a row per sample.
        extras: values of its other placeholders: constants, Rows, and tuples of these.
        targets: the name that the graphs call a target's module by -> the target's name. A module may have
            several names.
        reads: what Python read from the samples that the network was recorded with.
    """

    prefix: fx.GraphModule
    suffix: fx.GraphModule
    boundary: tuple[str, ...]
    extras: tuple[Any, ...]
    targets: Mapping[str, str]
    reads: tuple[Any, ...] = ()

    def run_prefix(self, inputs: Inputs) -> tuple[tuple[Tensor, ...], bool]:
        """The boundary values of these inputs, which the network may change in place; and whether Python read
        from them, to choose its way, what it read from the samples that were recorded. If not, that need not
        matter: a mask may be left out where it masks nothing.

        Raises:
            RowsError: if they are not one row per sample, or the extras are not what they were for other
                samples.
        """
        # Not called as a module: that would print a traceback for an error that is dealt with.
        values = self.prefix.forward(inputs)
        tensors, extras = values[: len(self.boundary)], values[len(self.boundary) :]
        extras, reads = extras[: len(self.extras)], extras[len(self.extras) :]
        for name, value in zip(self.boundary, tensors, strict=True):
            if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != len(inputs):
                raise RowsError(f"the value {name!r} before the targets has no row per sample")
        for expected, extra in zip(self.extras_at(len(inputs)), extras, strict=True):
            if not _same(expected, extra):
                raise RowsError("a value before the targets is not the same for all samples")
        return tuple(tensors), all(map(_same, self.reads, reads))

    def extras_at(self, samples: int) -> tuple[Any, ...]:
        """The extras of a batch of ``samples`` rows."""

        def at(extra: Any) -> Any:
            if isinstance(extra, tuple):
                return tuple(at(item) for item in extra)
            return extra.at(samples) if isinstance(extra, Rows) else extra

        return tuple(at(extra) for extra in self.extras)

    def readers(self) -> dict[int, tuple[str, ...]]:
        """The targets that read each boundary value, by its place; without values that anything else reads,
        and without targets that are called elsewhere, too."""
        nodes = list(self.suffix.graph.nodes)
        calls = Counter(self.targets[n.target] for n in nodes if self._is_call(n))
        found = {}
        for node in nodes:
            names = tuple(self.targets[user.target] for user in node.users if self._is_call(user))
            alone = len(names) == len(node.users) and all(calls[name] == 1 for name in names)
            if node.op == "placeholder" and node.target in self.boundary and names and alone:
                found[self.boundary.index(node.target)] = names
        return found

    def _is_call(self, node: fx.Node) -> bool:
        return node.op == "call_module" and node.target in self.targets


class _Tracer(fx.Tracer):
    """Keeps targets whole even where they are modules that fx would look into."""

    def __init__(self, targets: Collection[str]) -> None:
        super().__init__()
        self._targets = set(targets)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._targets or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """One placeholder, for the inputs. Other arguments keep their defaults, whatever these are: as
        placeholders they would defeat tests like `mask is None`."""
        _, *parameters = inspect.signature(inspect.unwrap(root_fn)).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        required = [p for p in named if p.default is p.empty]
        if len(required) != 1 or required[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise TracingError(f"forward() takes {len(required)} inputs, expected 1")
        return root_fn, [self.root, self.create_proxy("placeholder", required[0].name, (), {})]


Graphs: TypeAlias = Literal["traced", "modules", "operations"]
"""How the graph of a network is found: symbolically, or recorded, with modules before the first target kept
whole or not, see :func:`rledit.scoring.recording.record`."""


def cut(model: nn.Module, targets: Sequence[str], inputs: Inputs, graphs: Graphs = "traced") -> Cut:
    """Cut ``model`` (in eval mode) at ``targets``.

    Args:
        inputs: at least 3 samples, [s, ...], to see which values grow with the batch.
        graphs: how its graph is found.

    Raises:
        TracingError: if there is no graph of the network, a target is not called as a module, or a value on
            the cut is neither one row per sample, nor a batch size, nor a constant.
    """
    called = {called_name(model, target): target for target in targets}
    graph, source = _trace(model, called, inputs, graphs)
    clones = clone_before_inplace(model, graph)
    try:
        note_shapes(model, graph, inputs)
        select_early(model, graph, called)
    except Exception as error:  # the trace may have taken a branch that no input can take
        raise TracingError(first_line(error)) from error
    calls = {n for n in graph.nodes if n.op == "call_module" and n.target in called}
    targets_by_sample(graph, calls)
    dynamic = downstream(graph, calls)
    _check_rows_stay(dynamic, calls)
    # A copy that only a dynamic node reads is made when it runs: cached, it would take memory twice.
    dynamic |= {clone for clone in clones if set(clone.users) <= dynamic}
    from_inputs = downstream(graph, {source})
    of_sizes = _of_sizes(graph, source)
    for node in reversed(graph.nodes):
        if node in of_sizes and any(user in dynamic for user in node.users):
            dynamic.add(node)
    reads = [node for node in graph.nodes if node.meta.get(READ) and node in from_inputs]
    if dependent := [node for node in reads if node in dynamic]:
        raise TracingError(f"forward reads a value that depends on an edit ({dependent[0].target})")
    boundary = []
    for node in list(graph.nodes):
        users = [user for user in node.users if user in dynamic]
        if node in from_inputs and node not in dynamic and users:
            kept, back = kept_by_sample(graph, node, users)
            boundary.append(kept)
            from_inputs |= {kept, *back}
            dynamic |= set(back)
    try:
        tensors, extras = _kinds(_prefix(model, source, graph, boundary), boundary, inputs)
        read = _prefix(model, source, graph, reads).forward(inputs[:2].clone()) if reads else ()
    except Exception as error:  # the trace may have taken a branch that no input can take
        raise TracingError(first_line(error)) from error
    if not tensors:
        raise TracingError("no value before the targets depends on the inputs")
    return Cut(
        prefix=_prefix(model, source, graph, [*tensors, *extras, *reads]),
        suffix=_suffix(model, graph, [*tensors, *extras], dynamic, from_inputs),
        boundary=tuple(node.name for node in tensors),
        extras=tuple(extras.values()),
        targets=called,
        reads=tuple(read),
    )


def targets_that_reach(model: nn.Module, targets: Sequence[str]) -> set[str] | None:
    """The targets from which a path leads to the output; None where the model cannot be traced."""
    called = {called_name(model, target): target for target in targets}
    try:
        graph = _Tracer(called).trace(model)
    except Exception:  # any code may stand in a forward(), and fail on a proxy in any way
        return None
    used = upstream(node for node in graph.nodes if node.op == "output")
    # An in-place call may use a value without a path: what it changes is read again.
    used |= upstream(node for node in graph.nodes if is_inplace(model, node))
    return {called[str(node.target)] for node in used if node.op == "call_module" and node.target in called}


def called_name(model: nn.Module, target: str) -> str:
    """The first of the names that a target's module has, by which graphs call it."""
    module = model.get_submodule(target)
    names: dict[int, str] = {id(known): name for name, known in model.named_modules()}
    return names[id(module)]


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _trace(
    model: nn.Module, targets: Mapping[str, str], inputs: Inputs, graphs: Graphs
) -> tuple[fx.Graph, fx.Node]:
    """The graph and its node for the inputs; recorded with those that are given."""
    try:
        if graphs == "traced":
            graph = _Tracer(targets).trace(model)
        else:
            graph = record(model, targets, inputs, modules=graphs == "modules")
    except Exception as error:  # any code may stand in a forward(), and fail on a proxy in any way
        raise TracingError(first_line(error)) from error
    called = {node.target for node in graph.nodes if node.op == "call_module"}
    for name, target in targets.items():
        if name not in called:
            raise TracingError(f"target {target!r} is never called as a module")
    return graph, next(node for node in graph.nodes if node.op == "placeholder")


def _of_sizes(graph: fx.Graph, source: fx.Node) -> set[fx.Node]:
    """What is made of the size of a recorded batch alone, such as ``torch.arange(len(x))``. That has a row
    per sample, but is another one for samples of several candidates, so it is made where it is read."""
    counts = {node for node in source.users if node.op == "call_function" and node.target is len}
    multiples = {user for node in counts for user in node.users if user.target is operator.mul}
    sizes = counts | {node for node in multiples if isinstance(node.args[1], int)}
    of_values = downstream(graph, set(source.users) - counts)
    return downstream(graph, counts) - of_values - sizes


def _check_rows_stay(dynamic: set[fx.Node], calls: Iterable[fx.Node]) -> None:
    """Raise TracingError where rows that depend on an edit are picked by value before they reach a target.

    Each candidate then has rows of its own number and order (mixture of experts, early exit), which folding
    candidates into the batch cannot keep apart.
    """
    before = upstream(node for call in calls for node in call.all_input_nodes) & dynamic
    for node in before:
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        alone = name == "where" and len(node.args) + len(node.kwargs) == 1
        other_dim = name == "index_select" and (*node.args[1:2], node.kwargs.get("dim", 0))[0] != 0
        if (name in _PICKS_ROWS and not other_dim) or alone:
            raise TracingError(f"rows are routed inside forward ({name})")


_PICKS_ROWS = {"nonzero", "argwhere", "masked_select", "index_select", "unique"}


def _prefix(
    model: nn.Module, source: fx.Node, graph: fx.Graph, boundary: Sequence[fx.Node]
) -> fx.GraphModule:
    out = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    needed = upstream([source, *boundary])
    for node in graph.nodes:
        if node in needed:
            copies[node] = out.node_copy(node, lambda before: copies[before])
    out.output(tuple(copies[node] for node in boundary))
    return fx.GraphModule(model, out)


@torch.no_grad()
def _kinds(
    prefix: fx.GraphModule, boundary: Sequence[fx.Node], inputs: Inputs
) -> tuple[list[fx.Node], dict[fx.Node, Any]]:
    """Which boundary values are tensors with a row per sample, and what the others are."""
    tensors: list[fx.Node] = []
    extras: dict[fx.Node, Any] = {}
    few, more = prefix.forward(inputs[:2].clone()), prefix.forward(inputs[:3].clone())
    for node, a, b in zip(boundary, few, more, strict=True):
        if isinstance(a, Tensor) and a.dim() > 0 and a.shape[0] == 2 and b.shape[0] == 3:
            tensors.append(node)
        else:
            extras[node] = _extra(node.name, a, b)
    return tensors, extras


def _same(one: Any, other: Any) -> bool:
    """Whether two extras are the same."""
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Tensor):
        if not isinstance(other, Tensor) or one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(((one == other) | ((one != one) & (other != other))).all())
    return bool(one == other)


def _extra(name: str, few: Any, more: Any) -> Any:
    """What a value is that was ``few`` for 2 samples and ``more`` for 3."""
    if isinstance(few, tuple) and len(few) == len(more):
        return tuple(_extra(name, a, b) for a, b in zip(few, more, strict=True))
    if isinstance(few, Tensor):
        if _same(few, more):
            return few
    elif few == more:
        return few
    elif isinstance(few, int) and isinstance(more, int) and 3 * few == 2 * more:
        return Rows(few // 2)
    kind = f"{list(few.shape)} tensor" if isinstance(few, Tensor) else type(few).__name__
    raise TracingError(f"the value {name!r} ({kind}) before the targets has no row per sample")


def _suffix(
    model: nn.Module,
    graph: fx.Graph,
    boundary: Sequence[fx.Node],
    dynamic: set[fx.Node],
    from_inputs: set[fx.Node],
) -> fx.GraphModule:
    out = fx.Graph()
    copies = {node: out.placeholder(node.name) for node in boundary}
    result = next(node for node in graph.nodes if node.op == "output")
    for node in graph.nodes:
        # Constants, like a learned position, belong to the suffix itself.
        constant = node.op == "get_attr" or (node not in from_inputs and node.op != "placeholder")
        if node is not result and (node in dynamic or constant):
            if any(before not in copies for before in node.all_input_nodes):
                continue  # fx's assertion that an argument has its default
            copies[node] = out.node_copy(node, lambda before: copies[before])
    if any(node not in copies for node in result.all_input_nodes):
        raise TracingError("the output does not follow from the values at the cut")
    out.output(map_arg(result.args[0], lambda node: copies[node]))
    suffix = fx.GraphModule(model, out)
    if suffix.graph.eliminate_dead_code():
        suffix.recompile()
    return suffix
