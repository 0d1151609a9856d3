"""Several edits of one model, one after another: applied in order, and taken out again bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ..storage.fingerprint import fingerprint
from .aliases import Tied
from .edit import Edit
from .ledger_file import Entry, LedgerFileError, read_ledger, write_ledger
from .weights import write_weights

__all__ = ["Base", "Entry", "Ledger", "LedgerFileError", "Removal", "WeightChange", "accuracies"]

Base: TypeAlias = nn.Module | Mapping[str, Tensor]
"""A model, or its state dict."""


class LabeledSamples(Protocol):
    """The part of :class:`rledit.Samples` that a ledger reads."""

    @property
    def labels(self) -> Tensor: ...

    @property
    def groups(self) -> Mapping[str, Tensor]: ...

    def batches(self, batch_size: int = ...) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class WeightChange:
    """What a removal changes in one weight.

    Attributes:
        norm: Frobenius norm of the change.
        relative: the same as a share of the weight's own norm before.
        largest: change of a single value.
    """

    norm: float
    relative: float
    largest: float


@dataclass(frozen=True, eq=False)
class Removal:
    """What taking an edit out changes.

    Attributes:
        name: name of the edit.
        changes: changes of the weights that change, by key of the state dict.
        later: names of the edits that came after it. The search for them saw weights that included this edit,
            whatever they themselves change.
        displaced: those among them whose own targets this edit had changed: they are no longer applied to the
            weights that they were learned for, and may do something else.
        before, after: accuracy by group and by class ("class 3"), with samples; else empty.
    """

    name: str
    changes: Mapping[str, WeightChange]
    later: tuple[str, ...]
    displaced: tuple[str, ...]
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"Without {self.name!r}:"]
        if not self.changes:
            lines.append("  no weight changes")
        for key, change in self.changes.items():
            lines.append(
                f"  {key}: changes by {change.norm:.4g}, {change.relative:.2%} of its norm; one value by "
                f"at most {change.largest:.4g}"
            )
        if self.displaced:
            lines.append(f"  learned on weights that included it: {', '.join(self.displaced)}")
        if others := [name for name in self.later if name not in self.displaced]:
            lines.append(f"  learned later, on other weights of the same model: {', '.join(others)}")
        lines += [
            f"  accuracy of {name}: {self.before[name]:.2%} -> {self.after[name]:.2%}" for name in self.before
        ]
        return "\n".join(lines)


class Ledger:
    """Edits of one base model in the order in which they are applied.

    An edit that was learned on top of others is only valid behind them. The base's weights are not kept:
    whatever needs them is handed the base, and refuses another model.

    Args:
        base: the model before any edit, or its state dict.

    Attributes:
        base: :func:`rledit.storage.fingerprint` of all tensors of the base's state dict.
    """

    def __init__(self, base: Base) -> None:
        self.base = fingerprint(_tensors(base))
        self._entries: tuple[Entry, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries, in the order in which they are applied."""
        return self._entries

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries, in order."""
        return tuple(entry.name for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Ledger({len(self)} edits: {', '.join(self.names) or 'none'}; base {self.base[:19]}...)"

    def append(
        self, edit: Edit, name: str, base: Base | None = None, *, force: bool = False, tied: Tied = None
    ) -> None:
        """Add an edit that comes after all others.

        Args:
            edit: copied.
            name: to find it by; no other entry may have it.
            base: the base; with it the edit is checked now, without it when it is applied.
            force: with a base: take the edit although it was learned for other weights than those that it
                will find.
            tied: see :meth:`rledit.Edit.apply_to_state_dict`.

        Raises:
            ValueError: an empty name or one that is taken, another base, an edit that does not fit the
                weights that the edits before it leave (unless ``force``).
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name: expected some text, got {name!r}")
        if name in self.names:
            raise ValueError(f"name: the ledger already has an edit {name!r}")
        entry = Entry(name, deepcopy(edit), datetime.now(timezone.utc).isoformat(timespec="seconds"))
        if base is not None:
            state = self._replay(self._checked(base), self._entries, tied)
            _, entry = _applied(entry, state, force, tied)
        self._entries = (*self._entries, entry)

    def removal(
        self, name: str, base: Base, *, samples: LabeledSamples | None = None, tied: Tied = None
    ) -> Removal:
        """What :meth:`remove` would change; nothing is removed.

        Args:
            name: name of an entry.
            base: the base; a module if there are samples.
            samples: to compare accuracies on, such as :class:`rledit.Samples`.
            tied: see :meth:`rledit.Edit.apply_to_state_dict`.

        Raises:
            KeyError: no entry has that name.
            ValueError: another base, or an edit that does not fit.
            TypeError: samples with a state dict, which cannot be asked.
        """
        return self._without(name, base, samples, tied)[0]

    def remove(
        self,
        name: str,
        base: Base,
        *,
        force: bool = False,
        samples: LabeledSamples | None = None,
        tied: Tied = None,
    ) -> Removal:
        """Take an edit out. What is left gives, bit for bit, what applying the others to the base gives.

        Args:
            name, base, samples, tied: as for :meth:`removal`.
            force: even though later edits were learned on weights that included this one. They stay, and are
                from now on applied to what they find.

        Returns:
            What has changed.

        Raises:
            KeyError, TypeError: as :meth:`removal`.
            ValueError: as :meth:`removal`; later edits were learned on weights that included this one (unless
                ``force``). The ledger is then as it was.
        """
        removal, left = self._without(name, base, samples, tied)
        if removal.displaced and not force:
            raise ValueError(
                f"{', '.join(map(repr, removal.displaced))}: learned on weights that included {name!r}, so "
                "removing it changes what they do; force=True (rledit ledger remove --force) removes it "
                "anyway and applies them to what is left"
            )
        self._entries = left
        return removal

    def apply_to(self, model: nn.Module, *, tied: Tied = None) -> None:
        """Edit the base in place by all entries in order; all or none.

        Raises:
            ValueError: not the base, or an edit that does not fit; the model is as it was.
        """
        state = self._checked(model)
        edited = self._replay(state, self._entries, tied)
        changed = {key: value for key, value in edited.items() if value is not state[key]}
        write_weights({key: state[key] for key in changed}, changed)

    def apply_to_state_dict(self, state: Mapping[str, Tensor], *, tied: Tied = None) -> dict[str, Tensor]:
        """The edited copy of the base's state dict, with the same bits as :meth:`apply_to`.

        Args:
            state: state dict of the base; it and its tensors stay as they are.
            tied: see :meth:`rledit.Edit.apply_to_state_dict`.

        Raises:
            ValueError: as :meth:`apply_to`.
        """
        return dict(state) | self._replay(self._checked(state), self._entries, tied)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ledger as one safetensors file, atomically.

        Raises:
            ValueError, TypeError: metrics of an edit that are not JSON.
            OSError: the disk refuses; the previous version is intact.
        """
        write_ledger(path, self.base, self._entries)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ledger:
        """Read what :meth:`save` wrote; factors are bit for bit the same.

        Raises:
            FileNotFoundError: there is no such file.
            LedgerFileError: (a ValueError) truncated, corrupt or not a ledger; says what is wrong.
        """
        ledger = cls({})
        ledger.base, ledger._entries = read_ledger(path)
        return ledger

    def _checked(self, base: Base) -> dict[str, Tensor]:
        state = _tensors(base)
        if (found := fingerprint(state)) != self.base:
            raise ValueError(
                f"base: expected the model that the ledger was begun with, without any edit ({self.base}); "
                f"got another one, or one that was edited ({found})"
            )
        return state

    @staticmethod
    def _replay(state: dict[str, Tensor], entries: Sequence[Entry], tied: Tied) -> dict[str, Tensor]:
        for entry in entries:
            state, _ = _applied(entry, state, entry.displaced, tied)
        return state

    def _without(
        self, name: str, base: Base, samples: LabeledSamples | None, tied: Tied
    ) -> tuple[Removal, tuple[Entry, ...]]:
        if name not in self.names:
            raise KeyError(f"no edit {name!r}; the ledger has {', '.join(self.names) or 'none'}")
        if samples is not None and not isinstance(base, nn.Module):
            raise TypeError("samples: expected a module as the base, to be asked; got a state dict")
        state = self._checked(base)
        place = self.names.index(name)
        before = self._replay(state, self._entries, tied)
        after, left = self._replay(state, self._entries[:place], tied), list(self._entries[:place])
        for entry in self._entries[place + 1 :]:
            after, kept = _applied(entry, after, True, tied)
            left.append(kept)
        was = {entry.name: entry.displaced for entry in self._entries}
        asked = isinstance(base, nn.Module) and samples is not None
        return Removal(
            name=name,
            changes={key: _change(before[key], after[key]) for key in before if _differ(before, after, key)},
            later=self.names[place + 1 :],
            displaced=tuple(entry.name for entry in left if entry.displaced and not was[entry.name]),
            before=accuracies(base, samples, before) if asked else {},  # type: ignore[arg-type]
            after=accuracies(base, samples, after) if asked else {},  # type: ignore[arg-type]
        ), tuple(left)


def accuracies(
    model: nn.Module, samples: LabeledSamples, state: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Share of right predictions by group, and by class ("class 3"), 0 to 1.

    Args:
        model: from inputs to logits [S, C]; left as it is.
        samples: with labels in 0..C-1.
        state: to use in place of its own parameters and buffers.
    """
    asked = deepcopy(model).eval()
    if state is not None:
        asked.load_state_dict(state, strict=False)
    with torch.inference_mode():
        right = torch.cat([asked(batch).argmax(1).cpu() for batch in samples.batches()]) == samples.labels
    found = {name: right[mask].double().mean().item() for name, mask in samples.groups.items()}
    for label in samples.labels.unique().tolist():
        found[f"class {label}"] = right[samples.labels == label].double().mean().item()
    return found


def _tensors(base: Base) -> dict[str, Tensor]:
    state = base.state_dict() if isinstance(base, nn.Module) else base
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _applied(
    entry: Entry, state: dict[str, Tensor], force: bool, tied: Tied
) -> tuple[dict[str, Tensor], Entry]:
    """The state after an entry's edit, and the entry with whether it was displaced there."""
    try:
        return entry.edit.apply_to_state_dict(state, tied=tied), replace(entry, displaced=False)
    except ValueError as error:
        try:
            if not force:
                raise
            edited = entry.edit.apply_to_state_dict(state, force=True, tied=tied)
        except ValueError:
            raise ValueError(f"the edit {entry.name!r} does not fit: {error}") from error
    return edited, replace(entry, displaced=True)


def _differ(one: Mapping[str, Tensor], two: Mapping[str, Tensor], key: str) -> bool:
    return one[key] is not two[key] and fingerprint({"": one[key]}) != fingerprint({"": two[key]})


def _change(before: Tensor, after: Tensor) -> WeightChange:
    change, norm = (after.double() - before.double()), float(before.double().norm())
    size = float(change.norm())
    return WeightChange(size, size / norm if norm else float(size > 0), float(change.abs().max()))
