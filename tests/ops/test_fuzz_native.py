"""Thousands of calls of the compiled core with whatever comes to mind: answers or exceptions, never a crash.

RLEDIT_FUZZ_CALLS sets another number of calls, for builds that are slow because they check every access.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_arguments import ALGEBRAS, MUTATIONS, for_preparing, for_scoring, mutate

from rledit import _native
from rledit.ops import PROBE_PARTS, TALLY_PARTS

CALLS = int(os.environ.get("RLEDIT_FUZZ_CALLS", "5000"))
CALLS_PER_EXAMPLE = 500

NUMBERS = np.array(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e-45,
        -1e-38,
        3e38,
        -3.4028235e38,
        np.inf,
        -np.inf,
        np.nan,
        88.8,
        -104.0,
        2.0**-126,
    ],
    dtype=np.float32,
)
LABELS = [-1, 1 << 31, (1 << 32) + 1, -(1 << 63), (1 << 63) - 1, 1000]
# Sizes that need no memory to claim. None is so small that a machine might try to allocate what they ask for.
SIZES = [0, -1, 1, 2, 3, 1 << 50, 1 << 60, (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 70]
JUNK = [
    None, True, 1.5, -0.5, float("nan"), float("inf"), 1e300, "", "x", "shift", "mask", "relu", "bfloat16",
    "formed_once", b"shift", [], [None], [None, None], ["x"], ["histogram"], ["concordant"], ["loss"] * 3,
    ["correct", "loss"], ["gelu", "silu"], (), {}, object(), np.float32(1), np.int64(2), np.zeros(3),
    np.ones((2, 2), np.float32),
]  # fmt: skip


def has_labels(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.int64 and 0 < value.size < 1 << 20


class Maker:
    """Draws arguments: right ones, and then wrong ones out of these."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.choices = random.Random(seed)  # several times as fast for one number

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[self.choices.randrange(len(choices))]

    def chance(self, share: float) -> bool:
        return self.choices.random() < share

    def floats(self, *shape: int) -> np.ndarray:
        values = self.random.standard_normal(shape, dtype=np.float32)
        if values.size and self.chance(0.1):
            some = self.random.integers(values.size, size=3)
            values.reshape(-1)[some] = self.random.choice(NUMBERS, 3)
        elif self.chance(0.02):
            values = np.frombuffer(self.random.bytes(values.nbytes), np.float32).reshape(shape).copy()
        return values

    def samples(self, count: int, classes: int) -> dict[str, Any]:
        groups = self.random.random((self.pick([0, 1, 3, 3, 3, 64]), count)) < 0.5
        if self.chance(0.05):  # booleans that are neither 0 nor 1
            groups = np.frombuffer(self.random.bytes(groups.size), np.uint8).view(bool).reshape(groups.shape)
        labels = self.random.integers(0, classes, count)
        parts = [part for part in TALLY_PARTS if part not in PROBE_PARTS]
        if classes != 2:
            parts = [part for part in parts if part not in ("histogram", "concordant")]
        return {
            "labels": labels,
            "groups": groups,
            "wanted": [part for part in parts if self.chance(0.7)],
            "bins": self.pick([1, 8, 1024]),
            "margin_limit": self.pick([1e-30, 1.0, 4.0, 1e29]),
        }

    def tail(self) -> dict[str, Any]:
        layers = self.pick([1, 2, 2, 3])
        sizes = [self.pick([1, 2, 3, 15, 16, 17, 33, 40]) for _ in range(layers)] + [
            self.pick([1, 2, 2, 5, 17])
        ]
        count, n = self.pick([0, 1, 3, 63, 64, 65, 130]), self.pick([1, 1, 2, 5, 13])
        weights, biases, lefts, rights = [], [], [], []
        for i, o in pairwise(sizes):
            own, edited = self.chance(0.2), self.chance(0.5)
            rank = self.pick([0, 1, 2, 3, 16, 20])
            weights.append(self.floats(*((n, o, i) if own else (o, i))))
            biases.append(self.floats(o) if self.chance(0.5) else None)
            lefts.append(self.floats(n, o, rank) if edited else None)
            rights.append(self.floats(n, rank, i) if edited else None)
        if all(w.ndim == 2 for w in weights) and all(left is None for left in lefts):
            n = 1
        samples = self.samples(count, sizes[-1])
        if self.chance(0.4):
            samples |= self.probe(count)
            samples["wanted"] += [part for part in PROBE_PARTS if self.chance(0.7)]
        return {
            "activations": self.floats(count, sizes[0]),
            "weights": weights,
            "biases": biases,
            "nonlinearities": [
                self.pick(["identity", "relu", "gelu", "gelu_tanh", "tanh", "silu"]) for _ in weights
            ],
            **samples,
            "lefts": lefts,
            "rights": rights,
            "candidates": n,
            "world": self.pick(["shift", "mask"]),
            "scale": self.pick([0.0, 0.1, -1.0, 1e30]),
            "precision": self.pick(["float32", "bfloat16"]),
            "algebra": self.pick(ALGEBRAS),
        }

    def lowrank(self) -> dict[str, Any]:
        n, o, i, r = (
            self.pick([0, 1, 3]),
            self.pick([0, 1, 5]),
            self.pick([0, 1, 7, 40]),
            self.pick([0, 1, 3, 17]),
        )
        return {
            "weight": self.floats(n, o, i),
            "left": self.floats(n, o, r),
            "right": self.floats(n, r, i),
            "world": self.pick(["shift", "mask"]),
            "scale": self.pick([0.0, 1.0, -1e30]),
        }

    def logits(self) -> dict[str, Any]:
        n, count, classes = self.pick([0, 1, 5]), self.pick([0, 1, 64, 65, 130]), self.pick([1, 2, 2, 7, 33])
        return {"logits": self.floats(n, count, classes), **self.samples(count, classes)}

    def probe(self, count: int) -> dict[str, Any]:
        fit = self.random.random(count) < self.pick([0.1, 0.5, 1.0])
        fit[:1] = True
        return {"fit": fit, "ridge": self.pick([1e-9, 1e-3, 1e6])}

    def features(self) -> dict[str, Any]:
        n, count, width, classes = self.pick([0, 1, 5]), self.pick([0, 1, 65, 130]), self.pick([1, 3, 20]), 7
        samples = self.samples(count, classes)
        return {
            "features": self.floats(n, count, width),
            "labels": samples["labels"],
            "groups": samples["groups"],
            **self.probe(count),
            "classes": classes,
            "wanted": [part for part in PROBE_PARTS if self.chance(0.7)],
        }

    def wrong(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with one of them replaced."""
        name = self.pick(sorted(arguments))
        value = arguments[name]
        if name in ("candidates", "bins") and self.chance(0.7):
            value = self.pick(SIZES)
        elif name == "labels" and has_labels(value) and self.chance(0.3):
            value = value.copy()
            value.flat[self.choices.randrange(value.size)] = self.pick(LABELS)
        elif isinstance(value, list) and self.chance(0.3):
            others = [[*value, None], [*value, "x"], value[:-1], value[::-1], tuple(value), value * 2]
            value = self.pick(others)
        elif isinstance(value, (list, np.ndarray)) and self.chance(0.8):
            # What was mutated before may not bear it once more.
            with contextlib.suppress(TypeError, ValueError, AttributeError, IndexError, MemoryError):
                return mutate(arguments, name, self.pick([0, 1]), self.pick(sorted(MUTATIONS)))
        else:
            value = self.pick(JUNK)
        return arguments | {name: value}


def contents(arguments: Iterable[Any]) -> list[bytes]:
    """What the arrays among the arguments hold, to be compared before and after a call."""
    found = []
    for value in arguments:
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, np.ndarray) and entry.size < 1 << 20:
                found.append(entry.tobytes())
    return found


GUARD = np.float32(12345)


def is_writable_weight(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.float32
        and value.ndim == 3
        and value.flags.c_contiguous
        and value.flags.writeable
    )


def guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy between 64 numbers on either side that nobody may write to; and the whole."""
    whole = np.full(array.size + 128, GUARD)
    inner = whole[64 : 64 + array.size].reshape(array.shape)
    inner[...] = array
    return inner, whole


def prepare_and_score(**arguments: Any) -> Any:
    prepared = _native.PreparedTail(**for_preparing(arguments))
    counts = prepared.score(**for_scoring(arguments))
    prepared.score(**for_scoring(arguments))
    return counts


FUNCTIONS = {
    "PreparedTail": (prepare_and_score, Maker.tail),
    "apply_lowrank_": (_native.apply_lowrank_, Maker.lowrank),
    "tally_logits": (_native.tally_logits, Maker.logits),
    "tally_features": (_native.tally_features, Maker.features),
}


def call(name: str, arguments: dict[str, Any], right: bool) -> str:
    """Calls one function and returns the kind of its answer; every promise is checked."""
    function, _ = FUNCTIONS[name]
    whole = None
    if name == "apply_lowrank_" and is_writable_weight(arguments["weight"]):
        inner, whole = guarded(arguments["weight"])
        arguments = arguments | {"weight": inner}
    fixed = [value for key, value in arguments.items() if key != "weight"]
    before = contents(fixed)
    mistake: Exception | None = None
    try:
        counts = function(**arguments)
    except (TypeError, ValueError, MemoryError) as error:
        mistake = error
    if right and mistake is not None:
        raise AssertionError("right arguments were refused") from mistake
    if mistake is None and name != "apply_lowrank_":
        assert all(np.isfinite(part).all() for part in counts)
        assert all((part >= 0).all() for part in counts if part.dtype == np.int64)
    assert contents(fixed) == before
    if whole is not None:
        assert (whole[:64] == GUARD).all()
        assert (whole[-64:] == GUARD).all()
    return "answer" if mistake is None else type(mistake).__name__


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, which casts NaN and the like for us
@pytest.mark.parametrize("calls", [CALLS, pytest.param(20_000, marks=pytest.mark.exhaustive)])
def test_nothing_crashes(calls: int, keep_native_state: None) -> None:
    answers: Counter[tuple[str, str]] = Counter()

    @settings(
        max_examples=-(-calls // CALLS_PER_EXAMPLE),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**64 - 1))
    def examples(seed: int) -> None:
        maker = Maker(seed)
        _native.select_isa(maker.pick(_native.available_isas()))
        _native.set_num_threads(maker.pick([1, 1, 2, 3]))
        for number in range(CALLS_PER_EXAMPLE):
            name = maker.pick(sorted(FUNCTIONS))
            arguments = FUNCTIONS[name][1](maker)
            mistakes = maker.pick([0, 1, 1, 1, 2, 3])
            for _ in range(mistakes):
                arguments = maker.wrong(arguments)
            try:
                answers[name, call(name, arguments, right=mistakes == 0)] += 1
            except Exception as error:
                raise AssertionError(f"call {number} of seed {seed}: {name}({arguments})") from error

    with np.printoptions(threshold=1, edgeitems=1):  # messages show arrays, which takes longer than the calls
        examples()
    print(*sorted(answers.items()), sep="\n")
    assert answers.total() >= calls
    for name in FUNCTIONS:
        assert answers[name, "answer"] > 0.02 * calls
        assert answers[name, "TypeError"] > 0.01 * calls
        assert answers[name, "ValueError"] > 0.01 * calls


def test_numbers_of_any_bits(keep_native_state: None) -> None:
    maker = Maker(0)
    for _ in range(100):
        _native.select_isa(maker.pick(_native.available_isas()))
        arguments = maker.tail()
        for key in ("activations", "weights", "lefts", "rights", "biases"):
            for array in [arguments[key]] if key == "activations" else arguments[key]:
                if array is not None:
                    array[...] = np.frombuffer(maker.random.bytes(array.nbytes), np.float32).reshape(
                        array.shape
                    )
        assert call("PreparedTail", arguments, right=True) == "answer"
