"""The compiled core called with arguments of any kind: an answer or an exception, never a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rledit import _native

PARTS = ["correct", "predicted", "confusion", "loss"]


def tail(
    samples: int = 700, candidates: int = 13, rank: int = 3, own: bool = False, classes: int = 5
) -> dict[str, Any]:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    lead = (candidates,) if own else ()
    return {
        "activations": normal(samples, 24),
        "weights": [normal(*lead, 18, 24), normal(classes, 18)],
        "biases": [normal(18), None],
        "nonlinearities": ["gelu", "identity"],
        "labels": random.integers(0, classes, samples),
        "groups": random.random((3, samples)) < 0.5,
        "lefts": [normal(candidates, 18, rank), None],
        "rights": [normal(candidates, rank, 24), None],
        "candidates": candidates,
        "world": "shift",
        "scale": 0.1,
        "precision": "float32",
        "wanted": list(PARTS),
        "bins": 8,
        "margin_limit": 4.0,
    }


def lowrank() -> dict[str, Any]:
    parts = tail(candidates=4)
    weight = np.repeat(parts["weights"][0][None], 4, 0)
    return {
        "weight": weight,
        "left": parts["lefts"][0],
        "right": parts["rights"][0],
        "world": "mask",
        "scale": 1.0,
    }


def logits() -> dict[str, Any]:
    parts = tail(samples=130)
    values = np.random.default_rng(1).standard_normal((6, 130, 2), dtype=np.float32)
    keep = {name: parts[name] for name in ("groups", "wanted", "bins", "margin_limit")}
    return {"logits": values, "labels": parts["labels"] % 2, **keep}


def odd_address(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)[1:]
    raw[:] = np.frombuffer(array.tobytes(), dtype=np.uint8)
    return raw.view(array.dtype).reshape(array.shape)


MUTATIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "int32": lambda a: np.nan_to_num(a.astype(np.float64)).astype(np.int32),
    "complex": lambda a: a.astype(np.complex64),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "object": lambda a: a.astype(object),
    "strings": lambda a: np.full(a.shape, "x"),
    "scalar": lambda a: a.dtype.type(1),
    "0-d": lambda a: np.array(a.flat[0]) if a.size else a[None],
    "one dimension more": lambda a: a[None],
    "one dimension less": lambda a: a.reshape(-1) if a.ndim > 1 else a[None],
    "no rows": lambda a: a[:0],
    "no columns": lambda a: a[..., :0],
    "one row less": lambda a: a[1:],
    "one column less": lambda a: np.ascontiguousarray(a[..., 1:]),
    "one row more": lambda a: np.concatenate([a, a[:1]]),
    "fortran": lambda a: np.asfortranarray(a) if a.ndim > 1 else a[::2],
    "reversed": lambda a: a[::-1],
    "strided": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "odd address": odd_address,
    "none": lambda a: None,
    "list": lambda a: a.tolist(),
    "bytes": lambda a: a.tobytes(),
}


def mutate(arguments: dict[str, Any], name: str, index: int, kind: str) -> dict[str, Any]:
    value = arguments[name]
    if isinstance(value, list) and isinstance(value[0], np.ndarray):
        value = list(value)
        value[index] = MUTATIONS[kind](value[index]) if value[index] is not None else 3
    elif isinstance(value, np.ndarray):
        value = MUTATIONS[kind](value)
    return arguments | {name: value}


@pytest.mark.parametrize(
    "kind", ["float64", "odd address", "fortran", "one column less", "one dimension more"]
)
@pytest.mark.parametrize("name", ["activations", "weights", "labels", "groups", "lefts", "rights", "biases"])
def test_an_array_that_does_not_fit_is_refused(name: str, kind: str) -> None:
    if kind == "odd address" and name == "groups":
        kind = "float64"  # bytes have no odd address
    with pytest.raises((TypeError, ValueError)):
        _native.score_tail(**mutate(tail(), name, 0, kind))


JUNK = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.lists(st.text(max_size=2), max_size=3),
    st.just([None]),
    st.sampled_from(["shift", "mask", "relu", "bfloat16", ["histogram"], ["correct"] * 3, object()]),
)


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Any answer will do but a crash: a result, or an error that Python can handle."""
    huge = arguments.get("candidates", 1), arguments.get("bins", 1)
    if any(isinstance(size, int) and size > 4096 for size in huge):
        return  # allowed, and wants gigabytes
    with contextlib.suppress(TypeError, ValueError, MemoryError):
        function(**arguments)


@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_arguments_crash(data: st.DataObject) -> None:
    make, function = data.draw(
        st.sampled_from(
            [
                (lambda: tail(samples=70, candidates=2), _native.score_tail),
                (lambda: tail(samples=70, candidates=2, own=True, classes=2), _native.score_tail),
                (lowrank, _native.apply_lowrank_),
                (logits, _native.tally_logits),
            ]
        )
    )
    arguments = make()
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(arguments)))
        if data.draw(st.booleans()) and isinstance(arguments[name], (np.ndarray, list)):
            kind, index = data.draw(st.sampled_from(sorted(MUTATIONS))), data.draw(st.integers(0, 1))
            # What was mutated before may not bear it once more.
            with contextlib.suppress(TypeError, ValueError, AttributeError, IndexError, RuntimeWarning):
                arguments = mutate(arguments, name, index, kind)
        else:
            arguments = arguments | {name: data.draw(JUNK)}
    call(function, arguments)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(bits=st.binary(min_size=32, max_size=32), precision=st.sampled_from(["float32", "bfloat16"]))
def test_no_numbers_crash(bits: bytes, precision: str) -> None:
    arguments = tail(samples=70, candidates=2, classes=2) | {
        "precision": precision,
        "wanted": [*PARTS, "histogram"],
    }
    raw = np.frombuffer(bits, dtype=np.float32)
    for array in (arguments["activations"], arguments["weights"][0], arguments["lefts"][0]):
        array.flat[:8] = raw
    *_, loss, histogram = _native.score_tail(**arguments)
    assert np.isfinite(loss).all()
    assert histogram.sum() <= 2 * arguments["groups"].sum()


def test_what_is_wrong_is_named() -> None:
    def message(**changes: Any) -> str:
        with pytest.raises(ValueError, match=r".+") as error:
            _native.score_tail(**tail() | changes)
        return str(error.value)

    assert message(world="w") == "world: expected 'shift' or 'mask', got 'w'"
    assert message(precision="p") == "precision: expected 'float32' or 'bfloat16', got 'p'"
    assert "wanted: expected correct, predicted" in message(wanted=["x"])
    assert "nonlinearity: expected identity, relu" in message(nonlinearities=["x", "relu"])
    assert "labels: expected values in 0..4, got 9" in message(labels=np.full(700, 9))
    assert "labels: expected values in 0..4, got -1" in message(labels=np.full(700, -1))
    assert "at most 64, got 65" in message(groups=np.ones((65, 700), dtype=bool))
    assert message(candidates=12).startswith("lefts[0]: expected shape [12, 18, any], got [13, 18, 3]")
    assert "candidates: expected 1 without factors" in message(lefts=[None] * 2, rights=[None] * 2)
    assert "has only one of its two factors" in message(lefts=[None] * 2)
    assert "aligned" in message(labels=odd_address(tail()["labels"]))
    frozen = lowrank()
    frozen["weight"].flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        _native.apply_lowrank_(**frozen)
    for threads in (0, -1, 1025):
        with pytest.raises(ValueError, match=f"threads: expected 1..1024, got {threads}"):
            _native.set_num_threads(threads)
