"""Left to itself, the core takes the algebra that is the fastest, or nearly.

``pytest benchmarks/test_algebras.py`` (two minutes, on a quiet machine). Forced algebras run beside the
automatic choice, in turns, on one thread, and CPU time is what counts: other work on the machine can only
add to it, so each gets its least. A shape that fails is measured anew, up to three times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rledit import _native

ALGEBRAS = ["automatic", "shared_product", "formed", "formed_once"]
CANDIDATES = 64
LIMIT = 1.15
SHAPES = [
    *((10_000, (128, 32, 10), rank) for rank in (4, 32)),
    (10_000, (16, 2), 2),
    *((512, (64, 64, 10), rank) for rank in (1, 4, 16, 48)),
    *((2048, (256, 256, 10), rank) for rank in (8, 64, 160)),
    (4000, (512, 10), 4),
]


def prepare(samples: int, sizes: tuple[int, ...], rank: int) -> tuple[_native.PreparedTail, tuple[Any, ...]]:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    layers = len(sizes) - 1
    weights = [normal(o, i) / np.float32(i**0.5) for i, o in pairwise(sizes)]
    nothing = [None] * layers
    tail = _native.PreparedTail(
        normal(samples, sizes[0]), weights, nothing, ["relu"] * (layers - 1) + ["identity"],
        random.integers(0, sizes[-1], samples), random.random((2, samples)) < 0.5, "float32",
    )  # fmt: skip
    lefts = [normal(CANDIDATES, sizes[1], rank), *nothing[1:]]
    rights = [normal(CANDIDATES, rank, sizes[0]), *nothing[1:]]
    return tail, (nothing, lefts, rights, CANDIDATES)


def least_times(tail: _native.PreparedTail, arguments: tuple[Any, ...], world: str) -> dict[str, float]:
    """Milliseconds of CPU time of each algebra."""
    least = dict.fromkeys(ALGEBRAS if world == "shift" else ["automatic", "formed", "formed_once"], np.inf)
    for _ in range(8):
        for algebra in least:
            start = time.process_time_ns()
            tail.score(*arguments, world, 0.1, ["correct"], 1, 1.0, algebra)
            least[algebra] = min(least[algebra], (time.process_time_ns() - start) * 1e-6)
    return least


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = _native.num_threads()
    _native.set_num_threads(1)
    yield
    _native.set_num_threads(before)


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize(("samples", "sizes", "rank"), SHAPES, ids=str)
def test_the_automatic_choice_is_nearly_the_fastest(
    samples: int, sizes: tuple[int, ...], rank: int, world: str
) -> None:
    tail, arguments = prepare(samples, sizes, rank)
    for _ in range(3):
        least = least_times(tail, arguments, world)
        automatic = least.pop("automatic")
        print(f"automatic {automatic:.2f} ms", *(f"{name} {ms:.2f}" for name, ms in least.items()))
        if automatic <= LIMIT * min(least.values()):
            return
    pytest.fail(f"automatic takes {automatic:.2f} ms, the others {least}")
