"""A network's logits and features as differentiable functions of factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ..batch import Inputs
from ..heads import Head, features_of, head_inputs
from ..ops import backend
from ..ops.rules import EditRule
from ..samples import Samples
from .editable import Editable
from .editable_model import EditableModel
from .first_targets import FirstTargets
from .network import CutNetwork, calling_modules
from .population import Population
from .tracing import RowsError


class DifferentiableNetwork:
    """Runs candidates of a torch network on some samples of a split with torch's autograd.

    A network that could be cut runs from its cached activations, candidates folded into the batch, as a
    :class:`~rledit.scoring.population.Population` does: a shift costs products of low rank. Another network
    runs whole, candidate by candidate.

    Args:
        editable: what is edited.
        samples: the split.
        features: whether what the head reads is wanted.
        columns: see :class:`~rledit.scoring.first_targets.FirstTargets`.

    Raises:
        TypeError: for a black box, which has no gradients.
        ValueError: for samples that the network fails on, or features that no edit can change.
    """

    def __init__(
        self, editable: Editable, samples: Samples, features: bool, columns: Mapping[str, Tensor]
    ) -> None:
        if not isinstance(editable, EditableModel):
            raise TypeError(
                f"task: expected a torch model, since gradients are asked for; got {type(editable).__name__}"
            )
        self._editable = editable
        self._head: Head | None = editable.head(samples) if features else None
        self._network: CutNetwork | None = editable.network
        self._values: tuple[Any, ...] = ()
        if self._network is not None:
            try:
                self._values = editable.cached(self._network, samples)
            except RowsError:
                self._network = None
        self._samples = samples
        self._first: FirstTargets | None = None
        if self._network is None:
            self._run_whole()
        else:
            self._first = FirstTargets(editable.targets, self._network.cut, self._values, columns)

    def _run_whole(self) -> None:
        self._network = self._first = None
        self._values = (self._editable.inputs(self._samples),)

    def run(
        self, factors: Mapping[str, tuple[Tensor, Tensor]], rule: EditRule, rows: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [N, s, C] and features [N, s, D] (None where they are not wanted) of N candidates.

        Args:
            factors: left [N, O, R] and right [N, R, I] of all targets.
            rule: how they change weights.
            rows: int64 [s], which samples.
        """
        population = Population(
            size=len(next(iter(factors.values()))[0]),
            factors=factors,
            weights={},
            rule=rule,
            backend=backend("reference"),
            precision="float32",
        )
        if self._network is not None:
            try:
                values, population = self._batch(population, rows)
                return self._network.suffix_with_features(values, population, self._head)
            except RowsError:  # rows turn out to be routed inside forward
                self._run_whole()
        return self._whole(population, self._values[0][rows])

    def _batch(self, population: Population, rows: Tensor) -> tuple[tuple[Tensor, ...], Population]:
        known = self._first.batch(population, rows) if self._first is not None else None
        return known or (tuple(value[rows] for value in self._values), population)

    def _whole(self, population: Population, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        model, targets = self._editable.model, self._editable.targets
        weights = {name: population.edited(name, own) for name, own in self._editable.weights().items()}
        logits, features = [], []
        for n in range(population.size):
            own = {
                f"{name}.weight": weights[name][n].view_as(target.weight) for name, target in targets.items()
            }
            with calling_modules():
                if self._head is None:
                    logits.append(functional_call(model, own, (inputs.clone(),)))
                    continue
                with head_inputs(self._head) as read:
                    logits.append(functional_call(model, own, (inputs.clone(),)))
                features.append(features_of(self._head, read, len(inputs)).to(logits[-1].dtype))
        return torch.stack(logits), torch.stack(features) if features else None
