"""Objectives: from a tally to one value per candidate, larger is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..ops.counts import TALLY_PARTS
from ..samples import Samples
from ..tally import Tally


@runtime_checkable
class Objective(Protocol):
    """What a task edits for. It sees counts over N candidates, never samples, so it costs next to nothing.

    Three more methods are used where an objective has them: ``relative_to(unedited: Tally)`` returns the
    objective that compares with the unedited model on a split, and ``admissible(tally) -> Tensor`` (bool [N])
    says which candidates keep the objective's constraint; the edit that is returned does, on the validation
    split. The unedited model must. ``compared_groups(groups) -> tuple[str, ...]`` names those of the samples'
    groups between which directions are sought; without it, it is all of them.
    """

    @property
    def needs(self) -> frozenset[str]:
        """The parts of the tally that it reads, of :data:`rledit.ops.TALLY_PARTS`."""
        ...

    def check(self, samples: Samples) -> None:
        """Raise ValueError if these samples lack a group that it reads."""
        ...

    def __call__(self, tally: Tally) -> Tensor:
        """The value of each candidate, float64 [N]."""
        ...

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        """Named figures for people to read, each float64 [N]."""
        ...


@dataclass(frozen=True)
class Unlearning:
    """Forget one group and keep another: ``retain_weight * acc(retain) - forget_weight * acc(forget)``.

    The sum of utility preservation and editing objective of Malik 2026 (arXiv:2606.13461).
    """

    forget: str = "forget"
    retain: str = "retain"
    forget_weight: float = 1.0
    retain_weight: float = 1.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"correct"})

    def check(self, samples: Samples) -> None:
        for group in (self.forget, self.retain):
            if group not in samples.groups:
                raise ValueError(
                    f"objective: Unlearning needs a group {group!r}; the samples have "
                    f"{', '.join(samples.groups)}"
                )

    def __call__(self, tally: Tally) -> Tensor:
        return tally.weigh((self.retain, self.retain_weight), (self.forget, -self.forget_weight))

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        return {
            "forget_accuracy": tally.accuracy(self.forget),
            "retain_accuracy": tally.accuracy(self.retain),
        }


class Function:
    """Any Python function of a tally as an objective.

    Args:
        function: from a :class:`rledit.Tally` to a tensor [N], larger is better.
        needs: the parts of the tally that it reads.

    Raises:
        ValueError: for an unknown part.
    """

    def __init__(self, function: Callable[[Tally], Any], needs: Iterable[str] = ("correct",)) -> None:
        self.function = function
        self.needs = frozenset(needs)
        if unknown := self.needs - set(TALLY_PARTS):
            raise ValueError(
                f"needs: expected some of {', '.join(TALLY_PARTS)}; got {', '.join(sorted(unknown))}"
            )

    def check(self, samples: Samples) -> None:
        pass

    def __call__(self, tally: Tally) -> Tensor:
        values = torch.as_tensor(self.function(tally), dtype=torch.float64)
        if values.shape != (tally.candidates,):
            raise ValueError(
                f"objective: expected one value per candidate, shape [{tally.candidates}], "
                f"got {list(values.shape)}"
            )
        return values

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        if "correct" not in self.needs:
            return {}
        return {f"{group}_accuracy": tally.accuracy(group) for group in tally.groups}


def as_objective(objective: Objective | Callable[[Tally], Any]) -> Objective:
    """The objective itself, or a plain function wrapped in :class:`Function`."""
    if isinstance(objective, type):
        raise TypeError(f"objective: expected an objective, got the class; write {objective.__name__}()")
    if isinstance(objective, Objective):
        return objective
    if callable(objective):
        return Function(objective)
    raise TypeError(
        f"objective: expected an objective or a function of a tally, got {type(objective).__name__}"
    )
