"""Activations that are mostly zeros, such as bags of words, score as they would if nobody had noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact_tails import splits
from native_arguments import ALGEBRAS, assert_bits, for_scoring, prepare, score_tail, tail
from pairwise import pairwise

from rledit import _native

ISAS = _native.available_isas()
SPARSE_ISAS = [isa for isa in ISAS if not splits(isa)]  # split products round differently


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


def among_dense_samples(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same samples and so many others without any zeros that zeros are not skipped. Those come last, and
    no group has them, so they are counted nowhere."""
    samples, inputs = arguments["activations"].shape
    more = samples // 8 + 8
    return arguments | {
        "activations": np.concatenate([arguments["activations"], np.ones((more, inputs), np.float32)]),
        "labels": np.concatenate([arguments["labels"], np.zeros(more, np.int64)]),
        "groups": np.concatenate([arguments["groups"], np.zeros((3, more), bool)], 1),
    }


@pairwise(shape=SHAPES, world=["shift", "mask"], isa=ISAS)
def test_the_bits_of_the_dense_product(shape: dict[str, Any], world: str, isa: str) -> None:
    _native.select_isa(isa)
    arguments = tail(**shape) | {"world": world}
    for threads in (1, 3):
        _native.set_num_threads(threads)
        sparse, dense = prepare(arguments), prepare(among_dense_samples(arguments))
        for algebra in ALGEBRAS[1:]:  # the automatic choice depends on the number of samples
            expected = dense.score(**for_scoring(arguments), algebra=algebra)
            assert_bits(sparse.score(**for_scoring(arguments), algebra=algebra), expected)


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
    dense = prepare(among_dense_samples(arguments))
    for algebra in ALGEBRAS[1:]:
        expected = dense.score(**for_scoring(arguments), algebra=algebra)
        assert_bits(score_tail(**arguments, algebra=algebra), expected)


def test_an_activation_that_is_not_a_number_stays_one() -> None:
    """NaN is not zero; a sample that has one counts as wrong."""
    arguments = tail(samples=64, inputs=256, words=4)
    activations = arguments["activations"].copy()
    activations[5, 17] = np.nan
    arguments |= {"activations": activations}
    dense = prepare(among_dense_samples(arguments))
    for algebra in ALGEBRAS[1:]:
        expected = dense.score(**for_scoring(arguments), algebra=algebra)
        assert_bits(score_tail(**arguments, algebra=algebra), expected)
