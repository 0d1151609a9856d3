"""Checks of numbers that callers give: NumPy's are as good as Python's, bools are not numbers."""

from __future__ import annotations

import math
import operator
from typing import Any


def integer(name: str, value: Any, least: int = 1) -> int:
    """The value as an int; ValueError unless it is an integer of at least ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if _is_bool(value) or number < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return number


def _is_bool(value: Any) -> bool:
    """Whether a value is a bool: Python's, NumPy's, or one in a tensor."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def positive(name: str, value: Any) -> float:
    """The value as a float; ValueError unless it is a finite number above 0."""
    number = real(name, value, "a positive number")
    if number <= 0:
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return number


def real(name: str, value: Any, expected: str = "a finite number") -> float:
    """The value as a float; ValueError unless it is a finite number."""
    try:
        number = math.nan if _is_bool(value) or isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return number
