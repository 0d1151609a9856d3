"""The relaxation of an engine's task: the objective's soft value as a differentiable function of actions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objectives import Objective, SoftTally
from ..objectives.base import name_of
from ..ops import PROBE_PARTS, places, strata
from ..scoring.differentiable import DifferentiableNetwork
from .engine import Engine

LEAST = 2
"""The fewest samples of a stratum in a batch: one to learn from and one to judge a probe by."""


class Relaxation:
    """Soft values of actions, on batches of the reward split.

    Args:
        engine: with episodes of one step.

    Raises:
        TypeError: for a black box, which has no gradients.
        ValueError: for an objective without :meth:`rledit.Objective.soft`, or longer episodes.
    """

    def __init__(self, engine: Engine) -> None:
        self._objective = engine.episodes.scorer.objective
        if not has_soft(self._objective):
            raise ValueError(
                f"objective: expected one with soft(), since gradients are asked for; "
                f"{name_of(self._objective)} can only be counted"
            )
        if engine.episode_length != 1:
            raise ValueError(
                f"episode_length: expected 1, since gradients are asked for; got {engine.episode_length}"
            )
        samples = engine.task.samples
        probed = any(part in PROBE_PARTS for part in self._objective.needs)
        self._layout, self._rule = engine.layout, engine.rule
        columns = {name: found.columns for name, found in self._layout.directions.items()}
        self._network = DifferentiableNetwork(engine.task.editable, samples, probed, columns)
        self._labels = samples.labels.to(engine.device)
        self._masks = samples.masks.to(engine.device)
        self._names = samples.group_names
        self._strata = strata(samples.labels, samples.masks).cpu()

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random batch of about this many samples, int64 [s], with the same share of each stratum; and
        which of these probes learn from, bool [s]: every second one of each stratum."""
        total = len(self._strata)
        shuffled = torch.randperm(total, generator=generator, device=generator.device).cpu()
        order = shuffled[self._strata[shuffled].argsort(stable=True)]  # random within a stratum
        stratum = self._strata[order]
        sizes = torch.bincount(stratum)
        shares = (sizes * min(1.0, size / total)).round().long().clamp(min=LEAST).minimum(sizes)
        place = places(stratum)
        drawn = place < shares[stratum]
        device = self._labels.device
        return order[drawn].to(device), (place[drawn] % 2 == 0).to(device)

    def __call__(self, actions: Tensor, rows: Tensor, fit: Tensor) -> Tensor:
        """Soft values, floating [N], of actions [N, A] on a batch."""
        factors = self._layout.differentiable_factors(actions)
        logits, features = self._network.run(factors, self._rule, rows)
        groups = dict(zip(self._names, self._masks[:, rows], strict=True))
        value = self._objective.soft(SoftTally(logits, features, self._labels[rows], groups, fit))
        if not isinstance(value, Tensor) or value.shape != (len(actions),) or not value.requires_grad:
            got = type(value).__name__
            if isinstance(value, Tensor):
                got = f"{list(value.shape)}" + ("" if value.requires_grad else ", detached")
            raise ValueError(
                f"objective: expected soft() of {name_of(self._objective)} to give a tensor [{len(actions)}] "
                f"that can be differentiated, one value per candidate; got {got}"
            )
        return value


def has_soft(objective: Objective) -> bool:
    """Whether the objective has a soft counterpart of its own: where a subclass overrides ``__call__`` alone,
    the ``soft`` that it inherits belongs to another objective."""
    classes = type(objective).__mro__
    own = next(cls for cls in classes if "soft" in vars(cls))
    return own is not Objective and not any("__call__" in vars(cls) for cls in classes[: classes.index(own)])
