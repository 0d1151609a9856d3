"""The arguments of ``score_tail``, by how long they live.

A :class:`TailProblem` is prepared once; each call brings :class:`Candidates` and says what is
:class:`~rledit.ops.counts.Wanted`. A compiled core that lacks an edit rule gets the candidates as edited
weights instead, see :func:`score_formed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .counts import Counts, Wanted, check_samples
from .probe import PROBE_PARTS, Probe, check_fit_shape
from .rules import UNCHANGED, EditRule

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "tanh": torch.tanh,
    "silu": F.silu,
}
PRECISIONS = ("float32", "bfloat16")

FORMED_BYTES = 32 << 20
"""Bytes of edited weights that are formed at a time for a rule that the compiled cores lack."""


class Layer(NamedTuple):
    """A linear layer and the elementwise function after it."""

    weight: Tensor  # [O, I]
    bias: Tensor | None = None  # [O]
    nonlinearity: str = "identity"  # a key of NONLINEARITIES


@dataclass(frozen=True, eq=False)
class TailProblem:
    """The last layers of a network and the samples to score them on.

    Attributes:
        activations: [S, I], floating, the input of the first layer.
        layers: at least one; each takes the outputs of the one before.
        labels: int64 [S], in 0..C-1, where C is the number of outputs of the last layer. Backends check
            the values when they prepare the problem.
        groups: bool [G, S], G <= 64.
        precision: "bfloat16" rounds the operands of every product to bfloat16 and accumulates in the dtype of
            the activations.
        weights_stay: the layers' weights will not change, so they may be read where they are.
        probe: which samples the probes of the features learn from, or None: they cannot be asked for then.
            The features are the input of the last layer, as it comes out of the nonlinearity before,
            unrounded.

    Raises:
        ValueError: for shapes or dtypes that do not fit, or an unknown nonlinearity or precision.
    """

    activations: Tensor
    layers: tuple[Layer, ...]
    labels: Tensor
    groups: Tensor
    precision: str = "float32"
    weights_stay: bool = False
    probe: Probe | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}; got {self.precision!r}")
        if self.activations.dim() != 2:
            raise ValueError(f"activations: expected shape [S, I], got {list(self.activations.shape)}")
        if not self.layers:
            raise ValueError("layers: expected at least one, got none")
        inputs = self.activations.shape[1]
        for i, (weight, bias, nonlinearity) in enumerate(self.layers):
            if weight.dim() != 2 or weight.shape[1] != inputs:
                raise ValueError(f"weights[{i}]: expected shape [O, {inputs}], got {list(weight.shape)}")
            if nonlinearity not in NONLINEARITIES:
                raise ValueError(
                    f"nonlinearities[{i}]: expected one of {', '.join(NONLINEARITIES)}; got {nonlinearity!r}"
                )
            inputs = weight.shape[0]
            if bias is not None and bias.shape != (inputs,):
                raise ValueError(f"biases[{i}]: expected shape [{inputs}], got {list(bias.shape)}")
        check_samples(self.labels, self.groups, self.activations.shape[0])
        if self.probe is not None:
            check_fit_shape(self.probe.fit, self.activations.shape[0])

    def check(self, wanted: Wanted) -> None:
        """Raise ValueError for parts that cannot be counted. Reads no values."""
        wanted.check(self.classes)
        if self.probe is None and wanted.probes:
            part = next(part for part in wanted.parts if part in PROBE_PARTS)
            raise ValueError(f"wanted: {part} needs a probe, which the tail was prepared without")

    @property
    def classes(self) -> int:
        """C, the outputs of the last layer."""
        return self.layers[-1].weight.shape[0]

    @property
    def weights(self) -> list[Tensor]:
        """The weights, [O, I] per layer."""
        return [layer.weight for layer in self.layers]

    @property
    def biases(self) -> list[Tensor | None]:
        """The biases, [O] or None per layer."""
        return [layer.bias for layer in self.layers]

    @property
    def nonlinearities(self) -> list[str]:
        """The nonlinearities, one per layer."""
        return [layer.nonlinearity for layer in self.layers]


class Candidates(NamedTuple):
    """N candidates. Each sequence has one entry per layer.

    Attributes:
        size: N; 1 where there are neither factors nor weights.
        rule: how factors change a weight.
        lefts: [N, O, R], or None where the layer is not edited.
        rights: [N, R, I], or None where the layer is not edited.
        weights: [N, O, I] in place of the layer's own, or None. Factors edit these where there are some.
    """

    size: int
    rule: EditRule
    lefts: Sequence[Tensor | None]
    rights: Sequence[Tensor | None]
    weights: Sequence[Tensor | None]

    def check(self, layers: Sequence[Layer]) -> None:
        """Raise ValueError unless the candidates fit the layers. Reads no values."""
        lengths = [len(part) for part in (self.lefts, self.rights, self.weights)]
        if any(length != len(layers) for length in lengths):
            raise ValueError(
                f"lefts, rights, weights: expected one entry for each of {len(layers)} layers, got lengths "
                f"{lengths}"
            )
        for i, (left, right) in enumerate(zip(self.lefts, self.rights, strict=True)):
            if (left is None) != (right is None):
                raise ValueError(f"lefts[{i}], rights[{i}]: expected both factors or none, got only one")
        # A list, not a set: under torch.compile sizes are symbols, which have no hash.
        sizes = [part.shape[0] for part in (*self.weights, *self.lefts) if part is not None]
        found = sizes[0] if sizes else 1
        if any(size != found for size in sizes):
            raise ValueError(f"lefts, weights: expected one number of candidates, got {sizes}")
        if self.size != found:
            raise ValueError(
                f"candidates: expected {found}, as the factors and weights have, got {self.size}"
            )
        for i, ((weight, _, _), own, left, right) in enumerate(
            zip(layers, self.weights, self.lefts, self.rights, strict=True)
        ):
            outputs, inputs = weight.shape
            if own is not None and own.shape != (found, outputs, inputs):
                raise ValueError(
                    f"weights[{i}]: expected shape [{found}, {outputs}, {inputs}], got {list(own.shape)}"
                )
            if left is None or right is None:
                continue
            if left.dim() != 3 or left.shape[:2] != (found, outputs):
                raise ValueError(
                    f"lefts[{i}]: expected shape [{found}, {outputs}, R], got {list(left.shape)}"
                )
            if right.shape != (found, left.shape[2], inputs):
                raise ValueError(
                    f"rights[{i}]: expected shape [{found}, {left.shape[2]}, {inputs}], "
                    f"got {list(right.shape)}"
                )

    def weights_in(self, layers: Sequence[Layer]) -> list[Tensor]:
        """The weights that the factors edit, per layer: [N, O, I], or the layer's own [O, I]."""
        return [layer.weight if own is None else own for layer, own in zip(layers, self.weights, strict=True)]

    def part(self, start: int, stop: int) -> Candidates:
        """Candidates start..stop-1."""

        def cut(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
            return [None if tensor is None else tensor[start:stop] for tensor in tensors]

        size = min(stop, self.size) - start
        return Candidates(size, self.rule, cut(self.lefts), cut(self.rights), cut(self.weights))

    @torch.no_grad()
    def formed(self, layers: Sequence[Layer]) -> Candidates:
        """The same candidates without factors: edited in plain PyTorch, they bring weights of their own."""
        weights: list[Tensor | None] = []
        for layer, own, left, right in zip(layers, self.weights, self.lefts, self.rights, strict=True):
            edited = own
            if left is not None and right is not None:
                edited = (layer.weight.expand(self.size, -1, -1) if own is None else own).clone()
                self.rule.edit_(edited, left, right)
            weights.append(edited)
        nothing = [None] * len(layers)
        return Candidates(self.size, UNCHANGED, nothing, nothing, weights)


def score_formed(
    score: Callable[[Candidates, Wanted], Counts],
    layers: Sequence[Layer],
    candidates: Candidates,
    wanted: Wanted,
) -> Counts:
    """Score candidates whose rule is not fused: edited weights are formed for a few candidates at a time, at
    most :data:`FORMED_BYTES` of them (or one candidate's), and scored as the candidates' own.

    Args:
        score: ``score`` of a prepared tail.
        layers: those of its problem.

    Raises:
        ValueError: for candidates that do not fit the layers.
    """
    candidates.check(layers)
    each = sum(
        layer.weight.numel() * layer.weight.element_size()
        for layer, left in zip(layers, candidates.lefts, strict=True)
        if left is not None
    )
    at_once = max(1, FORMED_BYTES // max(1, each))
    parts = [
        score(candidates.part(start, start + at_once).formed(layers), wanted)
        for start in range(0, max(1, candidates.size), at_once)
    ]
    return parts[0] if len(parts) == 1 else Counts(*map(torch.cat, zip(*parts, strict=True)))
