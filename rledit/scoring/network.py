"""The two ways to run a network for a population: cut by tracing, or whole.

Both fold the candidates into the batch, so the network must treat its samples independently of each other
(eval mode). The scorer checks that before it trusts either.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.backends import mha

from ..targets import Target
from .population import Population
from .simplify import simplify
from .tracing import Cut, is_inplace


class Network(Protocol):
    """prefix: inputs [s, ...] -> cached values, each [s, ...]; suffix: those -> logits [n*s, C].

    row_bytes: of the widest activation of one sample in the suffix.
    """

    row_bytes: int

    def prefix(self, inputs: Tensor) -> tuple[Tensor, ...]: ...

    def suffix(self, cached: tuple[Tensor, ...], population: Population) -> Tensor: ...


class CutNetwork:
    """A network that :func:`rledit.scoring.tracing.cut` has cut."""

    def __init__(self, cut: Cut, targets: Sequence[str], inputs: Tensor) -> None:
        """``inputs``: a few samples, to see how wide the activations are."""
        self.cut = cut
        self._targets = tuple(targets)
        self._inplace = any(is_inplace(cut.suffix, node) for node in cut.suffix.graph.nodes)
        simplify(cut.suffix, targets)
        self._channels_last = False
        cached = self.prefix(inputs)
        extras = cut.extras_at(len(inputs))
        widest = _Widest(cut.suffix)
        with torch.no_grad():
            expected = widest.run(*(value.clone() for value in cached), *extras)
            self._channels_last = self._takes_channels_last(cached, extras, expected)
        self.row_bytes = widest.bytes // len(inputs)

    @torch.no_grad()
    def prefix(self, inputs: Tensor) -> tuple[Tensor, ...]:
        # Copied: the network may begin with an in-place call, and the inputs are not ours.
        values: tuple[Tensor, ...] = self.cut.prefix(inputs.clone())
        return tuple(_channels_last(value) for value in values) if self._channels_last else values

    def _takes_channels_last(
        self, cached: tuple[Tensor, ...], extras: tuple[Any, ...], expected: Any
    ) -> bool:
        """Whether the suffix also runs on images stored channels last: convolutions are up to three times
        faster so, but some code, a ``view`` for one, refuses."""
        if not any(value.dim() == 4 for value in cached):
            return False
        try:
            logits = self.cut.suffix(*(_channels_last(value.clone()) for value in cached), *extras)
        except RuntimeError:
            return False
        return isinstance(logits, Tensor) and torch.allclose(logits, expected, rtol=1e-3, atol=1e-4)

    def suffix(self, cached: tuple[Tensor, ...], population: Population) -> Tensor:
        folded = len(cached[0]) * population.size
        extras = self.cut.extras_at(folded)
        shared = [_Shared(value, population.size, self._inplace) for value in cached]
        result: Tensor = _Interpreter(self.cut.suffix, self._targets, population).run(*shared, *extras)
        return result


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


class _Shared:
    """A cached value, the same for all candidates until a node other than a target needs it folded."""

    def __init__(self, value: Tensor, size: int, copied: bool) -> None:
        """``copied``: readers may change what they get in place."""
        self.value = value
        self._size = size
        self._copied = copied

    def folded(self) -> Tensor:
        if self._size == 1 and not self._copied:
            return self.value
        return torch.cat([self.value] * self._size)  # in its memory format, which repeat would forget


_ELEMENTWISE = {operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul}


class _Widest(fx.Interpreter):
    """Runs a graph and remembers the size of its largest value."""

    bytes = 1

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.bytes = max(self.bytes, value.numel() * value.element_size())
        return value


class _Interpreter(fx.Interpreter):
    """Runs the suffix with targets replaced by the population's."""

    def __init__(self, module: fx.GraphModule, targets: Sequence[str], population: Population) -> None:
        super().__init__(module)
        self._targets = set(targets)
        self._population = population

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return super().run_node(n)
        if n.op == "call_function" and n.target in _ELEMENTWISE and len(n.args) == 2 and not n.kwargs:
            a, b = (self.env[arg] if isinstance(arg, fx.Node) else arg for arg in n.args)
            return self._elementwise(n.target, a, b)
        is_target = n.op == "call_module" and n.target in self._targets
        for source in n.all_input_nodes:
            value = self.env[source]
            if isinstance(value, _Shared) and not is_target:
                self.env[source] = value.folded()
        return super().run_node(n)

    def _elementwise(self, function: Any, a: Any, b: Any) -> Any:
        """A residual sum and the like: the shared side is broadcast over the candidates, not copied."""
        size = self._population.size
        shared, folded = (a, b) if isinstance(a, _Shared) else (b, a)
        if not (
            isinstance(shared, _Shared)
            and isinstance(folded, Tensor)
            and folded.shape == (size * len(shared.value), *shared.value.shape[1:])
        ):
            return function(*(x.folded() if isinstance(x, _Shared) else x for x in (a, b)))
        split = folded.unflatten(0, (size, -1))
        out: Tensor = function(shared.value, split) if shared is a else function(split, shared.value)
        return out.flatten(0, 1)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target not in self._targets:
            return super().call_module(target, args, kwargs)
        x = args[0] if args else next(iter(kwargs.values()))
        module = self.submodules[target]
        if not self._population.touches(target):
            return module(x.folded() if isinstance(x, _Shared) else x)
        shared = isinstance(x, _Shared)
        return self._population.run(target, module, x.value if shared else x, shared)


_RUNNING = Lock()


@contextmanager
def calling_modules() -> Iterator[None]:
    """Within it a network calls its modules: torch's fused TransformerEncoderLayer would read their weights
    instead. One thread at a time, since worlds score on threads and this is a flag of torch itself."""
    with _RUNNING:
        fused = mha.get_fastpath_enabled()
        mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            mha.set_fastpath_enabled(fused)


class WholeNetwork:
    """Any module, run from its inputs with its targets replaced while it runs."""

    row_bytes = 16 << 10  # not measured: a guess that keeps passes small

    def __init__(self, model: nn.Module, targets: Iterable[str]) -> None:
        # Targets are replaced while the network runs, so it has modules of its own; the weights are shared.
        shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
        self._model = copy.deepcopy(model, shared)
        self._targets: dict[str, Target] = {}
        for name in targets:
            target = self._model.get_submodule(name)
            assert isinstance(target, Target)
            self._targets[name] = target

    def prefix(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs,)

    def suffix(self, cached: tuple[Tensor, ...], population: Population) -> Tensor:
        (inputs,) = cached
        with calling_modules(), self._replaced(population):
            result: Tensor = self._model(inputs.repeat(population.size, *([1] * (inputs.dim() - 1))))
        return result

    @contextmanager
    def _replaced(self, population: Population) -> Iterator[None]:
        replaced = [(name, target) for name, target in self._targets.items() if population.touches(name)]
        try:
            for name, target in replaced:
                target.forward = partial(population.run, name, target, shared=False)  # type: ignore[method-assign]
            yield
        finally:
            for _, target in replaced:
                target.__dict__.pop("forward", None)


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's own answer, or a ValueError if it is not logits [s, C] with C of 2 or more."""
    logits = model(inputs.clone())
    if not isinstance(logits, Tensor):
        raise ValueError(f"model: expected logits [S, C], got {type(logits).__name__}")
    if logits.dim() != 2 or logits.shape[0] != len(inputs) or logits.shape[1] < 2:
        raise ValueError(
            f"model: expected logits [{len(inputs)}, C] with C of at least 2, got {list(logits.shape)}"
        )
    return logits
