"""Run a network that is cut at its targets for many candidates at once.

Candidates are folded into the batch, so the network must treat its samples independently of each other (eval
mode). That is checked before a cut network is trusted.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.backends import mha

from ..batch import Inputs
from ..heads import Head, features_of
from ..targets import is_altered
from .blocks import convolve
from .halves import HALF
from .population import Population
from .simplify import simplify
from .tracing import Cut, RowsError, is_inplace


class CutNetwork:
    """A network that :func:`rledit.scoring.tracing.cut` has cut.

    Attributes:
        row_bytes: bytes of the widest activation of one sample in the suffix.
    """

    def __init__(self, cut: Cut, inputs: Inputs) -> None:
        """``inputs``: a few samples, to see how wide the activations are."""
        self.cut = cut
        self._inplace = any(is_inplace(cut.suffix, node) for node in cut.suffix.graph.nodes)
        simplify(cut.suffix, cut.targets)
        self._channels_last = False
        cached, _ = self.prefix(inputs)
        extras = cut.extras_at(len(inputs))
        widest = _Widest(cut.suffix)
        with torch.no_grad():
            expected = widest.run(*(value.clone() for value in cached), *extras)
            self._channels_last = self._takes_channels_last(cached, extras, expected)
        self.row_bytes = widest.bytes // len(inputs)
        self._interpreter = _Interpreter(cut.suffix, cut.targets)

    @torch.no_grad()
    def prefix(self, inputs: Inputs) -> tuple[tuple[Tensor, ...], bool]:
        """Inputs [s, ...] -> the values to cache, each [s, ...]; and whether what Python read from them is
        what it read when the network was recorded.

        Raises:
            RowsError: see :meth:`Cut.run_prefix`.
        """
        # Copied: the network may begin with an in-place call, and the inputs are not ours.
        values, as_read = self.cut.run_prefix(inputs.clone())
        if self._channels_last:
            values = tuple(_channels_last(value) for value in values)
        return values, as_read

    def _takes_channels_last(
        self, cached: tuple[Tensor, ...], extras: tuple[Any, ...], expected: Any
    ) -> bool:
        """Whether the suffix also runs on images stored channels last: convolutions are up to three times
        faster so, but some code, a ``view`` for one, refuses."""
        if not any(value.dim() == 4 for value in cached):
            return False
        try:
            # Not called as a module: that would print a traceback for the error.
            values = (_channels_last(value.clone()) for value in cached)
            looked = _ByBlocks(self.cut.suffix)
            looked.extra_traceback = False
            logits = looked.run(*values, *extras)
        except RuntimeError:
            return False
        # A first look: check_population() compares what is kept with the network itself.
        size = float(expected.masked_fill(~expected.isfinite(), 0).abs().max())
        return isinstance(logits, Tensor) and torch.allclose(
            logits, expected, rtol=1e-3, atol=1e-4 * size, equal_nan=True
        )

    def suffix(self, cached: tuple[Tensor, ...], population: Population) -> Tensor:
        """Cached values [s, ...] -> logits [n*s, C] of n candidates.

        Raises:
            RowsError: if the rows that a target gets are not those of all candidates, one after the other.
        """
        folded = len(cached[0]) * population.size
        extras = self.cut.extras_at(folded)
        shared = [_Shared(value, population.size, self._inplace) for value in cached]
        result: Tensor = self._interpreter.of(population, folded).run(*shared, *extras)
        return result

    def suffix_with_features(
        self, cached: tuple[Tensor, ...], population: Population, head: Head | None
    ) -> tuple[Tensor, Tensor | None]:
        """:meth:`suffix` as [n, s, C], and what the head reads, [n, s, D]; None without a head."""
        samples = len(cached[0])
        if head is None:
            return self.suffix(cached, population).unflatten(0, (population.size, samples)), None
        read: list[Any] = []
        extras = self.cut.extras_at(samples * population.size)
        shared = [_Shared(value, population.size, self._inplace) for value in cached]
        run = self._interpreter.of(population, samples * population.size)
        run.watch(head.module, read)
        logits: Tensor = run.run(*shared, *extras)
        logits = logits.unflatten(0, (population.size, samples))
        folded = [x.folded() if isinstance(x, _Shared) else x for x in read]
        features = features_of(head, folded, samples * population.size).to(logits.dtype)
        return logits, features.unflatten(0, (population.size, samples))


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


class _ByBlocks(fx.Interpreter):
    """Runs large convolutions by blocks: torch copies their weights into one layout after another."""

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module: Any = self.submodules[target]
        if type(module) is nn.Conv2d and module.groups == 1 and not is_altered(module):
            x = args[0] if args else next(iter(kwargs.values()))
            return convolve(module, x, module.weight, module.bias, module.weight.__getitem__)
        return super().call_module(target, args, kwargs)


class _Widest(_ByBlocks):
    """Runs a graph and remembers the size of its largest value."""

    bytes = 1

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.bytes = max(self.bytes, value.numel() * value.element_size())
        return value


class _Interpreter(_ByBlocks):
    """Runs the suffix with targets replaced by the population's."""

    _population: Population
    _rows: int  # of a folded value
    _watched: nn.Module | None = None
    _read: list[Any]  # what the watched module is called with

    def __init__(self, module: fx.GraphModule, targets: Mapping[str, str]) -> None:
        super().__init__(module)
        self._targets = targets

    def of(self, population: Population, rows: int) -> _Interpreter:
        """One for a pass. What is known of the graph is shared: finding it takes longer than a small pass."""
        own = copy.copy(self)
        own.env = {}
        own._population = population
        own._rows = rows
        return own

    def watch(self, module: nn.Module, read: list[Any]) -> None:
        """Keep what the module is called with from now on."""
        self._watched, self._read = module, read

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
        if self._watched is not None and self.submodules[target] is self._watched:
            self._read.append(args[0] if args else next(iter(kwargs.values())))
        if target not in self._targets:
            return super().call_module(target, args, kwargs)
        x = args[0] if args else next(iter(kwargs.values()))
        if len(args) + len(kwargs) > 1:
            raise RowsError(f"target {self._targets[target]!r} is called with several arguments")
        module = self.submodules[target]
        name = self._targets[target]
        if not self._population.touches(name):
            return super().call_module(target, (x.folded() if isinstance(x, _Shared) else x,), {})
        shared = isinstance(x, _Shared)
        if not shared and (len(x) == 0 or len(x) % self._rows):
            raise RowsError(f"rows are routed inside forward, before target {name!r}")
        return self._population.run(name, module, x.value if shared else x, shared)


