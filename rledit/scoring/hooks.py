"""The caller's hooks on a private copy: those that only watch are taken off, those that act stay.

deepcopy shares functions, so a hook that collects outputs in a list would fill the caller's list each time
that candidates are scored. But a hook may also be part of the model: it may change outputs (activation
steering) or compute a weight (old-style weight_norm). So every hook is run a few times on the copy. One that
returns nothing, changes none of its arguments in place, and whose absence leaves the logits as they are, is a
watcher. Not even these few runs reach what the caller's functions hold: they, and the hooks that stay, have
copies of the variables that they enclose and of the globals that they name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Hook = Callable[..., Any]


def detach_functions(model: nn.Module, memo: dict[int, Any]) -> None:
    """Give the functions that a copy holds variables of their own: hooks, and a forward put on a module.

    Bound methods and objects have been copied by deepcopy.

    Args:
        model: a copy.
        memo: the memo of the deepcopy that made it, so that a function that knows the original's modules gets
            those of the copy.
    """
    for module in model.modules():
        module._backward_hooks.clear()  # a copy never runs backward
        module._backward_pre_hooks.clear()
        places: list[MutableMapping[Any, Any]] = [*_hooks(module), module.__dict__]
        for functions in places:
            for key, function in functions.items():
                if isinstance(function, FunctionType):
                    functions[key] = _detached(function, memo)


def take_off_watchers(model: nn.Module, logits: Callable[[nn.Module], Tensor]) -> None:
    """Remove the forward hooks that only watch from a private copy.

    Args:
        logits: runs the model on a few samples.
    """
    places = [hooks for module in model.modules() for hooks in _hooks(module) if hooks]
    if not places:
        return
    for hooks in places:
        for key, hook in hooks.items():
            hooks[key] = _Watched(hook)
    expected = logits(model)
    watched = [dict(hooks) for hooks in places]
    for hooks in places:
        _replace(hooks, {key: hook.hook for key, hook in hooks.items() if not hook.only_watches()})
    if any(len(hooks) < len(all_) for hooks, all_ in zip(places, watched, strict=True)):
        if torch.equal(logits(model), expected):
            return
        for hooks, all_ in zip(places, watched, strict=True):  # one of them acts by other means
            _replace(hooks, {key: hook.hook for key, hook in all_.items()})


def _hooks(module: nn.Module) -> tuple[MutableMapping[int, Any], MutableMapping[int, Any]]:
    return module._forward_hooks, module._forward_pre_hooks


def _replace(hooks: MutableMapping[int, Any], by: dict[int, Any]) -> None:
    hooks.clear()
    hooks.update(by)


class _Watched:
    """A hook that tells afterwards whether it did anything to its module's call."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self._calls = 0
        self._acts = False

    def only_watches(self) -> bool:
        """Whether the hook only watches; false for one that was never called, of which this is not known."""
        return self._calls > 0 and not self._acts

    def __call__(self, module: nn.Module, *arguments: Any) -> Any:
        tensors = list(_tensors(arguments))
        versions = [tensor._version for tensor in tensors]
        result = self.hook(module, *arguments)
        self._calls += 1
        changed = any(tensor._version != was for tensor, was in zip(tensors, versions, strict=True))
        self._acts = self._acts or result is not None or changed
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        if not values.is_inference():
            yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _detached(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    """The same function with copies of the variables that it encloses and of the globals that it names."""
    names, known = _names(function.__code__), function.__globals__
    own = {name: _own(value, memo) if name in names else value for name, value in known.items()}
    cells = tuple(
        CellType(*(_own(value, memo) for value in _contents(cell))) for cell in function.__closure__ or ()
    )
    twin = FunctionType(function.__code__, own, function.__name__, function.__defaults__, cells)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # nothing yet
        return []


def _names(code: CodeType) -> set[str]:
    """Names of the globals that a function reads, those of functions inside it included."""
    inner: Iterable[Any] = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*(_names(constant) for constant in inner))


def _own(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (ModuleType, FunctionType, type, nn.Module)):
        return value
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # open files, locks and the like cannot be copied and stay shared
        return value
