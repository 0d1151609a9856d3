"""Activations that are mostly zeros, such as bags of words, score as they would if nobody had noticed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from exact_tails import splits
from native_arguments import ALGEBRAS, assert_bits, for_scoring, part_of, prepare, score_tail, tail
from pairwise import pairwise

from rledit import _native
from rledit.ops import Counts, backend
from rledit.ops.score_tail import from_schema

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


def bags(
    rank: int = 3,
    sizes: tuple[int, ...] = (300, 18, 5),
    edited: tuple[int, ...] = (0,),
    own: tuple[int, ...] = (),
    samples: int = 333,
    candidates: int = 7,
    groups: int = 3,
    function: str = "relu",
) -> dict[str, Any]:
    """For score_tail, in whole numbers: no sum rounds, so the counts are those of any right arithmetic."""
    random = np.random.default_rng(rank)
    layers = range(len(sizes) - 1)

    def whole(most: int, *shape: int) -> np.ndarray:
        return random.integers(-most, most + 1, shape).astype(np.float32)

    activations = np.zeros((samples, sizes[0]), np.float32)
    for row in activations:
        row[random.integers(0, sizes[0], random.integers(0, 12))] = random.integers(-2, 4)
    shapes = [(o, i) for i, o in itertools.pairwise(sizes)]
    return {
        "activations": activations,
        "weights": [whole(4, *(candidates,) * (k in own), *shapes[k]) for k in layers],
        "biases": [whole(9, shape[0]) for shape in shapes],
        "nonlinearities": [function] * (len(sizes) - 2) + ["identity"],
        "labels": random.integers(0, sizes[-1], samples),
        "groups": random.random((groups, samples)) < 0.5,
        "lefts": [whole(1, candidates, shapes[k][0], rank) if k in edited else None for k in layers],
        "rights": [whole(1, candidates, rank, shapes[k][1]) if k in edited else None for k in layers],
        "candidates": candidates,
        "world": "mask",
        "scale": 1.0,
        "precision": "float32",
        "wanted": ["correct", "predicted", "confusion", "loss"],
        "bins": 8,
        "margin_limit": 4.0,
    }


def reference(arguments: dict[str, Any]) -> Counts:
    def tensors(name: str) -> list[torch.Tensor | None]:
        return [None if array is None else torch.from_numpy(array) for array in arguments[name]]

    x, labels, groups = (torch.from_numpy(arguments[name]) for name in ("activations", "labels", "groups"))
    names = ("world", "scale", "precision", "wanted", "bins", "margin_limit")
    problem, candidates, wanted = from_schema(
        x, tensors("weights"), tensors("biases"), arguments["nonlinearities"], labels, groups,
        tensors("lefts"), tensors("rights"), *(arguments[name] for name in names),
    )  # fmt: skip
    return backend("reference").prepare_tail(problem).score(candidates, wanted)


def assert_reference(arguments: dict[str, Any], algebras: list[str] = ALGEBRAS) -> None:
    prepared, expected = prepare(arguments), reference(arguments)
    for algebra in algebras:
        counts = prepared.score(**for_scoring(arguments), algebra=algebra)
        for ours, theirs in zip(counts[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy(), err_msg=algebra)
        np.testing.assert_allclose(counts[3], expected.loss.numpy(), rtol=1e-5, atol=1e-3)


BAGS = [
    *({"rank": rank} for rank in (1, 2, 4, 7, 16)),
    {"sizes": (300, 64, 16, 2), "groups": 64},
    {"sizes": (300, 2)},  # many candidates in one table
    {"sizes": (300, 3, 4), "candidates": 29},
    {"sizes": (300, 33, 4), "edited": (0, 1)},
    {"sizes": (300, 40, 9, 3), "edited": (1,), "own": (0,)},
    {"sizes": (300, 20, 3), "edited": (), "own": (0,)},
    {"sizes": (300, 17, 3), "edited": (1,)},
    {"sizes": (300, 17, 3), "edited": (), "candidates": 1},
    {"sizes": (300, 100, 3), "samples": 1, "candidates": 1},
    {"samples": 64 * 17, "candidates": 2},
]


@pairwise(shape=BAGS, world=["shift", "mask"], isa=SPARSE_ISAS, threads=[1, 3])
def test_bags_of_words_count_as_the_reference_says(
    shape: dict[str, Any], world: str, isa: str, threads: int
) -> None:
    _native.select_isa(isa)
    _native.set_num_threads(threads)
    assert_reference(bags(**shape) | {"world": world})


@pytest.mark.parametrize("isa", SPARSE_ISAS)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("hidden", [2, 7, 16, 64])
def test_a_candidate_rounds_alone_as_among_others(hidden: int, world: str, isa: str) -> None:
    """How many share a table depends on how many there are; what each of them sums, and in which order, does
    not."""
    _native.select_isa(isa)
    arguments = tail(samples=200, candidates=19, inputs=401, hidden=hidden, words=9) | {"world": world}
    prepared = prepare(arguments)
    together = prepared.score(**for_scoring(arguments))
    for start, stop in ((0, 1), (3, 4), (5, 19)):
        alone = prepared.score(**for_scoring(part_of(arguments, start, stop)))
        assert_bits(alone, [part[start:stop] for part in together])


@pytest.mark.parametrize("isa", SPARSE_ISAS)
@pytest.mark.parametrize("edited", [(0,), (0, 1)])
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_probes_of_bags_of_words(world: str, edited: tuple[int, ...], isa: str) -> None:
    """The same features, to the bit, so the same probes."""
    _native.select_isa(isa)
    arguments = bags(samples=700, edited=edited) | {
        "world": world,
        "wanted": ["correct", "recalled", "nearest"],
    }
    arguments |= {"fit": np.arange(700) % 2 == 0, "ridge": 1e-3}
    prepared = prepare(arguments)
    dense = prepared.score(**for_scoring(arguments), algebra="formed")
    for algebra in ("automatic", "formed_once"):
        assert_bits(prepared.score(**for_scoring(arguments), algebra=algebra), dense)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", ["weights", "lefts", "rights", "activations"])
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_what_is_not_finite_spoils_what_it_would_in_a_dense_product(
    world: str, where: str, bad: float
) -> None:
    """Zero times infinity is not a number, and no zero that is skipped may hide that."""
    arguments = bags(own=(0,) if where == "weights" else ()) | {"world": world}
    array = arguments[where] if where == "activations" else arguments[where][0]
    array[(2, 1, 0)[-array.ndim :]] = bad  # of one candidate, or of one sample
    # Of a shift an infinite left factor meets X right^T, where zeros do not show any more, skipped
    # or not.
    corrected = where == "lefts" and world == "shift"
    assert_reference(arguments, ["formed", "formed_once"] if corrected else ALGEBRAS)
