"""The graph of a network as it runs: for those whose forward cannot be traced symbolically.

torch.fx calls a forward with stand-ins for tensors, which most code that looks at shapes or numbers refuses.
Here the forward runs on real samples, twice, and what it calls is written down: torch functions and methods
as they come, plain layers and targets as modules. Loops and branches are those that the samples took. Two
runs, on two samples and on three, tell what grows with the batch from what does not.

What Python reads from a tensor (``if mask.all():``) decides which way is taken. Such reads are kept in the
graph: one that depends on an edit makes it useless, one that depends on the samples must be the same for all
of them, or be shown not to matter (:meth:`rledit.scoring.tracing.Cut.run_prefix`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

READ = "rledit_read"
"""Key in ``node.meta`` of what Python reads from a tensor."""

CONSTANT = "rledit_constant_"
"""Begin of the names of buffers that hold tensors from outside of the network."""


class RecordingError(ValueError):
    """What the network does cannot be written down, or is not the same for any samples."""


def record(model: nn.Module, targets: Mapping[str, Any], inputs: Any, *, modules: bool = False) -> fx.Graph:
    """The graph of a network, with one placeholder for its inputs.

    Tensors that the network holds elsewhere than in parameters and buffers become buffers of ``model``.

    Args:
        model: a private copy, in eval mode.
        targets: names of modules that are kept whole, as those of torch that hold none of them are.
        inputs: at least 3 samples.
        modules: also keep every module whole that ends before the first target begins, whatever it does: then
            it may go different ways for different samples, such as to different experts.

    Raises:
        RecordingError: if the runs differ in more than the size of the batch.
    """
    with torch.no_grad():
        few, more = (_Recorder(model, targets, modules).run(inputs[:count].clone()) for count in (2, 3))
    return _joined(model, few, more)


_METADATA = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point",
    "is_complex", "element_size", "get_device", "type", "storage_offset", "data_ptr", "__len__", "__hash__",
    "__repr__", "is_tensor", "is_pinned", "is_inference", "is_shared", "is_storage", "has_names",
}  # fmt: skip

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "__add__": operator.add, "sub": operator.sub, "__sub__": operator.sub,
    "mul": operator.mul, "__mul__": operator.mul, "div": operator.truediv, "__truediv__": operator.truediv,
    "matmul": operator.matmul, "__matmul__": operator.matmul,
}  # fmt: skip
"""Methods that are what an operator does, with two arguments; operators are what a suffix knows."""


def set_at(x: Tensor, index: Any, value: Any) -> Tensor:
    """``x[index] = value`` of a copy."""
    x = x.clone()
    x[index] = value
    return x


class _Recorder(TorchFunctionMode):
    """Writes a run down."""

    def __init__(self, model: nn.Module, targets: Mapping[str, Any], modules: bool) -> None:
        super().__init__()
        self._model = model
        self._names: dict[int, str] = {}
        for name, module in model.named_modules():
            self._names.setdefault(id(module), name)
        holders = {name.rpartition(".")[0] for name in targets}
        self._above = {part for name in holders for part in _prefixes(name)}
        self._targets = set(targets)
        self._before = modules  # keep modules whole: no target has been called yet
        self._attributes = {id(value): name for name, value in model.named_parameters(remove_duplicate=False)}
        self._attributes |= {id(value): name for name, value in model.named_buffers(remove_duplicate=False)}
        self._known: dict[int, fx.Node] = {}
        self._held: list[Any] = []  # what has an id that is known must not be freed
        self._paused = False
        self.graph = fx.Graph()
        self.constants: list[Tensor] = []
        self.first = sum(name.startswith(CONSTANT) for name, _ in model.named_buffers())

    def run(self, inputs: Any) -> _Recorder:
        placeholder = self.graph.placeholder("inputs")
        self._learn(inputs, placeholder)
        if not isinstance(inputs, Tensor):
            for name, value in inputs.items():
                self._learn(value, self._node("call_function", operator.getitem, (placeholder, name), {}))
        with _calls_of_modules(self._call), self:
            result = self._model(inputs)
        if not isinstance(result, Tensor):
            raise RecordingError(f"its output is no tensor, but {type(result).__name__}")
        self.graph.output(self._arguments(result))
        return self

    # ------------------------------------------------------------------------------------- modules

    def _call(self, forward: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        name = self._names.get(id(module))
        if self._paused or name is None or not self._whole(module, name):
            return forward(module, *args, **kwargs)
        node = self._node("call_module", name, self._arguments(args), self._arguments(kwargs))
        with self._pause():
            result = forward(module, *args, **kwargs)
        self._learn(result, node)
        return result

    def _whole(self, module: nn.Module, name: str) -> bool:
        """Whether a module is one node: a target, or one of torch's own that holds none, or one before."""
        if name in self._targets:
            self._before = False
            return True
        torchs = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
        return (torchs or self._before) and name not in self._above

    # ----------------------------------------------------------------------------------- functions

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        if name in _METADATA:
            return func(*args, **kwargs)
        if name == "__iter__":
            return iter(torch.unbind(args[0], 0))
        if name == "__setitem__":
            node = self._node("call_function", set_at, self._arguments(args), {})
            func(*args)
            self._know(args[0], node)
            return None
        op, target, own = self._kind(func, name, args, kwargs)
        node = self._node(op, target, self._arguments(args), self._arguments(own))
        result = func(*args, **kwargs)
        if not self._learn(result, node):
            node.meta[READ] = True
        return result

    def _kind(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Any, dict[str, Any]]:
        own = getattr(torch.Tensor, name, None) is func
        if own or getattr(func, "__objclass__", None) is torch._C.TensorBase:
            if name == "__getitem__":
                return "call_function", operator.getitem, kwargs
            if name in _OPERATORS and len(args) == 2 and not kwargs:
                return "call_function", _OPERATORS[name], kwargs
            return "call_method", name, kwargs
        if getattr(func, "__module__", None) == "torch._tensor":
            return "call_method", name, kwargs
        return "call_function", func, kwargs

    def _attribute(self, func: Any, args: tuple[Any, ...]) -> Any:
        """``x.shape`` and the like, and those that are tensors: ``x.T``, ``x.data``."""
        result = func(*args)
        if isinstance(result, Tensor) and id(result) not in self._attributes:
            name = func.__self__.__name__
            self._learn(result, self._node("call_function", getattr, (self._arguments(args[0]), name), {}))
        return result

    # ---------------------------------------------------------------------------------------- values

    def _node(self, op: str, target: Any, args: Any, kwargs: Any) -> fx.Node:
        return self.graph.create_node(op, target, args, kwargs)

    def _know(self, value: Tensor, node: fx.Node) -> None:
        self._known[id(value)] = node
        self._held.append(value)

    def _learn(self, result: Any, node: fx.Node) -> bool:
        """Remember which tensors a node has made; whether there is any, or nothing at all."""
        if result is None:
            return True
        if isinstance(result, Tensor):
            self._know(result, node)
            return True
        items: Iterator[tuple[Any, Any]]
        if isinstance(result, Mapping):
            items = iter(result.items())
        elif isinstance(result, (tuple, list)):
            items = iter(enumerate(result))
        else:
            return False
        found = False
        for key, value in items:
            if isinstance(value, (Tensor, tuple, list, Mapping)):
                child = self._node("call_function", operator.getitem, (node, key), {})
                found = self._learn(value, child) or found
        return found

    def _arguments(self, value: Any) -> Any:
        """What a node is called with: nodes in place of tensors."""
        if isinstance(value, Tensor):
            return self._source(value)
        if isinstance(value, Mapping):
            return {key: self._arguments(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            items = [self._arguments(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, slice):
            return slice(*(self._arguments(part) for part in (value.start, value.stop, value.step)))
        if isinstance(value, np.generic):
            return value.item()
        if value is None or value is Ellipsis or isinstance(value, _PLAIN):
            return value
        raise RecordingError(f"an operation is called with a {type(value).__name__}")

    def _source(self, value: Tensor) -> fx.Node:
        if (node := self._known.get(id(value))) is not None:
            return node
        name = self._attributes.get(id(value))
        if name is None:
            name = f"{CONSTANT}{self.first + len(self.constants)}"
            self.constants.append(value.detach())
        node = self.graph.get_attr(name)
        self._know(value, node)
        return node

    @contextmanager
    def _pause(self) -> Iterator[None]:
        self._paused = True
        try:
            yield
        finally:
            self._paused = False


_PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


def _prefixes(name: str) -> Iterator[str]:
    """A module's name and those of all that it is in."""
    parts = name.split(".")
    for count in range(len(parts) + 1):
        yield ".".join(parts[:count])


_PATCHING = RLock()


@contextmanager
def _calls_of_modules(call: Callable[..., Any]) -> Iterator[None]:
    """Let ``call`` see every call of a module. One thread at a time: it is torch's own class that changes."""
    with _PATCHING:
        forward = nn.Module.__call__

        def seen(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return call(forward, module, args, kwargs)

        nn.Module.__call__ = seen  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = forward  # type: ignore[method-assign]


def _joined(model: nn.Module, few: _Recorder, more: _Recorder) -> fx.Graph:
    """The graph of the run on two samples, in which numbers that are larger in that on three are those of the
    batch."""
    if len(few.constants) != len(more.constants) or not all(
        torch.equal(a, b) for a, b in zip(few.constants, more.constants, strict=True)
    ):
        raise RecordingError("it makes tensors that are not the same for any samples")
    nodes, others = list(few.graph.nodes), list(more.graph.nodes)
    if len(nodes) != len(others):
        raise RecordingError("it takes another way for other samples")
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    same = dict(zip(others, nodes, strict=True))
    sizes: dict[int, fx.Node] = {}

    def size(per_sample: int) -> fx.Node:
        """The node of a number that grows with the batch."""
        if per_sample not in sizes:
            rows = sizes.get(1)
            if rows is None:
                with graph.inserting_after(next(iter(graph.nodes))):
                    rows = sizes[1] = graph.call_function(len, (next(iter(graph.nodes)),))
            if per_sample != 1:
                with graph.inserting_after(rows):
                    sizes[per_sample] = graph.call_function(operator.mul, (rows, per_sample))
        return sizes[per_sample]

    def joined(one: Any, other: Any) -> Any:
        if isinstance(one, fx.Node):
            if not isinstance(other, fx.Node) or same[other] is not one:
                raise RecordingError("it takes another way for other samples")
            return copies[one]
        if isinstance(one, (tuple, list)) and type(one) is type(other) and len(one) == len(other):
            return type(one)(joined(a, b) for a, b in zip(one, other, strict=True))
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            return {key: joined(value, other[key]) for key, value in one.items()}
        if isinstance(one, slice) and isinstance(other, slice):
            parts = ("start", "stop", "step")
            return slice(*(joined(getattr(one, part), getattr(other, part)) for part in parts))
        if type(one) is type(other) and (one == other or one != one):
            return one
        if type(one) is int and type(other) is int and 3 * one == 2 * other:
            return size(one // 2)
        raise RecordingError(f"it works with a number that is {one} for 2 samples and {other} for 3")

    for node, other in zip(nodes, others, strict=True):
        if node.op != other.op or node.target != other.target:
            raise RecordingError("it takes another way for other samples")
        args = joined(_plain(node.args), _plain(other.args))
        kwargs = joined(_plain(node.kwargs), _plain(other.kwargs))
        copy = copies[node] = graph.create_node(node.op, node.target, args, kwargs, node.name)
        copy.meta[READ] = node.meta.get(READ, False)
    for number, constant in enumerate(few.constants, few.first):
        model.register_buffer(f"{CONSTANT}{number}", constant.clone(), persistent=False)
    return graph


def _plain(value: Any) -> Any:
    """fx's immutable lists and dicts as tuples, lists and dicts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return value
