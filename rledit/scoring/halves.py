"""Half-precision weights that are computed with in float32 and stay in half precision at rest.

Held in float32, a model in half precision would take twice its bytes. Instead its large weights stay as they
are, and reading ``layer.weight`` gives a float32 copy, which is gone when the layer is done: the same
numbers, so the same results. Targets and the layers of a fused tail are really widened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..targets import is_altered
from .blocks import bias_rows, by_blocks, convolve, row_blocks

HALF = (torch.float16, torch.bfloat16)
LEAST = 1 << 12  # values of a weight that is worth it


def held_weight(layer: nn.Module) -> Tensor:
    """The weight as it is kept."""
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight


def weight_rows(layer: nn.Module, rows: slice = slice(None)) -> Tensor:
    """Some rows of a layer's weight, in float32 where they are kept in half precision."""
    weight = held_weight(layer)
    if weight.dtype not in HALF:
        return weight[rows]
    with torch._C.DisableTorchFunction():  # not half-precision arithmetic, for those who look for it
        return weight[rows].float()


class _Linear(nn.Linear):
    weight = property(lambda self: weight_rows(self))

    def forward(self, input: Tensor) -> Tensor:
        return by_blocks(
            row_blocks(held_weight(self)),
            -1,
            lambda rows: F.linear(input, weight_rows(self, rows), bias_rows(self.bias, rows)),
        )


class _Conv2d(nn.Conv2d):
    weight = property(lambda self: weight_rows(self))

    def forward(self, input: Tensor) -> Tensor:
        return convolve(self, input, held_weight(self), self.bias, lambda rows: weight_rows(self, rows))


class _Embedding(nn.Embedding):
    weight = property(lambda self: weight_rows(self))

    def forward(self, input: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return F.embedding(input, held_weight(self), self.padding_idx).float()


def _of_plain(plain: type[nn.Module]) -> nn.Module:
    wide = _WIDENING[plain]
    return wide.__new__(wide)


def _reduced(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """Helps pickle, which does not find these classes by their names, which are torch's."""
    return _of_plain, (plain_type(self),), self.__dict__


_WIDENING: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _Linear,
    nn.Conv2d: _Conv2d,
    nn.Embedding: _Embedding,
}
for _plain, _wide in _WIDENING.items():
    _wide.__name__, _wide.__qualname__, _wide.__module__ = (
        _plain.__name__,
        _plain.__qualname__,
        _plain.__module__,
    )
    _wide.__reduce_ex__ = _reduced  # type: ignore[assignment,method-assign]


def plain_type(module: nn.Module) -> type[nn.Module]:
    """The class of a module; torch's own class for one that :func:`widen_lazily` has changed."""
    return next((plain for plain, wide in _WIDENING.items() if type(module) is wide), type(module))


def holds_half(model: nn.Module) -> bool:
    """Whether :func:`widen_lazily` has left weights in half precision."""
    return any(plain_type(module) is not type(module) for module in model.modules())


def widen_lazily(model: nn.Module, fixed: Collection[int]) -> None:
    """Make a model in half precision compute in float32, in place.

    Args:
        fixed: ids of parameters that must be float32 themselves.
    """
    if any(_converts_itself(module) for module in model.modules()):
        model.float()
        return
    held = _holdable(model) - set(fixed)
    for module in model.modules():
        if type(module) in _WIDENING and id(module._parameters["weight"]) in held:
            module.__class__ = _WIDENING[type(module)]
    _widen(model, held)


def widen(model: nn.Module) -> None:
    """Make all weights of the model float32, also those that :func:`widen_lazily` has left."""
    for module in model.modules():
        module.__class__ = plain_type(module)
    model.float()


def widen_layers(modules: Iterable[nn.Module]) -> None:
    """The same for some modules; those that share a weight with them go on as they are."""
    for module in modules:
        if plain_type(module) is not type(module):
            module.__class__ = plain_type(module)
            module.float()


def _converts_itself(module: nn.Module) -> bool:
    """Whether a module converts more than its parameters and buffers, which cannot be done from outside."""
    return type(module)._apply is not nn.Module._apply and not isinstance(module, nn.RNNBase)


def _holdable(model: nn.Module) -> set[int]:
    """Ids of the half-precision weights that only layers of known classes have."""
    held: set[int] = set()
    others: set[int] = set()
    for module in model.modules():
        known = type(module) in _WIDENING and not is_altered(module)
        known = known and getattr(module, "max_norm", None) is None  # which changes the weight
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            large = parameter.numel() >= LEAST and parameter.dtype in HALF
            (held if known and large and name == "weight" else others).add(id(parameter))
    return held - others


@torch.no_grad()
def _widen(model: nn.Module, held: Collection[int]) -> None:
    """Widen parameters as ``model.float()`` does, except for some."""
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None and parameter.is_floating_point() and id(parameter) not in held:
                parameter.data = parameter.data.float()
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = buffer.float()
