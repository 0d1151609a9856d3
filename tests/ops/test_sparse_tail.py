"""Activations that are mostly zeros, such as bags of words, score as they would if nobody had noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_arguments import ALGEBRAS, assert_bits, for_scoring, prepare, tail

from rledit import _native

ISAS = _native.available_isas()
SPARSE_ISAS = [isa for isa in ISAS if not isa.startswith("amx")]  # AMX splits float32 and rounds differently


@pytest.fixture(autouse=True)
def _restore(keep_native_state: None) -> None:
    pass


SHAPES = [
    {"samples": 1, "candidates": 1, "inputs": 200, "words": 3},
    {"samples": 63, "candidates": 3, "inputs": 128, "words": 2, "rank": 1},
    {"samples": 700, "candidates": 13, "inputs": 1001, "words": 7},
    {"samples": 700, "candidates": 50, "inputs": 333, "words": 12, "rank": 4},
    {"samples": 700, "candidates": 3, "inputs": 3000, "words": 20, "rank": 18},
    {"samples": 300, "candidates": 4, "inputs": 400, "words": 1, "rank": 18, "classes": 40},  # not fused
    {"samples": 300, "candidates": 5, "inputs": 400, "words": 9, "own": True},
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bits_of_the_dense_product(shape: dict[str, Any], world: str, isa: str) -> None:
    """Whoever scores without preparing packs densely."""
    _native.select_isa(isa)
    arguments = tail(**shape) | {"world": world}
    _native.set_num_threads(1)
    expected = {algebra: _native.score_tail(**arguments, algebra=algebra) for algebra in ALGEBRAS}
    for threads in (1, 3):
        _native.set_num_threads(threads)
        prepared = prepare(arguments)
        for algebra in ALGEBRAS:
            assert_bits(prepared.score(**for_scoring(arguments), algebra=algebra), expected[algebra])


@pytest.mark.parametrize("isa", SPARSE_ISAS)
def test_only_mostly_zeros_are_kept_twice(isa: str) -> None:
    _native.select_isa(isa)
    arguments = tail(samples=640, inputs=512, words=8)
    sparse = prepare(arguments).bytes
    dense = prepare(tail(samples=640, inputs=512)).bytes
    # Eight words and the first input at 8 bytes each, and where each sample begins.
    assert 0 <= sparse - dense - 640 * 8 * 8 - 641 * 8 <= 640 * 8
    assert prepare(tail(samples=640, inputs=512, words=100)).bytes == dense
    assert prepare(arguments | {"precision": "bfloat16"}).bytes < sparse


def test_samples_without_any_word() -> None:
    arguments = tail(samples=200, inputs=256, words=4)
    activations = arguments["activations"].copy()
    activations[::3] = 0.0
    activations[1] = -0.0
    arguments |= {"activations": activations}
    assert_bits(prepare(arguments).score(**for_scoring(arguments)), _native.score_tail(**arguments))


def test_an_activation_that_is_not_a_number_stays_one() -> None:
    """NaN is not zero; a sample that has one counts as wrong."""
    arguments = tail(samples=64, inputs=256, words=4)
    activations = arguments["activations"].copy()
    activations[5, 17] = np.nan
    arguments |= {"activations": activations}
    assert_bits(prepare(arguments).score(**for_scoring(arguments)), _native.score_tail(**arguments))
