"""The two ways to run a network for a population: cut by tracing, or whole.

Both fold the candidates into the batch, so the network must treat its samples independently of each other
(eval mode). The scorer checks that before it trusts either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.backends import mha

from .population import Population, Target
from .tracing import Cut


class Network(Protocol):
    """prefix: inputs [s, ...] -> cached values, each [s, ...]; suffix: those -> logits [n*s, C]."""

    def prefix(self, inputs: Tensor) -> tuple[Tensor, ...]: ...

    def suffix(self, cached: tuple[Tensor, ...], population: Population) -> Tensor: ...


class CutNetwork:
    """A network that :func:`rledit.scoring.tracing.cut` has cut."""

    def __init__(self, cut: Cut, targets: Sequence[str]) -> None:
        self.cut = cut
        self._targets = tuple(targets)

    def prefix(self, inputs: Tensor) -> tuple[Tensor, ...]:
        # Copied: the network may begin with an in-place call, and the inputs are not ours.
        values: tuple[Tensor, ...] = self.cut.prefix(inputs.clone())
        return values

    def suffix(self, cached: tuple[Tensor, ...], population: Population) -> Tensor:
        folded = len(cached[0]) * population.size
        extras = self.cut.extras_at(folded)
        shared = [_Shared(value, population.size) for value in cached]
        result: Tensor = _Interpreter(self.cut.suffix, self._targets, population).run(*shared, *extras)
        return result


class _Shared:
    """A cached value, the same for all candidates until a node other than a target needs it folded."""

    def __init__(self, value: Tensor, size: int) -> None:
        self.value = value
        self._size = size

    def folded(self) -> Tensor:
        # Always a copy, made anew: the reader may change it in place.
        return self.value.repeat(self._size, *([1] * (self.value.dim() - 1)))


class _Interpreter(fx.Interpreter):
    """Runs the suffix with targets replaced by the population's."""

    def __init__(self, module: fx.GraphModule, targets: Sequence[str], population: Population) -> None:
        super().__init__(module)
        self._targets = set(targets)
        self._population = population

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return super().run_node(n)
        is_target = n.op == "call_module" and n.target in self._targets
        for source in n.all_input_nodes:
            value = self.env[source]
            if isinstance(value, _Shared) and not is_target:
                self.env[source] = value.folded()
        return super().run_node(n)

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
"""One WholeNetwork runs at a time: worlds score on threads, and a flag of torch itself is changed."""


class WholeNetwork:
    """Any module, run from its inputs with its targets replaced while it runs."""

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
        with _RUNNING, self._replaced(population):
            result: Tensor = self._model(inputs.repeat(population.size, *([1] * (inputs.dim() - 1))))
        return result

    @contextmanager
    def _replaced(self, population: Population) -> Iterator[None]:
        replaced = [(name, target) for name, target in self._targets.items() if population.touches(name)]
        # torch's fused TransformerEncoderLayer reads weights without calling their modules.
        fused = mha.get_fastpath_enabled()
        try:
            mha.set_fastpath_enabled(False)
            for name, target in replaced:
                target.forward = partial(population.run, name, target, shared=False)  # type: ignore[method-assign]
            yield
        finally:
            mha.set_fastpath_enabled(fused)
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
