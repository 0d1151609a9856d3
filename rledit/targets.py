"""Targets: the modules whose weights can be edited, found and checked in one place.

A target's weight is seen as a matrix [O, I]; of a Conv2d, I = in_channels / groups * kh * kw. Of any other
module it is the parameter ``weight`` as it is stored, its first dimension by the product of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks as _global_hooks
from torch.nn.modules.module import _global_forward_pre_hooks as _global_pre_hooks
from torch.nn.utils.parametrize import is_parametrized

Target: TypeAlias = nn.Linear | nn.Conv2d
"""What targets mostly are. Any other module with a weight of two or more dimensions, such as an Embedding or
transformers' Conv1D, is one as well; it is called with each candidate's weight."""

WRAPPERS = {"module": (nn.DataParallel, nn.parallel.DistributedDataParallel), "_orig_mod": (nn.Module,)}
"""Attributes that hold the model itself, and classes that have them; the second is that of torch.compile."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within ``DataParallel`` and what ``torch.compile`` gives; any other as it is."""
    for attribute, classes in WRAPPERS.items():
        parts = dict(model.named_children())
        inner = parts.get(attribute)
        alone = attribute == "module" or len(parts) == 1
        if inner is not None and alone and isinstance(model, classes):
            return unwrapped(inner)
    return model


def expanded(model: nn.Module, names: Sequence[str]) -> list[str]:
    """The names of modules that some names stand for, in the model's order for each of them.

    A name may be that of a module; a pattern (``"layers.*.down_proj"``, see :mod:`fnmatch`); or the end of
    several modules' names (``"down_proj"``), as PEFT has it. Those of wrapped models may have the wrapper's
    prefix. A name that stands for nothing is left as it is.
    """
    if isinstance(names, str):
        names = [names]
    known = dict(model.named_modules(remove_duplicate=False))
    usable = [name for name, module in known.items() if is_editable(module)]
    found: list[str] = []
    for asked in names:
        name = str(asked)
        while name not in known and name.partition(".")[0] in WRAPPERS:
            name = name.partition(".")[2]
        if any(sign in name for sign in "*?["):
            own = [each for each in usable if fnmatchcase(each, name)]
        else:
            own = [name] if name in known else [each for each in usable if each.endswith(f".{name}")]
        # What is asked for twice by its own name is left to be refused, as what there is not.
        found += [each for each in own if each not in found or each == asked] if own else [asked]
    return found


def is_editable(module: nn.Module) -> bool:
    """Whether a module is of a kind that can be a target: it has a weight of two or more dimensions."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        return True
    if isinstance(module, torch.jit.ScriptModule):  # its weights are not Python's to exchange
        return False
    weight = module._parameters.get("weight")
    return weight is not None and not nn.parameter.is_lazy(weight) and weight.dim() >= 2


def as_matrix(weight: Tensor) -> Tensor:
    """A weight [O, ...] as a matrix [O, I]; shares its memory where it can."""
    return weight.flatten(1)


def find_targets(model: nn.Module, names: Sequence[str], argument: str = "targets") -> dict[str, Target]:
    """The modules of these names, checked to be editable.

    Raises:
        TypeError: for a module without a weight of two or more dimensions, or whose weight is not a plain
            parameter.
        ValueError: for an unknown name, with those that could be meant; no name, one twice, two names of one
            weight, or a weight without values.
    """
    if isinstance(names, str):
        names = [names]
    modules = dict(unwrapped(model).named_modules(remove_duplicate=False))
    usable = [name for name, module in modules.items() if is_editable(module)]
    choice = f"this model has {listed(usable) if usable else 'none that could be'}"
    if not names:
        raise ValueError(f"{argument}: expected at least one; {choice}")
    if len(set(names)) != len(names):
        raise ValueError(f"{argument}: expected each name once, got {list(names)}")
    targets: dict[str, Target] = {}
    for name in names:
        if name not in modules:
            raise ValueError(f"{argument}: no module is called {name!r}; {choice}")
        module = modules[name]
        if not is_editable(module):
            raise TypeError(
                f"{argument}: {name!r} is a {type(module).__name__}, expected Linear, Conv2d or another "
                f"module with a weight of two or more dimensions; {choice}"
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
        targets[name] = cast(Target, module)
    return targets


def is_altered(module: nn.Module) -> bool:
    """Whether calling it does more than its class says: hooks, a patched forward, a parametrization."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, _global_hooks, _global_pre_hooks)
    return any(hooks) or "forward" in module.__dict__ or is_parametrized(module)


def is_plain(target: nn.Module) -> bool:
    """Whether a call of it is what Linear or Conv2d do, and no more. Subclasses may have a forward of their
    own, such as a Conv2d that pads its input or normalizes its weight."""
    cls = type(target)
    if issubclass(cls, nn.Conv2d):
        plain = cls.forward is nn.Conv2d.forward and cls._conv_forward is nn.Conv2d._conv_forward
    else:
        plain = issubclass(cls, nn.Linear) and cls.forward is nn.Linear.forward
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