_RUNNING = Lock()


@contextmanager
def calling_modules() -> Iterator[None]:
    """Make a network call its modules inside: torch's fused TransformerEncoderLayer would read their weights
    instead. One thread at a time, since worlds score on threads and this is a flag of torch itself."""
    with _RUNNING:
        fused = mha.get_fastpath_enabled()
        mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            mha.set_fastpath_enabled(fused)


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Inputs) -> Tensor:
    """The answer of a model that is called with its inputs, in float32 where it is in half precision.

    Raises:
        ValueError: if the model fails on the inputs, or gives no logits [s, C] with C of 2 or more.
    """
    try:
        logits = model(inputs.clone())
    except Exception as error:
        what = f"inputs {inputs.dtype} {list(inputs.shape)}" if isinstance(inputs, Tensor) else f"{inputs}"
        raise ValueError(f"model: it fails on {what}: {error}") from error
    if not isinstance(logits, Tensor):
        raise ValueError(f"model: expected logits [S, C], got {type(logits).__name__}")
    if logits.dim() != 2 or logits.shape[0] != len(inputs) or logits.shape[1] < 2:
        raise ValueError(
            f"model: expected logits [{len(inputs)}, C] with C of at least 2, got {list(logits.shape)}"
        )
    if not logits.is_floating_point():
        raise ValueError(f"model: expected logits in floating point, got {logits.dtype}")
    return logits.float() if logits.dtype in HALF else logits
