"""Edit rules: how the factors of a candidate change a weight. A new rule is one entry of :data:`KINDS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from ..checks import real

Kind: TypeAlias = Literal["shift", "mask"]
"""Names of the rules that ship with rledit, for type checkers; :data:`KINDS` may hold more."""


@dataclass(frozen=True)
class RuleKind:
    """What is specific to a kind of rule.

    Attributes:
        formula: for people to read.
        edit_: changes weights [N, O, I] in place by ``delta = scale * (left @ right)`` [N, O, I]. A delta of
            zero must change nothing.
        relative: whether delta is a proportion of the weight already. If not, engines scale actions by the
            standard deviation of each target's weights, so that an action of a given size changes every layer
            by a similar proportion.
        fused: whether the compiled cores know it. Weights are edited by ``edit_`` and then scored where they
            do not.
    """

    formula: str
    edit_: Callable[[Tensor, Tensor], object]
    relative: bool
    fused: bool = False


KINDS: dict[str, RuleKind] = {
    "shift": RuleKind(
        formula="W + scale * (left @ right)",
        edit_=lambda weight, delta: weight.add_(delta),
        relative=False,
        fused=True,
    ),
    "mask": RuleKind(
        formula="W * (1 + scale * (left @ right))",
        edit_=lambda weight, delta: weight.mul_(1 + delta),
        relative=True,
        fused=True,
    ),
}
"""Kinds of rules by name. The two worlds of Malik 2026 (arXiv:2606.13461): additive and multiplicative."""


def check_kind(kind: str, argument: str = "world") -> str:
    """The kind itself; ValueError for an unknown one, with those that are known."""
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise ValueError(f"{argument}: expected one of {known}; got {kind!r}")
    return kind


@dataclass(frozen=True)
class EditRule:
    """How factors change a weight: a kind and the scale s of its formula.

    Attributes:
        kind: an entry of :data:`KINDS`: "shift", "mask", or one of your own.
        scale: s.

    Raises:
        ValueError: for an unknown kind, or a scale that is not finite.
    """

    kind: str = "shift"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_kind(self.kind, "kind")
        object.__setattr__(self, "scale", real("scale", self.scale))

    @property
    def fused(self) -> bool:
        """See :class:`RuleKind`."""
        return KINDS[self.kind].fused

    @property
    def relative(self) -> bool:
        """See :class:`RuleKind`."""
        return KINDS[self.kind].relative

    def edit_(self, weight: Tensor, left: Tensor, right: Tensor) -> None:
        """Edit weights [N, O, I] in place by left [N, O, R] and right [N, R, I], in plain PyTorch."""
        KINDS[self.kind].edit_(weight, self.scale * (left @ right))

    def __str__(self) -> str:
        return self.kind if self.scale == 1.0 else f"{self.kind}, scale {self.scale:g}"


UNCHANGED = EditRule()
"""The rule of candidates without factors, where it does not matter."""
