"""The chosen candidate: low-rank factors that are applied, reverted, saved and loaded."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..ops import apply_lowrank_
from ..ops.rules import EditRule
from ..storage.files import Json
from ..storage.fingerprint import fingerprint
from ..targets import listed
from .file import EditFileError, read_edit, write_edit
from .weights import matrix_of, target_weights, write_weights

__all__ = ["Edit", "EditFileError", "Factors"]

Factors: TypeAlias = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Applied:
    """What one model held before and holds since."""

    originals: dict[str, Tensor]
    before: str  # fingerprints
    after: str


class Edit:
    """A low-rank edit of the weights of named modules.

    A weight is seen as a matrix W [O, I] (Conv2d: I = in_channels * kh * kw). Per step, with s the scale:

    - shift: W' = W + s * (left @ right)
    - mask:  W' = W * (1 + s * (left @ right))

    Args:
        factors: module name -> (left [O, R], right [R, I]) for one step, or (left [T, O, R], right [T, R, I])
            for T steps that are applied one after the other. float32, finite, any strides; copied. R may
            differ between modules, T may not.
        world: "shift" or "mask".
        scale: s, finite.
        fingerprint: `rledit.storage.fingerprint.fingerprint({module name: weight})` of the weights it was
            learned for.
        metrics: what is known about the edit, as JSON; saved with it.

    Raises:
        TypeError: factors that are not float32 tensors.
        ValueError: no factors, shapes that do not fit, a rank of 0 or above min(O, I), NaN or infinity,
            unknown world.
    """

    def __init__(
        self,
        factors: Mapping[str, tuple[Tensor, Tensor]],
        world: str,
        scale: float,
        fingerprint: str,
        metrics: Mapping[str, Json] | None = None,
    ) -> None:
        self.rule = EditRule(world, scale)
        if not factors:
            raise ValueError("factors: expected at least one module, got none")
        self.factors: Factors = {name: _checked(name, pair) for name, pair in factors.items()}
        steps = {name: left.shape[0] if left.dim() == 3 else 1 for name, (left, _) in self.factors.items()}
        if len(set(steps.values())) > 1:
            raise ValueError(f"factors: expected the same number of steps T for every module, got {steps}")
        self.fingerprint = fingerprint
        self.metrics: dict[str, Json] = dict(metrics or {})
        self.steps = next(iter(steps.values()))
        self._applied: weakref.WeakKeyDictionary[nn.Module, _Applied] = weakref.WeakKeyDictionary()

    @property
    def world(self) -> str:
        """The rule's kind."""
        return self.rule.kind

    @property
    def scale(self) -> float:
        """The rule's scale s."""
        return self.rule.scale

    @property
    def targets(self) -> list[str]:
        """Names of the edited modules."""
        return list(self.factors)

    @property
    def rank(self) -> int:
        """The largest rank R of the factors of one step."""
        return max(left.shape[-1] for left, _ in self.factors.values())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n}: {a.shape[-2]}x{b.shape[-1]}" for n, (a, b) in self.factors.items())
        return f"Edit({shapes}; {self.world}, rank {self.rank}, {self.steps} steps, scale {self.scale!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has been applied to nothing: the record belongs to model objects of the original.
        return type(self), (self.factors, self.world, self.scale, self.fingerprint, self.metrics)

    def apply_(self, model: nn.Module, force: bool = False) -> None:
        """Edits the weights of `model` in place; `revert_` brings the original bits back.

        All checks and all arithmetic come before the first write: a model is never left half edited. float16
        and bfloat16 weights are computed in float32 and rounded once, float64 weights in float64.

        Args:
            model: has the modules named in `targets`, each an nn.Linear or nn.Conv2d whose weight has O * I
                values.
            force: edit weights with another fingerprint than the edit was learned for.

        Raises:
            TypeError: a target that is neither nn.Linear nor nn.Conv2d, or whose weight is no floating
                parameter.
            ValueError: a target that the model does not have (lists the modules that could be meant), shapes
                that do not fit, NaN or infinity in the weights before or after, other weights (unless
                `force`).
            RuntimeError: this edit is already applied to this model object.
        """
        weights = target_weights(model, self.targets)
        before = fingerprint(weights)
        record = self._applied.get(model)
        if record is not None and (before == record.after or before != record.before):
            raise RuntimeError("this edit is already applied to this model object; call revert_(model) first")
        edited = self._edited(weights, before, force)
        originals = write_weights(weights, edited)
        self._applied[model] = _Applied(originals, before, fingerprint(weights))

    def revert_(self, model: nn.Module, force: bool = False) -> None:
        """Restores the very bits that `apply_` found in this model object.

        Args:
            model: the object that `apply_` edited (not a copy).
            force: restore even though the weights were changed since, by training or by another edit.

        Raises:
            RuntimeError: the edit is not applied to this model object, or its weights were changed since
                (unless `force`).
        """
        record = self._applied.get(model)
        if record is None:
            raise RuntimeError("this edit is not applied to this model object, so there is nothing to revert")
        weights = target_weights(model, self.targets)
        now = fingerprint(weights)
        if not force and now != record.after:
            raise RuntimeError(
                f"the weights of {self.targets} were changed since apply_: expected {record.after}, "
                f"found {now}; revert later edits first, or restore the original bits with force=True"
            )
        write_weights(weights, record.originals)
        del self._applied[model]

    def apply_to_state_dict(self, state: Mapping[str, Tensor], force: bool = False) -> dict[str, Tensor]:
        """The edited copy of a state dict; `state` and its tensors stay as they are.

        Args:
            state: has `<module>.weight` for every target, 2-D or 4-D; anything else is passed on, not copied.
            force: as in `apply_`.

        Raises:
            TypeError, ValueError: as in `apply_`.
        """
        weights: dict[str, Tensor] = {}
        for name in self.targets:
            key = f"{name}.weight"
            if key not in state:
                known = [k for k, v in state.items() if k.endswith(".weight") and v.dim() in (2, 4)]
                raise ValueError(
                    f"target {name!r}: no tensor {key!r} in the state dict; candidates: {listed(known)}"
                )
            if state[key].dim() not in (2, 4):
                raise TypeError(
                    f"target {name!r}: expected a 2-D or 4-D weight, got {tuple(state[key].shape)}"
                )
            weights[name] = state[key]
        edited = self._edited(weights, fingerprint(weights), force)
        return {**state, **{f"{name}.weight": weight for name, weight in edited.items()}}

    def deltas(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """W' - W of every target as a matrix [O, I], for plots.

        Args:
            weights: module name -> weight [O, I] or [O, C, kh, kw]; other names are ignored.

        Returns:
            float32 (float64 for float64 weights), before any rounding to a half type.
        """
        deltas = {}
        for name, factors in self.factors.items():
            if name not in weights:
                raise ValueError(f"weights: expected {name!r}, got {listed(list(weights))}")
            matrix = self._matrix(name, weights[name])
            deltas[name] = self._compose(matrix, factors) - matrix
        return deltas

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the edit as one safetensors file, atomically; see :mod:`rledit.edits.file`.

        Raises:
            ValueError: NaN or infinity in the metrics.
            OSError: the disk refuses; the previous version is intact.
        """
        write_edit(path, self.factors, self.world, self.scale, self.fingerprint, self.metrics)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Edit:
        """Reads what `save` wrote; factors and scale are bit for bit the same.

        Raises:
            FileNotFoundError: there is no such file.
            EditFileError: (a ValueError) truncated, corrupt or not an edit; says what is wrong.
        """
        try:
            content = read_edit(path)
            edit = cls(content.factors, content.world, content.scale, content.fingerprint, content.metrics)
            content.check_hash()  # last, because the errors above say more
            return edit
        except (TypeError, ValueError) as error:
            raise EditFileError(f"{os.fspath(path)} is not a valid edit: {error}") from error

    def _edited(self, weights: Mapping[str, Tensor], found: str, force: bool) -> dict[str, Tensor]:
        """New weights in the shapes and dtypes of the old ones; nothing is written."""
        matrices = {name: self._matrix(name, weights[name]) for name in self.targets}
        for name, matrix in matrices.items():
            if not torch.isfinite(matrix).all():
                raise ValueError(
                    f"target {name!r}: the weights hold NaN or infinity; expected finite weights"
                )
        if not force and found != self.fingerprint:
            raise ValueError(
                f"the edit was learned for other weights of {self.targets}: expected {self.fingerprint}, "
                f"found {found}; force=True (rledit apply --force) applies it nevertheless"
            )
        edited = {}
        for name, matrix in matrices.items():
            weight = weights[name]
            new = self._compose(matrix, self.factors[name]).to(weight.dtype).reshape(weight.shape)
            if not torch.isfinite(new).all():
                raise ValueError(
                    f"target {name!r}: the edit would put NaN or infinity into its {weight.dtype} weights"
                )
            edited[name] = new
        return edited

    def _matrix(self, name: str, weight: Tensor) -> Tensor:
        left, right = self.factors[name]
        return matrix_of(name, weight.detach(), left.shape[-2], right.shape[-1])

    def _compose(self, matrix: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
        left, right = (f.to(matrix).reshape(self.steps, *f.shape[-2:]) for f in factors)
        matrix = matrix.clone()
        for t in range(self.steps):
            apply_lowrank_(matrix[None], left[None, t], right[None, t], self.world, self.scale)
        return matrix


def _checked(name: str, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Private contiguous copies of left and right, or an error that names what is wrong."""
    if not name:
        raise ValueError("factors: expected module names, got an empty name")
    left, right = pair
    for side, factor in (("left", left), ("right", right)):
        if not isinstance(factor, Tensor) or factor.dtype != torch.float32:
            got = factor.dtype if isinstance(factor, Tensor) else type(factor).__name__
            raise TypeError(f"factors[{name!r}].{side}: expected a float32 tensor, got {got}")
        if factor.dim() not in (2, 3):
            raise ValueError(
                f"factors[{name!r}].{side}: expected 2 or 3 dimensions, got {tuple(factor.shape)}"
            )
        if not torch.isfinite(factor).all():
            raise ValueError(f"factors[{name!r}].{side}: expected finite values, got NaN or infinity")
    shapes = f"left {tuple(left.shape)} and right {tuple(right.shape)}"
    rank = left.shape[-1]
    if left.dim() != right.dim() or left.shape[:-2] != right.shape[:-2] or right.shape[-2] != rank:
        raise ValueError(
            f"factors[{name!r}]: expected left [O, R] and right [R, I], or both with T first; got {shapes}"
        )
    if not 1 <= rank <= min(left.shape[-2], right.shape[-1]) or left.shape[0] == 0:
        raise ValueError(
            f"factors[{name!r}]: expected 1 <= rank <= min(O, I) and at least one step, got {shapes}"
        )
    copies = [f.detach().cpu().clone(memory_format=torch.contiguous_format) for f in (left, right)]
    return copies[0], copies[1]
