"""What a task takes for an objective: one of the base class, a plain function, or what version 0.1 took."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..samples import Samples
from ..storage.files import Json
from ..tally import Tally
from .base import Objective, check_needs, name_of
from .function import Function
from .identity import identity_of

REQUIRED = ("needs", "check", "__call__", "metrics")
"""What an objective of version 0.1 had to have."""

OPTIONAL = ("admissible", "relative_to", "compared_groups")


class Adapted(Objective):
    """An objective of version 0.1: an object with all methods of its protocol, not of the base class.

    Attributes:
        objective: the object itself.
    """

    def __init__(self, objective: Any) -> None:
        self.objective = objective
        self.needs = check_needs(objective.needs, f"objective: {type(objective).__name__}.needs")
        self._offered = _offered(objective)

    def _called(self) -> str:
        return type(self.objective).__name__

    def check(self, samples: Samples) -> None:
        self.objective.check(samples)

    def __call__(self, tally: Tally) -> Tensor:
        values: Tensor = self.objective(tally)
        return values

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        figures: dict[str, Tensor] = self.objective.metrics(tally)
        return figures

    def admissible(self, tally: Tally) -> Tensor | None:
        if not self.constrained:
            return None
        kept: Tensor = self.objective.admissible(tally)
        return kept

    @property
    def constrained(self) -> bool:
        return "admissible" in self._offered

    def relative_to(self, unedited: Tally) -> Objective:
        return Adapted(self.objective.relative_to(unedited)) if self.needs_unedited else self

    @property
    def needs_unedited(self) -> bool:
        return "relative_to" in self._offered

    def compared_groups(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        if "compared_groups" not in self._offered:
            return groups
        return tuple(self.objective.compared_groups(groups))

    def identity(self) -> dict[str, Json]:
        return identity_of(self.objective)


def as_objective(objective: Objective | Callable[[Tally], Any]) -> Objective:
    """The objective itself, or a plain function wrapped in :class:`Function`.

    An object that is not derived from :class:`Objective` but has all methods of version 0.1's protocol still
    works, with a DeprecationWarning.

    Raises:
        TypeError: for a class instead of an instance, something that cannot be called, or an object that has
            some of the protocol's methods and lacks others: its constraint or its needs would be lost.
        ValueError: if it needs an unknown part of the tally.
    """
    if isinstance(objective, type):
        raise TypeError(f"objective: expected an objective, got the class; write {objective.__name__}()")
    if isinstance(objective, Objective):
        check_needs(objective.needs, f"objective: {name_of(objective)}.needs")
        return objective
    name = type(objective).__name__
    offered = _offered(objective)
    if not offered.difference({"__call__"}):
        if callable(objective):
            return Function(objective)
        raise TypeError(f"objective: expected an objective or a function of a tally, got {name}")
    if missing := [part for part in REQUIRED if part not in offered]:
        has = ", ".join(part for part in (*REQUIRED, *OPTIONAL) if part in offered)
        raise TypeError(
            f"objective: {name} has {has} but lacks {', '.join(missing)}; derive it from rledit.Objective, "
            "which has defaults for everything but __call__, or give a plain function as "
            "rledit.Function(function, needs=[...])"
        )
    warnings.warn(
        f"objective: {name} is not derived from rledit.Objective, which will be required; "
        f"write class {name}(rledit.Objective)",
        DeprecationWarning,
        stacklevel=3,
    )
    return Adapted(objective)


def _offered(objective: object) -> frozenset[str]:
    return frozenset(part for part in (*REQUIRED, *OPTIONAL) if hasattr(objective, part))
