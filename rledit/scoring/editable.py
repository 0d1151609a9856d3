"""What scorers know of whatever is edited: its weights, and how candidates of them are evaluated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..ops import Backend, Probe
from ..runtime import all_finite
from ..samples import Samples
from ..targets import check_rank
from .evaluator import Evaluator, FunctionEvaluator

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Factors per target: left [N, O, R] and right [N, R, I], float32 or float64."""


class Editable(ABC):
    """Weights that can be edited, and the way to an evaluator of their candidates.

    Attributes:
        dtype, device: dtype and device of the weights.
        classes: C of the logits.
    """

    dtype: torch.dtype
    device: torch.device
    classes: int

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The unedited weights as matrices [O, I]."""
        ...

    @abstractmethod
    def evaluator(
        self, samples: Samples, backend: Backend, precision: str, probe: Probe | None = None
    ) -> Evaluator:
        """The evaluator of these samples.

        Args:
            probe: probe of the features, where that is to be counted.

        Raises:
            ValueError: for a probe where there are no features that an edit can change.
        """
        ...

    @abstractmethod
    def logits(self, weights: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """Of a split, [S, C], with these weights [O, I] in place of the unedited ones."""
        ...

    def check_factors(self, factors: Factors) -> dict[str, tuple[Tensor, Tensor]]:
        """The factors in the weights' dtype, after every check that :meth:`Scorer.score` promises."""
        checked = {}
        for name, pair in factors.items():
            outputs, inputs = self._matrix_shape("factors", name)
            left, right = (torch.as_tensor(factor).to(self.device, self.dtype) for factor in pair)
            n = left.shape[0] if left.dim() == 3 else 0
            rank = left.shape[2] if left.dim() == 3 else 0
            if left.dim() != 3 or left.shape[1] != outputs or n == 0:
                raise ValueError(
                    f"factors[{name!r}]: expected left [N, {outputs}, R], got {list(left.shape)}"
                )
            if right.shape != (n, rank, inputs):
                raise ValueError(
                    f"factors[{name!r}]: expected right [{n}, {rank}, {inputs}], got {list(right.shape)}"
                )
            check_rank(rank, name, outputs, inputs)
            for side, factor in (("left", left), ("right", right)):
                if not all_finite(factor):
                    raise ValueError(f"factors[{name!r}]: {side} has NaN or infinity")
            checked[name] = (left.contiguous(), right.contiguous())
        return checked

    def check_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights [N, O, I] per target, contiguous and in the weights' dtype."""
        checked = {}
        for name, weight in weights.items():
            outputs, inputs = self._matrix_shape("weights", name)
            if weight.dim() != 3 or weight.shape[1:] != (outputs, inputs) or len(weight) == 0:
                raise ValueError(
                    f"weights[{name!r}]: expected [N, {outputs}, {inputs}], got {list(weight.shape)}"
                )
            checked[name] = weight.to(self.device, self.dtype).contiguous()
        return checked

    def _matrix_shape(self, argument: str, name: str) -> tuple[int, int]:
        if name not in self._shapes:
            raise ValueError(f"{argument}: expected targets {', '.join(self._shapes)}; got {name!r}")
        return self._shapes[name]

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        return {name: (weight.shape[0], weight.shape[1]) for name, weight in self.weights().items()}


class EditableFunction(Editable):
    """A black box: a function from the targets' weights to the logits of the samples.

    Args:
        function: from a dict of weights, each a float32 tensor [O, I] on the CPU, to logits [S, C], a tensor
            or an array. It is called with the unedited weights once, to see C.
        weights: the unedited weights by name, matrices [O, I], tensors or arrays. Copied.

    Raises:
        ValueError: for no weights, weights that are not matrices or not finite, or logits not
            [S, C].
    """

    def __init__(self, function: Callable[[dict[str, Tensor]], Any], weights: Mapping[str, Any]) -> None:
        if not weights:
            raise ValueError("weights: expected at least one matrix, got none")
        self._function = function
        self._weights = {
            name: torch.as_tensor(weight).detach().to("cpu", torch.float32, copy=True).contiguous()
            for name, weight in weights.items()
        }
        for name, weight in self._weights.items():
            if weight.dim() != 2 or weight.numel() == 0:
                raise ValueError(f"weights[{name!r}]: expected a matrix [O, I], got {list(weight.shape)}")
            if not all_finite(weight):
                raise ValueError(f"weights[{name!r}]: expected finite numbers, got NaN or infinity")
        self.dtype, self.device = torch.float32, torch.device("cpu")
        logits = torch.as_tensor(function(dict(self._weights)))
        if logits.dim() != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"function: expected logits [S, C] with C of at least 2, got {list(logits.shape)}"
            )
        self.classes = logits.shape[1]

    def weights(self) -> dict[str, Tensor]:
        return dict(self._weights)

    def logits(self, weights: Mapping[str, Tensor], samples: Samples) -> Tensor:
        return torch.as_tensor(self._function({**self._weights, **weights}))

    def evaluator(
        self, samples: Samples, backend: Backend, precision: str, probe: Probe | None = None
    ) -> Evaluator:
        if probe is not None:
            raise ValueError(
                "objective: it needs probes of the features, which a black box does not show: it gives logits"
            )
        if precision != "float32":
            raise ValueError(f"precision: a function is evaluated in 'float32', got {precision!r}")
        return FunctionEvaluator(
            self._function, self._weights, samples.labels, samples.masks, self.classes, backend
        )
