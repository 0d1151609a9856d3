"""Inputs of several tensors: what a model is called with by position or by keyword; all have a row per
sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn


class Batch:
    """S samples of several tensors.

    It is sliced, cloned and split as a tensor is. The tensors have names: the keys of a mapping, or their
    places in a tuple, "0", "1"; within a mapping or tuple that is an entry itself "outer.inner".

    Args:
        inputs: a tuple (called by position) or a mapping (by keyword) of tensors or arrays [S, ...], also
            nested; None, numbers and strings are passed to the model as they are.

    Raises:
        TypeError: for anything else in it.
        ValueError: without a tensor, or for tensors of differing lengths.
    """

    def __init__(self, inputs: Sequence[Any] | Mapping[str, Any]) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._spec = self._taken_apart(inputs, "")
        if not self._tensors:
            raise ValueError("inputs: expected at least one tensor, got none")
        lengths = {name: len(tensor) for name, tensor in self._tensors.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"inputs: expected one row per sample in every tensor, got rows of {found}")

    def _taken_apart(self, value: Any, name: str) -> Any:
        """The same with names in place of tensors."""
        if isinstance(value, np.ndarray):
            value = torch.as_tensor(value)
        if isinstance(value, Tensor):
            if value.dim() == 0:
                raise ValueError(f"inputs[{name!r}]: expected shape [S, ...], got a scalar")
            self._tensors[name] = value
            return _Name(name)
        if isinstance(value, Mapping):
            keys = list(value)
            if wrong := [key for key in keys if not isinstance(key, str)]:
                raise TypeError(f"inputs: expected names, got {wrong[0]!r}")
            return {key: self._taken_apart(value[key], f"{name}.{key}" if name else key) for key in keys}
        if isinstance(value, (tuple, list)):
            return tuple(
                self._taken_apart(item, f"{name}.{place}" if name else str(place))
                for place, item in enumerate(value)
            )
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"inputs[{name!r}]: expected a tensor or an array, got {type(value).__name__}")

    # ------------------------------------------------------------------------------------ as a tensor

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def __getitem__(self, key: Any) -> Any:
        """One of the tensors by name; or some of the rows."""
        return self._tensors[key] if isinstance(key, str) else self.mapped(lambda _, tensor: tensor[key])

    def items(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._tensors.items()

    def clone(self) -> Batch:
        return self.mapped(lambda _, tensor: tensor.clone())

    def mapped(self, change: Callable[[str, Tensor], Tensor]) -> Batch:
        """Every tensor as ``change(name, tensor)`` has it."""
        own = object.__new__(Batch)
        own._spec = self._spec
        own._tensors = {name: change(name, tensor) for name, tensor in self._tensors.items()}
        return own

    def split(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @property
    def spec(self) -> Any:
        """What the model is called with, names in place of tensors."""
        return self._spec

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in self._tensors.items())
        return f"Batch({parts})"


Inputs: TypeAlias = Tensor | Batch
"""What a model is called with: a tensor [S, ...], or several."""


class _Name(str):
    """The name of a tensor, in a specification."""

    __slots__ = ()


def as_inputs(inputs: Any) -> Inputs:
    """A tensor or an array as a tensor; a tuple or a mapping as a :class:`Batch`.

    Raises:
        TypeError, ValueError: for anything else, a scalar, or what :class:`Batch` refuses.
    """
    if isinstance(inputs, Batch):
        return inputs
    if isinstance(inputs, np.ndarray):
        inputs = torch.as_tensor(inputs)
    if isinstance(inputs, Tensor):
        if inputs.dim() == 0:
            raise ValueError("inputs: expected shape [S, ...], got a scalar")
        return inputs
    if isinstance(inputs, (Mapping, tuple)):
        return Batch(inputs)
    raise TypeError(
        f"inputs: expected a tensor or an array, got {type(inputs).__name__} (several of them: a tuple or a "
        "mapping)"
    )


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with: by position, and by keyword."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    return arguments_of(inputs.spec, inputs)


def arguments_of(spec: Any, tensors: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same of a specification and whatever gives tensors by their names."""

    def put(value: Any) -> Any:
        if isinstance(value, _Name):
            return tensors[str(value)]
        if isinstance(value, dict):
            return {key: put(item) for key, item in value.items()}
        return tuple(put(item) for item in value) if isinstance(value, tuple) else value

    found = put(spec)
    return ((), found) if isinstance(found, dict) else (found, {})


def call(model: nn.Module, inputs: Inputs) -> Any:
    """What the model gives, called as its inputs say; one that takes a batch as it is has ``takes_batch``."""
    if getattr(model, "takes_batch", False):
        return model(inputs)
    args, kwargs = arguments(inputs)
    return model(*args, **kwargs)


def tensors_of(inputs: Inputs) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors; the name of a single tensor is ""."""
    if isinstance(inputs, Tensor):
        yield "", inputs
    else:
        yield from inputs.items()


def changed(inputs: Inputs, change: Callable[[str, Tensor], Tensor]) -> Inputs:
    """Every tensor as ``change(name, tensor)`` has it."""
    return change("", inputs) if isinstance(inputs, Tensor) else inputs.mapped(change)


def rows_of(inputs: Inputs, rows: Tensor) -> Inputs:
    """Some samples, by a mask or by positions on any device."""
    return changed(inputs, lambda _, tensor: tensor[rows.to(tensor.device)])


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Some samples after the others."""
    kept = [dict(tensors_of(part)) for part in parts]
    return changed(parts[0], lambda name, _: torch.cat([part[name] for part in kept]))


def equal(one: Inputs, other: Inputs) -> bool:
    """Whether both hold the same values."""
    mine, theirs = dict(tensors_of(one)), dict(tensors_of(other))
    return mine.keys() == theirs.keys() and all(
        tensor.shape == theirs[name].shape and torch.equal(tensor, theirs[name])
        for name, tensor in mine.items()
    )
