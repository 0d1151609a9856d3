"""What the agent sees of the weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from .actions import initial_deviation

logger = logging.getLogger("rledit")

ObservationKind = Literal["auto", "weights", "neurons"]

WHOLE_LIMIT = 8192
"""Weights that are observed whole at most; above, "auto" takes per-neuron statistics."""


class Observation(Protocol):
    name: str
    size: int

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Weights per target [N, O, I] -> observations float32 [N, size]."""
        ...


class WholeWeights:
    """All weights over their initial standard deviation (Malik 2026, arXiv:2606.13461)."""

    name = "weights"

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._deviations = initial_deviation(weights)
        self.size = sum(weight.numel() for weight in weights.values())

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        parts = [(weights[name] / std).flatten(1) for name, std in self._deviations.items()]
        return _finite(torch.cat(parts, dim=1).float())


class NeuronStatistics:
    """Mean, standard deviation and largest magnitude of every row and every column.

    3 * (O + I) numbers per target, in units of the initial standard deviation.
    """

    name = "neurons"

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._deviations = initial_deviation(weights)
        self.size = sum(3 * sum(weight.shape) for weight in weights.values())

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for name, std in self._deviations.items():
            scaled = weights[name] / std  # [N, O, I]
            for axis in (2, 1):
                spread = scaled.std(axis, unbiased=False)
                parts += [scaled.mean(axis), spread, scaled.abs().amax(axis)]
        return _finite(torch.cat(parts, dim=1).float())


LARGEST = 1e6
"""The largest magnitude of an observation. Edits that compose over many steps can make weights overflow; what
the agent sees stays a number."""


def _finite(observations: Tensor) -> Tensor:
    return observations.nan_to_num(nan=0.0, posinf=LARGEST, neginf=-LARGEST).clamp(-LARGEST, LARGEST)


def make_observation(name: str, weights: Mapping[str, Tensor]) -> Observation:
    """The observation called ``name``: "weights", "neurons", or "auto".

    "auto" is the weights up to WHOLE_LIMIT of them, then per-neuron statistics, which it logs.

    Args:
        weights: the unedited weights [O, I] per target.

    Raises:
        ValueError: for another name.
    """
    if name == "weights":
        return WholeWeights(weights)
    if name == "neurons":
        return NeuronStatistics(weights)
    if name != "auto":
        raise ValueError(f"observation: expected 'auto', 'weights' or 'neurons', got {name!r}")
    total = sum(weight.numel() for weight in weights.values())
    if total <= WHOLE_LIMIT:
        return WholeWeights(weights)
    chosen = NeuronStatistics(weights)
    logger.warning(
        "The targets have %d weights, more than the %d that are observed whole: the agent observes %d "
        "per-neuron statistics instead (observation='weights' forces the whole).",
        total,
        WHOLE_LIMIT,
        chosen.size,
    )
    return chosen
