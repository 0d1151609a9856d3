"""The key of each target's weight in a state dict or a file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

from ..storage.fingerprint import fingerprint
from ..targets import listed
from .weights import Weight

_TRIES = 256  # fingerprints that are computed to find weights under other names


def find_keys(
    sizes: Mapping[str, tuple[int, int]],
    shapes: Mapping[str, tuple[int, ...]],
    learned_for: str,
    read: Callable[[str], Weight],
    place: str,
) -> dict[str, str]:
    """The key of every target: `<target>.weight`, or that of the weights that the edit was learned for.

    A file may have dropped one of two names of a tensor, or name a part of the model from another root.

    Args:
        sizes: target -> (O, I).
        shapes: shapes of all tensors there are, by key.
        learned_for: the fingerprint of the weights that the edit was learned for.
        read: from a key to its tensor, in memory or in a file.
        place: what is searched, for errors.

    Raises:
        ValueError: there is no such tensor.
        TypeError: it is not 2-D or 4-D.
    """
    keys = {name: f"{name}.weight" for name in sizes if f"{name}.weight" in shapes}
    for name, key in keys.items():
        if len(shapes[key]) not in (2, 4):
            raise TypeError(f"target {name!r}: expected a 2-D or 4-D weight, got {shapes[key]}")
    if len(keys) == len(sizes):
        return keys
    found = search(sizes, shapes, learned_for, read, keys)
    if found is None:
        missing = next(name for name in sizes if name not in keys)
        known = [key for key, shape in shapes.items() if len(shape) in (2, 4)]
        known = [key for key in known if key.endswith(".weight")] or known
        raise ValueError(
            f"target {missing!r}: no tensor {missing + '.weight'!r} in the {place}, nor the weights that the "
            f"edit was learned for under another name; candidates: {listed(known)}"
        )
    return found


def search(
    sizes: Mapping[str, tuple[int, int]],
    shapes: Mapping[str, tuple[int, ...]],
    learned_for: str,
    read: Callable[[str], Weight],
    known: Mapping[str, str],
) -> dict[str, str] | None:
    """The keys that together hold the weights that the edit was learned for, or None.

    Args:
        known: target -> key, for the targets that are not searched for.
    """
    missing = [name for name in sizes if name not in known]
    matrices = {key: (s[0], math.prod(s[1:])) for key, s in shapes.items() if len(s) in (2, 4)}
    choices = [[key for key, size in matrices.items() if size == sizes[name]] for name in missing]
    if math.prod(map(len, choices)) > _TRIES:
        return None
    for choice in itertools.product(*choices):
        chosen = {**known, **dict(zip(missing, choice, strict=True))}
        if fingerprint({name: read(key) for name, key in chosen.items()}) == learned_for:
            return {name: chosen[name] for name in sizes}
    return None
