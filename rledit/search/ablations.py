"""Edits of few numbers: how far to take a direction out of what a target reads, and which direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine import Engine
from ..engine.directions import find_directions
from .perturbations import Part, parts_of

STRENGTHS = (-0.5, 2.0)
"""Range of an ablation's strength: 1 takes the direction out, more reverses it, below 0 it is amplified."""


@dataclass(frozen=True)
class _Target:
    """One target's rows.

    Attributes:
        rows: float64 [K, I], of which a direction is a combination.
        coefficients: float64 [K, width], the same rows as the action has them.
        weight: float64 [O, I], unedited.
        gain: what the action's left factors are multiplied with.
    """

    part: Part
    rows: Tensor
    coefficients: Tensor
    weight: Tensor
    gain: float


class Ablations:
    """Maps a few numbers in 0..1 to actions of one-step episodes.

    Directional ablation (A. Arditi et al., "Refusal in Language Models Is Mediated by a Single Direction",
    arXiv:2406.11717) projects weight matrices so that a direction v is gone, a difference of mean
    activations; the program Heretic searches how far. Arditi et al. take v out of what is written, here it is
    taken out of what a target reads: W' = W - s W v vᵀ with v of unit length and a strength s in
    ``STRENGTHS``. Under mask, which cannot do that, inputs are dampened instead: W' = W * (1 - s 1 vᵀ) with a
    largest entry of 1 in v.

    Per target K + 1 numbers: coefficients in -1..1 of v among K rows, which are the contrasts of strata that
    the objective compares (:func:`rledit.engine.directions.find_directions`), or the engine's own directions
    where it has some; and s. Only the first of the edit's ranks is used.

    Raises:
        ValueError: for more than one step, an edit rule of another kind, an objective without strata, or a
            target whose inputs do not tell them apart.
    """

    def __init__(self, engine: Engine) -> None:
        if engine.episode_length != 1:
            raise ValueError(f"env: expected episodes of one step, got {engine.episode_length}")
        if engine.rule.kind not in ("mask", "shift"):
            raise ValueError(f"env: expected the edit rule mask or shift, got {engine.rule.kind}")
        self._engine = engine
        own = engine.layout.directions
        parts = parts_of(engine.layout)
        others = [part.name for part in parts if part.name not in own]
        found = find_directions(engine.task, "strata") if others else {}
        weights = {name: weight.double().cpu() for name, weight in engine.task.editable.weights().items()}
        widest = max((len(each) for each in found.values()), default=0)
        self._targets = []
        for part in parts:
            inputs = weights[part.name].shape[1]
            if part.name in own:
                rows = _whole(own[part.name].rows, own[part.name].columns, inputs)
                coefficients = torch.eye(len(rows), dtype=torch.float64)
            elif part.name in found:
                rows = _whole(found[part.name].rows, found[part.name].columns, inputs)
                rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
                coefficients = rows
            elif inputs <= max(widest, FEW_INPUTS):  # no more inputs than rows: each is a direction
                rows = coefficients = torch.eye(inputs, dtype=torch.float64)
            else:
                raise ValueError(
                    f"env: the inputs of {part.name} do not tell the strata of the objective apart, which "
                    "ablation takes its directions from"
                )
            gain = engine.layout.gains[part.name]
            self._targets.append(_Target(part, rows, coefficients, weights[part.name], gain))
        self.dimensions = sum(len(target.rows) + 1 for target in self._targets)

    def actions(self, numbers: Tensor) -> Tensor:
        """Numbers float64 [N, dimensions] in 0..1 as actions float32 [N, A], on the CPU."""
        actions = torch.zeros(len(numbers), self._engine.layout.size, dtype=torch.float32)
        rank, rule = self._engine.rank, self._engine.rule
        start = 0
        for target in self._targets:
            end = start + len(target.rows)
            mixed = 2 * numbers[:, start:end] - 1
            low, high = STRENGTHS
            strength = low + (high - low) * numbers[:, end : end + 1]
            start = end + 1
            direction = mixed @ target.rows  # [N, I]
            if rule.relative:
                length = direction.abs().amax(1, keepdim=True).clamp(min=1e-12)
                left = torch.ones(len(numbers), target.part.outputs, dtype=torch.float64)
            else:
                length = direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
                left = (direction / length) @ target.weight.T
            left = -strength * left / (rule.scale * target.gain)
            right = mixed @ target.coefficients / length
            # Factors of similar size keep within the engine's bounds.
            ratio = (right.norm(dim=1, keepdim=True) / left.norm(dim=1, keepdim=True).clamp(min=1e-12)).sqrt()
            ratio = ratio.clamp(1e-3, 1e3)
            part = target.part
            actions[:, part.start : part.middle : rank] = (left * ratio).float()
            actions[:, part.middle : part.middle + part.width] = (right / ratio).float()
        return actions


FEW_INPUTS = 16
"""A target that reads no more than this has every input as a direction where strata give none."""


def _whole(rows: Tensor, columns: Tensor, inputs: int) -> Tensor:
    """Rows [K, I'] of some columns as rows float64 [K, I], on the CPU."""
    whole = torch.zeros(len(rows), inputs, dtype=torch.float64)
    whole[:, columns.cpu()] = rows.double().cpu()
    return whole
