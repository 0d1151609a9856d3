"""Function: a plain function as an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from torch import Tensor

from ..storage.files import Json
from ..tally import Tally
from .base import Objective, as_values, check_needs
from .identity import identity_of


class Function(Objective):
    """Any Python function of a tally as an objective.

    Args:
        function: from a :class:`rledit.Tally` to N numbers, larger is better.
        needs: the parts of the tally that it reads.

    Raises:
        TypeError: for something that cannot be called, or needs that are not a collection.
        ValueError: for an unknown part.
    """

    def __init__(self, function: Callable[[Tally], Any], needs: Iterable[str] = ("correct",)) -> None:
        if not callable(function):
            raise TypeError(f"function: expected a function of a tally, got {type(function).__name__}")
        self.function = function
        self.needs = check_needs(needs)
        self._identity = identity_of(function)  # now: the lists that it appends to are still as they were

    def _called(self) -> str:
        if isinstance(self.function, FunctionType):
            return self.function.__qualname__.rpartition("<locals>.")[2]
        return type(self.function).__name__

    def __call__(self, tally: Tally) -> Tensor:
        """The function's values, float64 [N].

        Raises:
            TypeError, ValueError: if it does not give one number per candidate.
        """
        return as_values(self.function(tally), tally, self._called())

    def identity(self) -> dict[str, Json]:
        return {**self._identity, "needs": sorted(self.needs)}

    def __repr__(self) -> str:
        return f"Function({self._called()}, needs={sorted(self.needs)})"
