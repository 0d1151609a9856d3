"""The flat action: the factors of all targets, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..ops.rules import EditRule
from ..runtime import dense, scaled
from ..targets import check_rank
from ..task import Task
from .directions import DirectionKind, find_directions


class ActionLayout:
    """Where each factor lies in an action [A], and what its numbers are worth.

    For each target in turn: left [O, R] row by row, then right [R, I], or its coefficients [R, K] where right
    factors lie in K :class:`~rledit.engine.directions.Directions`. An action is in units of the world: under
    shift, ``left`` is multiplied by the standard deviation of the target's weights, so that an action of a
    given size changes every layer by a similar proportion; under mask the product is a proportion already.
    Coefficients change a layer by less than as many inputs would.

    Raises:
        ValueError: for a rank below 1 or above a target's min(O, I), or as :func:`find_directions`.
    """

    def __init__(self, task: Task, rule: EditRule, rank: int, directions: DirectionKind = "all") -> None:
        self.rank = rank
        self.shapes: dict[str, tuple[int, int]] = {}
        weights = task.editable.weights()
        self.gains = dict.fromkeys(weights, 1.0) if rule.relative else initial_deviation(weights)
        for name, weight in weights.items():
            outputs, inputs = weight.shape
            check_rank(rank, name, outputs, inputs)
            self.shapes[name] = (outputs, inputs)
        self.dtype = task.editable.dtype
        self.directions = find_directions(task, directions)
        self._widths = {
            name: len(self.directions[name]) if name in self.directions else inputs
            for name, (_, inputs) in self.shapes.items()
        }
        self.size = len(self.right_mask())

    def factors(self, actions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Actions float32 [N, A] as left [N, O, R] and right [N, R, I] per target, in the model's dtype.

        They are rounded to float32 first: these are the numbers that :meth:`edit_factors` keeps.
        """
        factors = {}
        n = len(actions)
        for name, left, right in self._cut(actions.detach()):
            left = scaled(left, self.gains[name]).reshape(n, self.shapes[name][0], self.rank)
            right = dense(right).reshape(n, self.rank, self._widths[name])
            if name in self.directions:
                right = self.directions[name].expand(right)
            factors[name] = left.to(self.dtype), right.to(self.dtype)
        return factors

    def differentiable_factors(self, actions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """:meth:`factors`, but for rounding, as differentiable functions of the actions."""
        factors = {}
        for name, left, right in self._cut(actions):
            left = self.gains[name] * left.unflatten(1, (-1, self.rank))
            right = right.unflatten(1, (self.rank, -1))
            if name in self.directions:
                right = self.directions[name].differentiable(right)
            factors[name] = left.to(self.dtype), right.to(self.dtype)
        return factors

    def start(self, count: int, deviation: float, generator: torch.Generator) -> Tensor:
        """Where searches start, float32 [count, A] on the CPU: left factors at zero, right ones at random
        with this standard deviation, as a fresh policy's means (see
        :class:`rledit.policies.GaussianPolicy`). It is the identity, but the reward has a slope."""
        drawn = deviation * torch.randn((count, self.size), generator=generator, dtype=torch.float32)
        return torch.where(self.right_mask(), drawn, 0.0)

    def _cut(self, actions: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each target with its parts of actions [N, A], which belong to left and to right."""
        start = 0
        for name, (outputs, _) in self.shapes.items():
            middle = start + outputs * self.rank
            end = middle + self.rank * self._widths[name]
            yield name, actions[:, start:middle], actions[:, middle:end]
            start = end

    def edit_factors(self, actions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The actions [T, A] of an episode as an edit's float32 factors: [O, R], [R, I], or T in front."""
        stacked = {
            name: (left.float().cpu(), right.float().cpu())
            for name, (left, right) in self.factors(actions).items()
        }
        if len(actions) > 1:
            return stacked
        return {name: (left[0], right[0]) for name, (left, right) in stacked.items()}

    def check(self, actions: Tensor, candidates: int, device: torch.device) -> None:
        """Raise unless these are actions float32 [candidates, A] on a device of this type."""
        if not isinstance(actions, Tensor):
            raise TypeError(f"actions: expected a tensor, got {type(actions).__name__}")
        shape, got = (candidates, self.size), (actions.dtype, actions.device.type)
        if actions.shape != shape or got != (torch.float32, device.type):
            raise ValueError(
                f"actions: expected float32 {list(shape)} on {device}, got {actions.dtype} "
                f"{list(actions.shape)} on {actions.device}"
            )

    def shrunk(self, actions: Tensor, share: float) -> Tensor:
        """Actions [..., A] that change the weights by ``share`` as much."""
        return torch.where(self.right_mask().to(actions.device), actions, share * actions)

    def tensors(self) -> dict[str, Tensor]:
        """The directions by name: actions mean the same in another layout only if these are the same."""
        return {f"directions.{name}": found.rows for name, found in self.directions.items()}

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ValueError unless these, from a checkpoint, are :meth:`tensors`, up to rounding."""
        for name, ours in self.tensors().items():
            theirs = tensors[name].to(ours.device)
            if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=1e-4):
                raise ValueError(f"checkpoint: it does not belong to this search ({name} differs)")

    def right_mask(self) -> Tensor:
        """Bool [A]: the entries that belong to right factors."""
        sizes = [
            size
            for name, (outputs, _) in self.shapes.items()
            for size in (outputs * self.rank, self.rank * self._widths[name])
        ]
        right = torch.arange(len(sizes), device="cpu") % 2 == 1
        return right.repeat_interleave(torch.tensor(sizes, device="cpu"))


def initial_deviation(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Standard deviation of each target's weights; 1 where it is zero or undefined."""
    deviations = {}
    for name, weight in weights.items():
        deviation = float(weight.std()) if weight.numel() > 1 else 0.0
        deviations[name] = deviation if deviation > 0 else 1.0
    return deviations
