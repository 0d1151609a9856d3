"""Python values as the JSON that a file gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from torch import Tensor

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""What a JSON file can hold; floats must be finite."""


def plain_json(value: object, name: str, *, finite: bool = True) -> Json:
    """`value` as it will be read again: dicts with keys of text, lists, and Python's own numbers.

    Keys that are numbers, bools or None become the text that JSON gives them. NumPy scalars and arrays and
    tensors become numbers and lists.

    Args:
        name: name of the value, for errors, which add where in it they found what they complain about, as in
            ``metrics['test']['after']['bpsn_auc']``.
        finite: refuse NaN and infinity, which a file cannot hold.

    Raises:
        ValueError: NaN or infinity (if `finite`), two keys with the same text, or a container that contains
            itself.
        TypeError: something that is not JSON.
    """
    return _plain(value, name, finite, ())


def _plain(value: object, name: str, finite: bool, outer: tuple[int, ...]) -> Json:
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration the text, as json does, not its name
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if finite and not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, which is all that JSON knows; got {value}")
        return float(value)
    if not isinstance(value, Mapping | Sequence) or isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{name}: expected a value that JSON can hold, got {type(value).__name__}")
    if id(value) in outer:
        raise ValueError(f"{name}: expected JSON, got a container that contains itself")
    outer = (*outer, id(value))
    if not isinstance(value, Mapping):
        return [_plain(item, f"{name}[{i}]", finite, outer) for i, item in enumerate(value)]
    result: dict[str, Json] = {}
    for key, item in value.items():
        text = _key(key, name)
        if text in result:
            raise ValueError(f"{name}: two keys become {text!r} in JSON")
        result[text] = _plain(item, f"{name}[{key!r}]", finite, outer)
    return result


def _key(key: object, name: str) -> str:
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int):
        return repr(int(key))
    if isinstance(key, float) and math.isfinite(key):
        return repr(float(key))
    raise TypeError(f"{name}: expected keys of text or finite numbers, got {key!r}")
