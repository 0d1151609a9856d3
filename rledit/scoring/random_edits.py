"""Random edits of a model's targets, really made, and taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..batch import Inputs
from ..targets import Target, as_matrix, find_targets
from .copies import twin_of
from .network import calling_modules, logits_of


class RandomEdits:
    """A shift of rank 1 for each target, about as large as its weights, really made in a model.

    Sizes are factors of the shifts: 0 is no edit.

    Args:
        model: a private copy, in eval mode; it stays as it is.
        targets: its targets.
        source: modules with the same weights. With them the model itself is edited and put right from them,
            else a twin with a second copy of the targets' weights is.

    Attributes:
        factors: left [O, 1] and right [1, I] per target, of an edit of size 1.
    """

    def __init__(
        self, model: nn.Module, targets: Mapping[str, Target], source: Mapping[str, Target] | None = None
    ) -> None:
        self._originals = targets
        self._source = targets if source is None else source
        self._twin = twin_of(model, [target.weight for target in targets.values()] if source is None else [])
        self._targets = find_targets(self._twin, list(targets))
        generator = torch.Generator().manual_seed(0)
        self.factors = {name: _random_factors(target.weight, generator) for name, target in targets.items()}

    def let_the_source_go(self) -> None:
        """Release the source, when nothing is edited from now on."""
        self._source = self._originals

    def logits(self, sizes: Mapping[str, float], inputs: Inputs) -> Tensor:
        """The logits with the weights of these targets edited."""
        with self._taken_back(sizes):
            for name, size in sizes.items():
                self._write(name, size)
            return logits_of(self._twin, inputs)

    def logits_edited_in_calls(self, sizes: Mapping[str, float], inputs: Inputs) -> Tensor:
        """The logits with these weights edited while their modules are being called, and at no other time."""
        with self._taken_back(sizes), self._edited_in_calls(sizes):
            return logits_of(self._twin, inputs)

    def outputs(self, name: str, size: float, inputs: Inputs) -> list[Tensor]:
        """What an edited target gives in each of its calls."""
        outputs: list[Tensor] = []
        hook = self._targets[name].register_forward_hook(lambda *call: outputs.append(call[2].clone()))
        try:
            with calling_modules():
                self.logits({name: size}, inputs)
        finally:
            hook.remove()
        return outputs

    def _write(self, name: str, size: float) -> None:
        weight = self._targets[name].weight.data
        weight.copy_(self._source[name].weight)
        if size:
            left, right = self.factors[name]
            if weight.is_contiguous():
                as_matrix(weight).addr_(left[:, 0], right[0], alpha=size)  # no second matrix of that size
            else:
                weight.add_((size * left @ right).view_as(weight))

    @contextmanager
    def _taken_back(self, names: Iterable[str]) -> Iterator[None]:
        """Take the edits back however the block ends: a forward may leave a target by an exception, and even
        catch it."""
        try:
            yield
        finally:
            for name in names:
                self._write(name, 0.0)

    @contextmanager
    def _edited_in_calls(self, sizes: Mapping[str, float]) -> Iterator[None]:
        hooks = []
        for name, size in sizes.items():
            target = self._targets[name]
            before, after = partial(self._while_called, name, size), partial(self._while_called, name, 0.0)
            hooks += [
                target.register_forward_pre_hook(before, prepend=True),
                target.register_forward_hook(after, always_call=True),
            ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _while_called(self, name: str, size: float, *_: Any) -> None:
        self._write(name, size)


def _random_factors(weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Left [O, 1] and right [1, I] of an edit as large as the weights."""
    matrix = as_matrix(weight.detach())
    outputs, inputs = matrix.shape
    size = float(torch.linalg.vector_norm(matrix)) / matrix.numel() ** 0.5 or inputs**-0.5
    left = size * torch.randn(outputs, 1, generator=generator, device="cpu").to(weight)
    return left, torch.randn(1, inputs, generator=generator, device="cpu").to(weight)
