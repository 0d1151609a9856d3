"""Targets: the modules whose weights can be edited, found and checked in one place.

A target's weight is seen as a matrix [O, I]; of a Conv2d, I = in_channels / groups * kh * kw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks as _global_hooks
from torch.nn.modules.module import _global_forward_pre_hooks as _global_pre_hooks
from torch.nn.utils.parametrize import is_parametrized

Target: TypeAlias = nn.Linear | nn.Conv2d


def as_matrix(weight: Tensor) -> Tensor:
    """A weight [O, ...] as a matrix [O, I]; shares its memory where it can."""
    return weight.flatten(1)


def find_targets(model: nn.Module, names: Sequence[str], argument: str = "targets") -> dict[str, Target]:
    """The modules of these names, checked to be editable.

    Raises:
        TypeError: for a module that is neither Linear nor Conv2d, or whose weight is not a plain parameter.
        ValueError: for an unknown name, with those that could be meant; no name, one twice, two names of one
            weight, or a weight without values.
    """
    if isinstance(names, str):
        names = [names]
    modules = dict(model.named_modules(remove_duplicate=False))
    usable = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)]
    choice = f"this model has {listed(usable) if usable else 'no Linear or Conv2d'}"
    if not names:
        raise ValueError(f"{argument}: expected at least one; {choice}")
    if len(set(names)) != len(names):
        raise ValueError(f"{argument}: expected each name once, got {list(names)}")
    targets: dict[str, Target] = {}
    for name in names:
        if name not in modules:
            raise ValueError(f"{argument}: no module is called {name!r}; {choice}")
        module = modules[name]
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise TypeError(
                f"{argument}: {name!r} is a {type(module).__name__}, expected Linear or Conv2d; {choice}"
            )
        weight = module._parameters.get("weight")
        if weight is None:  # weight_norm and the like compute it anew: no edit would last
            raise TypeError(
                f"{argument}: the weight of {name!r} is parametrized; remove the parametrization first"
            )
        if nn.parameter.is_lazy(weight):
            raise TypeError(f"{argument}: the weight of {name!r} has no values yet")
        if weight.is_meta:
            raise ValueError(
                f"{argument}: expected weights with values, {name + '.weight'!r} is on the meta device"
            )
        for other, known in targets.items():
            if known.weight is weight:
                raise ValueError(f"{argument}: {name!r} shares its weight with {other!r}; name only one")
        targets[name] = module
    return targets


def is_altered(module: nn.Module) -> bool:
    """Whether calling it does more than its class says: hooks, a patched forward, a parametrization."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, _global_hooks, _global_pre_hooks)
    return any(hooks) or "forward" in module.__dict__ or is_parametrized(module)


def is_plain(target: Target) -> bool:
    """Whether a call of it is what Linear or Conv2d do, and no more. Subclasses may have a forward of their
    own, such as a Conv2d that pads its input or normalizes its weight."""
    cls = type(target)
    if isinstance(target, nn.Conv2d):
        plain = cls.forward is nn.Conv2d.forward and cls._conv_forward is nn.Conv2d._conv_forward
    else:
        plain = cls.forward is nn.Linear.forward
    return plain and not is_altered(target)


def check_rank(rank: int, name: str, outputs: int, inputs: int) -> None:
    """Raise ValueError for a rank outside 1..min(O, I)."""
    if not 1 <= rank <= min(outputs, inputs):
        raise ValueError(
            f"rank: target {name!r} is {outputs}x{inputs}, expected a rank in 1..{min(outputs, inputs)}, "
            f"got {rank}"
        )


def matrices(targets: Mapping[str, Target]) -> dict[str, Tensor]:
    """The weights of targets as matrices [O, I], without gradients."""
    return {name: as_matrix(target.weight).detach() for name, target in targets.items()}


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message, not too many of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
