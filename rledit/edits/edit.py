"""The chosen candidate: low-rank factors that are applied, reverted, saved and loaded."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.rules import KINDS, EditRule, check_kind
from ..storage.fingerprint import fingerprint
from ..storage.plain import Json, plain_json
from ..targets import listed
from .aliases import Tied, check_distinct, tied_in_memory
from .applied import Applied, find_modules, weights_of, write
from .factors import Factors, checked_pair
from .file import EditContent, EditFileError, read_edit, write_edit
from .identity import LearnedFor
from .keys import find_keys
from .weights import Weight, check_weight, compose, edited_rows, from_rows

__all__ = ["Edit", "EditFileError", "Factors"]


class Edit:
    """A low-rank edit of the weights of named modules.

    A weight is seen as a matrix W [O, I] (Conv2d: I = in_channels * kh * kw). Per step, with s the scale:

    - shift: W' = W + s * (left @ right)
    - mask:  W' = W * (1 + s * (left @ right))

    Args:
        factors: module name -> (left [O, R], right [R, I]) for one step, or (left [T, O, R], right [T, R, I])
            for T steps that are applied one after the other. float32, finite, any strides; copied. R may
            differ between modules, T may not.
        world: a kind of :data:`rledit.ops.rules.KINDS`: "shift", "mask", or one of your own.
        scale: s, finite.
        fingerprint: `rledit.storage.fingerprint({module name: weight})` of the weights it was learned for.
        metrics: what is known about the edit, saved with it. Kept as the JSON that `load` gives back: keys
            become text, NumPy numbers and tensors become plain ones. Numbers that are not finite may be among
            them until the edit is saved: a figure that could not be measured must not cost the edit.
        casts: `rledit.storage.fingerprints({module name: weight})` of the same weights, by which the edit
            recognizes them in another precision.

    Attributes:
        metrics: a dict that may be added to; it is checked again when the edit is saved.

    Raises:
        TypeError: factors that are not float32 tensors, metrics that are not JSON (names which).
        ValueError: no factors, shapes that do not fit, a rank of 0 or above min(O, I), NaN or infinity in
            factors, unknown world.
    """

    def __init__(
        self,
        factors: Mapping[str, tuple[Tensor, Tensor]],
        world: str,
        scale: float,
        fingerprint: str,
        metrics: Mapping[str, Json] | None = None,
        casts: Mapping[str, str] | None = None,
    ) -> None:
        self.rule = EditRule(check_kind(world), scale)
        if not factors:
            raise ValueError("factors: expected at least one module, got none")
        self.factors: Factors = {name: checked_pair(name, pair) for name, pair in factors.items()}
        steps = {name: left.shape[0] if left.dim() == 3 else 1 for name, (left, _) in self.factors.items()}
        if len(set(steps.values())) > 1:
            raise ValueError(f"factors: expected the same number of steps T for every module, got {steps}")
        self.fingerprint = fingerprint
        self.casts: dict[str, str] = dict(casts or {})
        self.metrics: dict[str, Json] = _plain_metrics({} if metrics is None else metrics, finite=False)
        self.steps = next(iter(steps.values()))
        self._applied: weakref.WeakKeyDictionary[nn.Module, Applied] = weakref.WeakKeyDictionary()

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
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return f"Edit({shapes}; {self.world}, rank {self.rank}, {steps}, scale {self.scale!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has been applied to nothing: the record belongs to model objects of the original.
        return type(self), (self.factors, self.world, self.scale, self.fingerprint, self.metrics, self.casts)

    def apply_(self, model: nn.Module, force: bool = False, *, cast: bool = False) -> None:
        """Edits the weights of `model` in place; `revert_` brings the original bits back.

        All checks and all arithmetic come before the first write: a model is never left half edited. float16
        and bfloat16 weights are computed in float32 and rounded once, float64 weights in float64. A weight
        that the model uses under several names is edited under all of them, being one tensor.

        Args:
            model: has the modules named in `targets`, each an nn.Linear or nn.Conv2d whose weight has O * I
                values; or modules of other names, with the very weights that the edit was learned for.
            force: edit weights with another fingerprint than the edit was learned for.
            cast: edit weights that are, bit for bit, a cast of those that the edit was learned for, such as
                those of `model.bfloat16()`. Warns where rounding takes away half of the edit or more.

        Raises:
            TypeError: a target that is neither nn.Linear nor nn.Conv2d, or whose weight is not a floating
                parameter.
            ValueError: a target that the model does not have (lists the modules that could be meant), shapes
                that do not fit, NaN or infinity in the weights before or after, other weights (unless
                `force`), a cast of the right ones (unless `cast` or `force`).
            RuntimeError: this edit is already applied to this model object.
        """
        record = self._applied.get(model)
        modules = record.modules if record else find_modules(model, self.sizes, self.fingerprint)
        weights = weights_of(model, modules)
        if record is not None and not record.is_undone(weights):
            raise RuntimeError("this edit is already applied to this model object; call revert_(model) first")
        recognized = self.check(weights, force, cast=cast)
        edited = {name: self._edited(name, weights[name], recognized) for name in self.targets}
        self._applied[model] = write(modules, weights, edited)

    def revert_(self, model: nn.Module, force: bool = False) -> None:
        """Restores the exact bits that `apply_` found in this model object.

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
        record.take_back(weights_of(model, record.modules), force)
        del self._applied[model]

    def apply_to_state_dict(
        self, state: Mapping[str, Tensor], force: bool = False, *, cast: bool = False, tied: Tied = None
    ) -> dict[str, Tensor]:
        """The edited copy of a state dict; `state` and its tensors stay as they are.

        A tensor that the state dict has under several keys (tied weights, a layer with two names) is edited
        under all of them: their value is one new tensor. In a state dict from a file each key has memory of
        its own, and whether keys with the same values are one tensor in the model is yours to say: `tied`.

        Args:
            state: has `<module>.weight` for every target, 2-D or 4-D, or the weights that the edit was
                learned for under another key; anything else is passed on, not copied.
            force, cast: as in `apply_`.
            tied: whether keys that have the same values as a target in other memory are the same tensor: True
                edits them as well, False leaves them as they are. Where nothing is said they are refused,
                unless there are at most two different values, as in tensors that are still zero or the
                identity; those are left as they are.

        Raises:
            TypeError: as in `apply_`.
            ValueError: as in `apply_`; keys with the same values as a target's (unless `tied` is given), or
                that share a part of its memory, or share it in another layout; two targets that are one
                tensor. The message names the keys.
        """
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        keys = find_keys(self.sizes, shapes, self.fingerprint, tensors.__getitem__, "state dict")
        weights = {name: tensors[key] for name, key in keys.items()}
        recognized = self.check(weights, force, cast=cast)
        aliases = {name: tied_in_memory(tensors, key, tied) for name, key in keys.items()}
        check_distinct(keys, aliases)
        result = dict(state)
        for name, key in keys.items():
            new = self._edited(name, weights[name], recognized)
            result.update(dict.fromkeys((key, *aliases[name]), new))
        return result

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
            check_weight(name, weights[name], factors)
            parts = [after.sub_(before) for before, after in compose(weights[name], factors, self.rule)]
            deltas[name] = torch.cat(parts)
        return deltas

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the edit as one safetensors file, atomically; see :mod:`rledit.edits.file`.

        Raises:
            ValueError: NaN or infinity in the metrics; names which.
            TypeError: something in the metrics that is not JSON; names which.
            OSError: the disk refuses; the previous version is intact.
        """
        content = EditContent(
            factors=self.factors,
            world=self.world,
            scale=self.scale,
            fingerprint=self.fingerprint,
            metrics=_plain_metrics(self.metrics, finite=True),
            casts=self.casts,
        )
        write_edit(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Edit:
        """Reads what `save` wrote; factors and scale are bit for bit the same.

        Raises:
            FileNotFoundError: there is no such file.
            EditFileError: (a ValueError) truncated, corrupt or not an edit; says what is wrong.
        """
        try:
            content = read_edit(path)
            if content.world not in KINDS:
                raise ValueError(
                    f"its edit rule {content.world!r} is not one of {', '.join(KINDS)}; if it is one of your "
                    "own, add it to rledit.ops.rules.KINDS first"
                )
            edit = cls(
                content.factors,
                content.world,
                content.scale,
                content.fingerprint,
                content.metrics,
                content.casts,
            )
            content.check_hash()  # last, because the errors above say more
            return edit
        except (TypeError, ValueError) as error:
            raise EditFileError(f"{os.fspath(path)} is not a valid edit: {error}") from error

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """O and I of every target."""
        return {name: (left.shape[-2], right.shape[-1]) for name, (left, right) in self.factors.items()}

    def check(self, weights: Mapping[str, Weight], force: bool = False, *, cast: bool = False) -> bool:
        """Whether weights are another precision of those that the edit was learned for.

        Args:
            weights: module name -> weight, for every target; in memory or in a file.
            force, cast: what to let pass, as in `apply_`.

        Raises:
            TypeError, ValueError: the weights that `apply_` refuses.
        """
        for name, factors in self.factors.items():
            check_weight(name, weights[name], factors)
        found = fingerprint(weights)
        return LearnedFor(self.fingerprint, self.casts).check(weights, found, force, cast)

    def edited_rows(self, name: str, weight: Weight, *, warn: bool = False) -> Iterator[Tensor]:
        """The new weight of a target as a matrix in its own dtype, some rows at a time.

        Args:
            name: the target.
            weight: one that `check` has let pass.
            warn: say so where rounding takes away half of the edit or more.

        Raises:
            ValueError: the edit would put NaN or infinity into the weight.
        """
        yield from edited_rows(name, weight, self.factors[name], self.rule, warn)

    def _edited(self, name: str, weight: Tensor, warn: bool) -> Tensor:
        return from_rows(self.edited_rows(name, weight, warn=warn), weight)


def _plain_metrics(metrics: object, finite: bool) -> dict[str, Json]:
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics: expected a dict, got {type(metrics).__name__}")
    plain = plain_json(metrics, "metrics", finite=finite)
    assert isinstance(plain, dict)
    return plain
