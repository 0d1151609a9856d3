"""A tensor under several names: which keys of a state dict or a file have to be edited together.

Tied weights and blocks that are used twice appear in a state dict once per name. If one name alone were
edited, loading the others would bring the old weights back.

In memory, names of the same tensor share it. In a file each name has bytes of its own, and the same shape
and bits are all there is to go by. Trained weights of equal bits are hardly ever two different tensors, but
zeros, other constants and identity matrices may well be: equality of tensors with at most two different
values tells nothing. A tensor that was stored in another layout, say transposed, has other bits and counts as
a different one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Tied: TypeAlias = bool | None
"""Whether equal bits in other memory mean the same tensor: yes, no, or not said."""


def tied_in_memory(tensors: Mapping[str, Tensor], key: str, tied: Tied) -> list[str]:
    """The other keys of a state dict that are edited with `key`.

    Args:
        tensors: the state dict's.
        key: key of a target.
        tied: where nothing is said, equal bits in other memory are refused, unless they tell nothing.

    Raises:
        ValueError: it cannot be known which keys are the same tensor; or one shares memory with it in another
            way, such as a transposed or partial view.
    """
    tensor = tensors[key]
    others = {name: other for name, other in tensors.items() if name != key}
    shared = [name for name, other in others.items() if _same_storage(tensor, other)]
    same = [name for name in shared if _layout(others[name]) == _layout(tensor)]
    views = [name for name in shared if name not in same and _overlap(tensor, others[name])]
    if views:
        raise ValueError(
            f"{quoted(views)} and {key!r} share memory in different layouts, so that one cannot be edited "
            "without the other: clone() them, or leave what is a view out of the state dict"
        )
    equal = [name for name, other in others.items() if name not in same and _equal_bits(tensor, other)]
    if tied:
        return same + equal
    if equal and tied is None and not tells_nothing([tensor]):
        raise ValueError(
            f"{quoted(equal)} and {key!r} have the same values in different memory, so they may or may not "
            "be one tensor of the model: tied=True edits all of them, tied=False leaves the others"
        )
    return same


def tells_nothing(parts: Iterable[Tensor]) -> bool:
    """Whether a tensor, in parts, has at most two different values: another may equal it by chance."""
    seen: list[Tensor] = []
    for part in parts:
        seen = [torch.cat([*seen, part.detach().reshape(-1).unique()]).unique()]
        if len(seen[0]) > 2:
            return False
    return True


def check_distinct(keys: Mapping[str, str], aliases: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError if two targets are one tensor, which would have to become two different ones.

    Args:
        keys: keys of the targets.
        aliases: per target the other keys of its tensor.
    """
    owners: dict[str, str] = {}
    for target, key in keys.items():
        for name in (key, *aliases.get(target, ())):
            if name in owners:
                raise ValueError(
                    f"the targets {owners[name]!r} and {target!r} are one tensor under two names; "
                    "an edit may name only one of them"
                )
            owners[name] = target


def _same_storage(one: Tensor, other: Tensor) -> bool:
    if one.layout != torch.strided or other.layout != torch.strided or one.device != other.device:
        return False
    if not one.numel() or not other.numel() or other.is_meta:
        return False
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _layout(tensor: Tensor) -> tuple[object, ...]:
    # The stride of a dimension of size 1 is never used.
    strides = [stride if size > 1 else 0 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)]
    return tensor.dtype, tensor.data_ptr(), tuple(tensor.shape), strides


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one storage share a byte."""
    first, last = zip(*map(_extent, (one, other)), strict=True)
    start, end = max(first), min(last)
    if start >= end:
        return False
    if one.element_size() != other.element_size() or (one.data_ptr() - other.data_ptr()) % one.element_size():
        return True  # not worth a closer look
    # Interleaved, such as two halves of a matrix's columns: mark what belongs to one, look for it in other.
    base, size = min(first), one.element_size()
    marks = torch.zeros((max(last) - base) // size, dtype=torch.bool, device="cpu")
    view = marks.as_strided(one.shape, one.stride(), (one.data_ptr() - base) // size)
    view.fill_(True)
    return bool(marks.as_strided(other.shape, other.stride(), (other.data_ptr() - base) // size).any())


def _extent(tensor: Tensor) -> tuple[int, int]:
    """A tensor's first byte in its storage, and the one after the last."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.element_size()


def _equal_bits(one: Tensor, other: Tensor) -> bool:
    if other.layout != torch.strided or other.is_meta or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(_bits(one[:1]), _bits(other[:1])) and torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def quoted(keys: Sequence[str]) -> str:
    """Keys for a message."""
    return ", ".join(map(repr, keys))
