"""Copies of a model: private ones, which later changes do not reach, and twins that share its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from .halves import HALF, widen_lazily
from .hooks import detach_functions


def private_copy(model: nn.Module, targets: Sequence[str] = ()) -> nn.Module:
    """A copy in eval mode, without gradients; where weights are in half precision it computes in float32.

    One copy of each weight is made and nothing else that is large. Tensors that a forward pass left behind,
    which deepcopy refuses, are copied without their history.

    Args:
        targets: modules whose weights are in float32 themselves; others' may stay in half precision, see
            :mod:`rledit.scoring.halves`.

    Raises:
        ValueError: for weights that are not finite, or without values; for a target that cannot be copied.
    """
    half = any(parameter.dtype in HALF for parameter in model.parameters())
    widened = {id(model.get_submodule(name)._parameters["weight"]) for name in targets}
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"model: expected weights with values, {name!r} is on the meta device")
        if type(parameter) is nn.Parameter:
            values = parameter.detach()
            own = values.float() if id(parameter) in widened and values.dtype in HALF else values.clone()
            if own.is_floating_point() and not _finite(own):
                raise ValueError(f"model: expected finite weights, {name!r} has NaN or infinity")
            memo[id(parameter)] = nn.Parameter(own, requires_grad=False)
    for tensor in _tensors_with_history(model):
        memo[id(tensor)] = tensor.detach().clone()
    own_model = copy.deepcopy(model, memo)
    for name in targets:
        if own_model.get_submodule(name) is model.get_submodule(name):
            raise ValueError(
                f"targets: expected modules that copy.deepcopy() copies, {name!r} returns itself"
            )
    detach_functions(own_model, memo)
    if half:
        fixed = [own_model.get_submodule(name)._parameters["weight"] for name in targets]
        widen_lazily(own_model, {id(weight) for weight in fixed})
    return own_model.eval().requires_grad_(False)


def _finite(values: Tensor) -> bool:
    # Part by part: isfinite() of everything at once would need a mask as large as the weights.
    return all(bool(part.isfinite().all()) for part in values.reshape(-1).split(1 << 18))


def twin_of(model: nn.Module, own: Iterable[Tensor] = (), views: Iterable[Tensor] = ()) -> nn.Module:
    """A copy that shares all parameters and buffers but ``own``, so that these may be edited in it.

    Args:
        views: parameters whose values are shared, too, but which may be given others (``data``) in the twin.
    """
    tensors = (*model.parameters(), *model.buffers())
    memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    for tensor in own:
        memo.pop(id(tensor), None)
    for tensor in views:
        memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=False)
    twin = copy.deepcopy(model, memo)
    detach_functions(twin, memo)
    return twin


def _tensors_with_history(model: nn.Module) -> Iterator[Tensor]:
    """Tensors with a gradient function in the attributes of modules, in containers and objects as well: kept
    features, or the weight that an old-style weight_norm has computed."""
    seen: set[int] = set()
    stack: list[Any] = [model]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            if item.grad_fn is not None:
                yield item
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack.extend(item)
        elif isinstance(item, MethodType):
            stack.append(item.__self__)
        elif not isinstance(item, (type, FunctionType, ModuleType)) and hasattr(item, "__dict__"):
            stack.append(vars(item))
