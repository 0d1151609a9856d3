"""Arguments for the functions of ``rledit._native``, by their names, for the tests that call it directly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from rledit import _native

PARTS = ["correct", "predicted", "confusion", "loss"]
ALGEBRAS = ["automatic", "shared_product", "formed", "formed_once"]
# What a PreparedTail is made of; all else is an argument of its score().
PROBING = ("fit", "ridge")  # among what PreparedTail takes, where there is a probe
PREPARED = ("activations", "weights", "biases", "nonlinearities", "labels", "groups", "precision")


def tail(
    samples: int = 700,
    candidates: int = 13,
    rank: int = 3,
    own: bool = False,
    classes: int = 5,
    hidden: int = 18,
    inputs: int = 24,
    words: int = 0,
) -> dict[str, Any]:
    """For score_tail: two layers, the first of them edited; ``own``: its weights are the candidates' own;
    ``words``: so many activations of each sample are not zero."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    lead = (candidates,) if own else ()
    activations = normal(samples, inputs)
    if words:
        kept = random.random((samples, inputs)).argpartition(words, 1)[:, :words]
        np.put_along_axis(bags := np.zeros_like(activations), kept, 1.0, 1)
        bags[:, 0] = activations[:, 0]  # not all of them are ones
        activations = bags
    return {
        "activations": activations,
        "weights": [normal(*lead, hidden, inputs), normal(classes, hidden)],
        "biases": [normal(hidden), None],
        "nonlinearities": ["gelu", "identity"],
        "labels": random.integers(0, classes, samples),
        "groups": random.random((3, samples)) < 0.5,
        "lefts": [normal(candidates, hidden, rank), None],
        "rights": [normal(candidates, rank, inputs), None],
        "candidates": candidates,
        "world": "shift",
        "scale": 0.1,
        "precision": "float32",
        "wanted": list(PARTS),
        "bins": 8,
        "margin_limit": 4.0,
    }


def logits() -> dict[str, Any]:
    """For tally_logits."""
    parts = tail(samples=130)
    values = np.random.default_rng(1).standard_normal((6, 130, 2), dtype=np.float32)
    keep = {name: parts[name] for name in ("groups", "wanted", "bins", "margin_limit")}
    return {"logits": values, "labels": parts["labels"] % 2, **keep}


def lowrank() -> dict[str, Any]:
    """For apply_lowrank_."""
    parts = tail(candidates=4)
    return {
        "weight": np.repeat(parts["weights"][0][None], 4, 0),
        "left": parts["lefts"][0],
        "right": parts["rights"][0],
        "world": "mask",
        "scale": 1.0,
    }


def _is_own(weight: Any) -> bool:
    return isinstance(weight, np.ndarray) and weight.ndim == 3


def for_preparing(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a tail's arguments that PreparedTail takes; for candidates' own weights it gets zeros."""
    weights = arguments["weights"]
    if isinstance(weights, list):
        weights = [np.zeros(w.shape[1:], w.dtype) if _is_own(w) else w for w in weights]
    probe = {name: arguments[name] for name in PROBING if name in arguments}
    return {name: arguments[name] for name in PREPARED} | {"weights": weights} | probe


def for_scoring(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a tail's arguments that PreparedTail.score takes."""
    weights = arguments["weights"]
    if isinstance(weights, list):
        weights = [w if _is_own(w) else None for w in weights]
    others = {name: value for name, value in arguments.items() if name not in (*PREPARED, *PROBING)}
    return others | {"weights": weights}


def prepare(arguments: dict[str, Any]) -> _native.PreparedTail:
    return _native.PreparedTail(**for_preparing(arguments))


def score_tail(**arguments: Any) -> tuple[np.ndarray, ...]:
    """Prepares a tail for one call. ``algebra`` may be among the arguments, too."""
    return prepare(arguments).score(**for_scoring(arguments))


def part_of(arguments: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """A tail's arguments for some of its candidates."""

    def cut(arrays: list[Any]) -> list[Any]:
        return [None if array is None else array[start:stop] for array in arrays]

    return arguments | {
        "weights": [w[start:stop] if w.ndim == 3 else w for w in arguments["weights"]],
        "lefts": cut(arguments["lefts"]),
        "rights": cut(arguments["rights"]),
        "candidates": stop - start,
    }


def assert_bits(ours: Iterable[np.ndarray], theirs: Iterable[np.ndarray]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def odd_address(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)[1:]
    raw[:] = np.frombuffer(array.tobytes(), dtype=np.uint8)
    return raw.view(array.dtype).reshape(array.shape)


# What may come instead of an array: of another type, shape, layout or address.
MUTATIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "int32": lambda a: np.nan_to_num(a.astype(np.float64)).astype(np.int32),
    "complex": lambda a: a.astype(np.complex64),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "object": lambda a: a.astype(object),
    "strings": lambda a: np.full(a.shape, "x"),
    "masked": lambda a: np.ma.masked_array(a),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "scalar": lambda a: a.dtype.type(1),
    "0-d": lambda a: np.array(a.flat[0]) if a.size else a[None],
    "one dimension more": lambda a: a[None],
    "one dimension less": lambda a: a.reshape(-1) if a.ndim > 1 else a[None],
    "no rows": lambda a: a[:0],
    "no columns": lambda a: a[..., :0],
    "one row less": lambda a: a[1:],
    "one column less": lambda a: np.ascontiguousarray(a[..., 1:]),
    "one row more": lambda a: np.concatenate([a, a[:1]]),
    "huge and empty": lambda a: np.zeros((1 << 50, *a.shape[1:-1], 0), a.dtype),
    "huge and not there": lambda a: np.broadcast_to(a.dtype.type(1), (1 << 40, *a.shape[1:])),
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
    """The arguments with one array, or the one of a layer, mutated; unchanged where there is none."""
    value = arguments[name]
    if isinstance(value, list) and len(value) > index and isinstance(value[index], np.ndarray):
        value = [*value[:index], MUTATIONS[kind](value[index]), *value[index + 1 :]]
    elif isinstance(value, np.ndarray):
        value = MUTATIONS[kind](value)
    return arguments | {name: value}
