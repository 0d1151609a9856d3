"""Values become the JSON that a file gives back, or an error that says where."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rledit.storage import plain_json

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FLOATS | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.none() | FLOATS


def keeps_its_keys(value: dict[Any, Any]) -> bool:
    return len(json.loads(json.dumps(value))) == len(value)


def values(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(KEYS, inner).filter(keeps_its_keys)


@settings(max_examples=50, deadline=None)
@given(st.recursive(SCALARS, values, max_leaves=8))
def test_what_is_kept_is_what_is_read(value: Any) -> None:
    plain = plain_json(value, "value")
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert json.loads(json.dumps(value)) == plain
    assert plain_json(plain, "value") == plain


def test_numbers_of_other_packages() -> None:
    class Color(str, Enum):
        RED = "red"

    value = {np.int32(3): np.float64(0.5), "b": np.bool_(True), "c": torch.tensor([1, 2]), "d": Color.RED}
    plain = plain_json(value, "value")
    assert plain == {"3": 0.5, "b": True, "c": [1, 2], "d": "red"}
    assert [type(x) for x in plain.values()] == [float, bool, list, str]  # type: ignore[union-attr]
    assert plain_json(torch.tensor(0.25, dtype=torch.bfloat16, requires_grad=True), "x") == 0.25


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (float("nan"), "m: "),
        ({"a": {3: [0, float("inf")]}}, r"m\['a'\]\[3\]\[1\]: "),
        ({"a": torch.tensor([[0.0], [float("nan")]])}, r"m\['a'\]\[1\]\[0\]: "),
        ({"a": object()}, r"m\['a'\]: .*object"),
        ({"a": {(1,): 2}}, r"m\['a'\]: expected keys"),
        ({float("nan"): 2}, "m: expected keys"),
        ({"a": {1: 2, "1": 3}}, r"m\['a'\]: two keys become '1'"),
    ],
)
def test_errors_say_where(value: object, where: str) -> None:
    with pytest.raises((ValueError, TypeError), match=where):
        plain_json(value, "m")
