"""A tail packed once scores any number of calls, owns what it needs and stays small."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from exact_tails import Case, exact_tail
from native_arguments import (
    ALGEBRAS,
    PREPARED,
    assert_bits,
    for_preparing,
    for_scoring,
    part_of,
    prepare,
    score_tail,
    tail,
)
from pairwise import pairwise
from programs import run

from rledit import _native
from rledit.ops import backend
from rledit.ops.score_tail import from_schema

ISAS = _native.available_isas()


@pytest.fixture(autouse=True)
def _restore(keep_native_state: None) -> None:
    pass


def of_one_tail(base: dict[str, Any], kind: dict[str, Any]) -> dict[str, Any]:
    """What the candidates of ``kind`` bring, to the tail of ``base``."""
    shared = {name: base[name] for name in PREPARED}
    weights = [
        own if own.ndim == 3 else ours for own, ours in zip(kind["weights"], base["weights"], strict=True)
    ]
    return kind | shared | {"weights": weights}


def score(prepared: _native.PreparedTail, arguments: dict[str, Any], **more: Any) -> tuple[np.ndarray, ...]:
    return prepared.score(**for_scoring(arguments), **more)


SHAPES = [
    {"samples": 1, "candidates": 3},
    {"samples": 129, "candidates": 1, "rank": 18},
    {"samples": 700, "candidates": 13},  # from here on large enough for several threads
    {"samples": 9000, "candidates": 1},
    {"samples": 5000, "candidates": 2, "rank": 16},
    {"samples": 2000, "candidates": 5, "own": True},
    {"samples": 3000, "candidates": 30, "hidden": 2, "rank": 1},
    {"samples": 130, "candidates": 7, "inputs": 1700},
]


@pairwise(shape=SHAPES, world=["shift", "mask"], precision=["float32", "bfloat16"], isa=ISAS)
def test_the_bits_of_a_fresh_tail(shape: dict[str, Any], world: str, precision: str, isa: str) -> None:
    _native.select_isa(isa)
    arguments = tail(**shape) | {"world": world, "precision": precision}
    for threads in (1, 3):
        _native.set_num_threads(threads)
        prepared = prepare(arguments)
        for algebra in ALGEBRAS:
            expected = score_tail(**arguments, algebra=algebra)
            assert_bits(score(prepared, arguments, algebra=algebra), expected)
            assert_bits(score(prepared, arguments, algebra=algebra), expected)  # what is kept is kept well


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_large_layers_give_the_same_bits_packed_or_formed_on_the_way(precision: str, isa: str) -> None:
    """Where nothing is edited they are formed, the first also in blocks; zero factors want them packed."""
    _native.select_isa(isa)
    arguments = tail(samples=130, candidates=1, inputs=1600, hidden=1000, classes=530)
    arguments |= {"precision": precision, "wanted": ["correct", "loss"]}
    arguments["lefts"][0][:] = 0
    prepared = prepare(arguments)
    nothing = arguments | {"lefts": [None, None], "rights": [None, None]}
    for threads in (1, 2):
        _native.set_num_threads(threads)
        before = score(prepared, nothing)
        assert_bits(score(prepared, arguments, algebra="shared_product"), before)
        assert_bits(score(prepared, nothing), before)


# Less and more than 32 MiB of the unedited first layer's outputs: kept, or made in spans and dropped. Those
# of half of the samples are always kept.
@pytest.mark.slow
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("hidden", [18, 24])
def test_spans_add_up(hidden: int, world: str) -> None:
    arguments = tail(samples=400_000, candidates=2, classes=2, hidden=hidden) | {"world": world}
    halves = [
        arguments
        | {
            "activations": arguments["activations"][part],
            "labels": arguments["labels"][part],
            "groups": arguments["groups"][:, part].copy(),
        }
        for part in (slice(200_000), slice(200_000, None))
    ]
    expected = [a + b for a, b in zip(*(score_tail(**half) for half in halves), strict=True)]
    for threads in (1, 2):
        _native.set_num_threads(threads)
        prepared = prepare(arguments)
        for _ in range(2):
            counts = score(prepared, arguments)
            assert_bits(counts[:3], expected[:3])
            np.testing.assert_allclose(counts[3], expected[3], rtol=1e-12)  # the same sums in another order


def test_calls_of_all_kinds_in_any_order() -> None:
    base = tail(samples=300, candidates=9)
    prepared = prepare(base)
    whole = prepared.bytes
    kinds = [
        base,
        base | {"world": "mask", "scale": -0.7},
        part_of(base, 2, 5),
        base | {"lefts": [None, None], "rights": [None, None], "candidates": 1},
        tail(samples=300, candidates=9, own=True),
        tail(samples=300, candidates=4, own=True) | {"lefts": [None, None], "rights": [None, None]},
        base | {"wanted": ["loss"]},
        base | {"wanted": []},
        tail(samples=300, candidates=2, rank=0),
    ]
    expected = [score_tail(**of_one_tail(base, kind)) for kind in kinds]
    for _ in range(2):
        for kind, counts in zip(kinds, expected, strict=True):
            assert_bits(score(prepared, kind), counts)
    assert prepared.bytes >= whole


def test_it_keeps_the_instruction_set_that_it_was_packed_for() -> None:
    arguments = tail(samples=300) | {"precision": "bfloat16"}
    for isa in ISAS:
        _native.select_isa(isa)
        prepared = prepare(arguments)
        expected = score_tail(**arguments)
        for other in ISAS:
            _native.select_isa(other)
            assert_bits(score(prepared, arguments), expected)


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_it_owns_its_data(world: str) -> None:
    arguments = tail(samples=300, candidates=4) | {"world": world}
    expected = score_tail(**arguments)
    given = {
        name: [None if a is None else a.copy() for a in value] if name in ("weights", "biases") else value
        for name, value in copy.deepcopy(for_preparing(arguments)).items()
    }
    prepared = _native.PreparedTail(**given)
    arrays = [given["activations"], *given["weights"], *given["biases"], given["labels"], given["groups"]]
    for array in arrays:
        if array is not None:
            array.view(np.uint8).fill(255)
    assert_bits(score(prepared, arguments), expected)
    del given, array, arrays
    gc.collect()
    junk = [np.full(300 * 24, np.nan, dtype=np.float32) for _ in range(100)]  # what was freed is used again
    assert_bits(score(prepared, arguments), expected)
    assert len(junk) == 100


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_weights_that_stay_are_read_where_they_lie(world: str) -> None:
    arguments = tail(samples=300, candidates=4) | {"world": world}
    expected = score_tail(**arguments)
    given = copy.deepcopy(for_preparing(arguments))
    owned, shared = (_native.PreparedTail(**given, weights_stay=stay) for stay in (False, True))
    assert owned.bytes - shared.bytes == sum(weight.nbytes for weight in given["weights"])
    references = [sys.getrefcount(weight) for weight in given["weights"]]
    assert_bits(score(shared, arguments), expected)
    del given
    gc.collect()
    junk = [np.full(300 * 24, np.nan, dtype=np.float32) for _ in range(100)]
    assert_bits(score(shared, arguments), expected)  # it keeps them alive
    assert len(junk) == 100
    assert min(references) > 2


def test_bytes_are_those_of_the_packed_data() -> None:
    arguments = tail(samples=6400)
    small, large = (prepare(tail(samples=samples)).bytes for samples in (640, 6400))
    activations = arguments["activations"].nbytes
    assert activations <= large <= 2.5 * activations
    assert 8 * small < large


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_several_threads_score_one_tail_and_prepare_others(world: str) -> None:
    # Fresh tails, so that their lazy parts are made while others want them, too.
    kinds = [
        tail(samples=9000, candidates=candidates, own=own) | {"world": world}
        for candidates, own in ((5, False), (1, False), (3, True))
    ]
    base = kinds[0]
    expected = [score_tail(**of_one_tail(base, kind)) for kind in kinds]
    stop = threading.Event()

    def change_threads() -> None:
        while not stop.is_set():
            for threads in (1, 8, 2):
                _native.set_num_threads(threads)

    changer = threading.Thread(target=change_threads)
    changer.start()
    try:
        with ThreadPoolExecutor(4) as executor:
            for _ in range(10):
                shared = prepare(base)

                def work(i: int, shared: _native.PreparedTail = shared) -> None:
                    prepared = prepare(base) if i % 4 == 0 else shared
                    kind = i % len(kinds)
                    assert_bits(score(prepared, kinds[kind]), expected[kind])

                list(executor.map(work, range(12)))
    finally:
        stop.set()
        changer.join()


# What each program prints: by how many bytes its memory grew at most. It starts small, so that the import's
# own peak is passed before anything is measured.
PREPARE = """
import resource
import sys

import numpy as np

from rledit import _native

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

_native.set_num_threads(2)
random = np.random.default_rng(0)

def score(prepared, inputs, outputs, candidates, rank, world, wanted):
    lefts = np.zeros((candidates, outputs, rank), dtype=np.float32)
    rights = np.ones((candidates, rank, inputs), dtype=np.float32)
    return prepared.score([None] * 2, [lefts, None], [rights, None], candidates, world, 1.0, wanted, 1, 1.0)

def prepare(samples, inputs, outputs, groups):
    activations = np.empty((samples, inputs), dtype=np.float32)
    activations[:] = 1.0
    weights = [np.ones((outputs, inputs), dtype=np.float32), np.ones((10, outputs), dtype=np.float32)]
    labels, groups = np.zeros(samples, dtype=np.int64), np.ones((groups, samples), dtype=bool)
    kept.append((activations, weights, labels, groups))  # what is freed would hide what is taken
    before = peak()
    prepared = _native.PreparedTail(
        activations, weights, [None] * 2, ["relu", "identity"], labels, groups, "float32"
    )
    return prepared, activations.nbytes, peak() - before

kept = []
prepared, *_ = prepare(2000, 256, 64, 3)
score(prepared, 256, 64, 4, 2, "shift", ["correct", "loss"])
ballast = np.ones(96 << 20, dtype=np.uint8)  # the import's peak is behind us
"""
MEGABYTE = 1 << 20


def run_measured(body: str) -> list[int]:
    """What a program prints that starts with PREPARE and goes on with ``body``."""
    done = run(PREPARE + body)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


not_sanitized = pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="memory has shadows")


@pytest.mark.slow
@not_sanitized
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_memory_is_the_packed_inputs_and_little_more(world: str) -> None:
    packed, grown, owned, scored = run_measured(f"""
prepared, packed, grown = prepare(20_000, 1024, 64, 3)
before = peak()
score(prepared, 1024, 64, 24, 4, "{world}", ["correct", "predicted", "confusion", "loss"])
print(packed, grown, prepared.bytes, peak() - before)
""")
    assert packed <= owned <= packed + 4 * MEGABYTE
    assert grown <= packed + 6 * MEGABYTE
    # 5 MB are the unedited first layer's outputs, the factors less than 1; the rest is the two threads' own.
    assert scored <= (14 if world == "shift" else 8) * MEGABYTE


@pytest.mark.slow
@not_sanitized
def test_memory_of_many_candidates_and_groups() -> None:
    samples, candidates, counts = 4_000, 4096, 4096 * 64 * 8 * 2
    packed, grown, scored = run_measured(f"""
prepared, packed, grown = prepare({samples}, 64, 16, 64)
before = peak()
score(prepared, 64, 16, {candidates}, 1, "shift", ["correct", "loss"])
print(packed, grown, peak() - before)
""")
    factors = candidates * (64 + 16) * 4
    assert grown <= packed + 4 * MEGABYTE
    assert scored <= counts + factors + 8 * MEGABYTE


def test_what_is_wrong_with_preparing_is_named() -> None:
    def message(**changes: Any) -> str:
        with pytest.raises(ValueError, match=r".+") as error:
            _native.PreparedTail(**for_preparing(tail()) | changes)
        return str(error.value)

    good = tail()
    narrow = good["weights"][1][:, :-1].copy()
    assert "labels: expected values in 0..4, got 9 at index 0" in message(labels=np.full(700, 9))
    assert "labels: expected values in 0..4, got -1" in message(labels=np.full(700, -1))
    assert message(labels=np.zeros(699, np.int64)) == "labels: expected shape [700], got [699]"
    assert "groups: expected shape [any, 700]" in message(groups=np.ones((3, 699), dtype=bool))
    assert "groups: expected at most 64, got 65" in message(groups=np.ones((65, 700), dtype=bool))
    assert message(weights=[]) == "weights: expected at least one layer, got none"
    assert message(weights=[None, good["weights"][1]]) == "weights[0]: expected an array, got None"
    assert (
        message(weights=[good["weights"][0], narrow]) == "weights[1]: expected shape [any, 18], got [5, 17]"
    )
    own = tail(own=True)["weights"]
    assert "weights[0]: expected shape [any, 24], got [13, 18, 24]" in message(weights=own)
    empty = np.zeros((0, 24), np.float32)
    assert "weights[0]: expected no empty side" in message(weights=[empty, good["weights"][1]])
    assert message(biases=[None]) == "biases: expected one entry for each of 2 layers, got 1"
    assert "biases[1]: expected shape [5]" in message(biases=[None, np.zeros(4, np.float32)])
    assert "nonlinearities: expected one entry for each of 2 layers" in message(nonlinearities=["relu"])
    assert "nonlinearity: expected identity, relu" in message(nonlinearities=["relu", "x"])
    assert message(precision="p") == "precision: expected 'float32' or 'bfloat16', got 'p'"
    assert "activations: expected shape [any, any]" in message(activations=np.zeros(3, np.float32))
    for name in ("activations", "labels", "groups"):
        for wrong in (None, 3, good[name].astype(np.float64), np.asfortranarray(good[name])[::2]):
            with pytest.raises(TypeError, match=name):
                _native.PreparedTail(**for_preparing(good) | {name: wrong})


def test_what_is_wrong_with_scoring_is_named() -> None:
    good = tail()
    prepared = prepare(good)
    expected = score(prepared, good)

    def message(**changes: Any) -> str:
        with pytest.raises(ValueError, match=r".+") as error:
            prepared.score(**for_scoring(good) | changes)
        return str(error.value)

    (left, _), (right, _) = good["lefts"], good["rights"]
    assert "lefts[0]: expected shape [12, 18, any], got [13, 18, 3]" in message(candidates=12)
    assert "candidates: expected at least 1, got 0" in message(candidates=0)
    assert "candidates: expected at least 1, got -1" in message(candidates=-1)
    assert "candidates: expected 1 without factors" in message(lefts=[None] * 2, rights=[None] * 2)
    assert "has only one of its two factors" in message(lefts=[None] * 2)
    assert "lefts: expected one entry for each of 2 layers, got 1" in message(lefts=[left])
    assert "rights: expected one entry for each of 2 layers, got 3" in message(rights=[right, None, None])
    assert "weights: expected one entry for each of 2 layers, got 0" in message(weights=[])
    assert "lefts[0]: expected shape [13, 18, any]" in message(lefts=[left[:, :-1].copy(), None])
    assert "rights[0]: expected shape [13, 3, 24]" in message(rights=[right[:, :2].copy(), None])
    shared = good["weights"]
    assert "weights[0]: expected shape [13, 18, 24], got [18, 24]" in message(weights=[shared[0], None])
    assert message(world="w") == "world: expected 'shift' or 'mask', got 'w'"
    assert "algebra: expected automatic, shared_product" in message(algebra="a")
    assert "wanted: expected correct, predicted" in message(wanted=["x"])
    assert "wanted: histogram needs 2 classes, got 5" in message(wanted=["histogram"])
    two = prepare(tail(classes=2))
    for changes in ({"bins": 0}, {"bins": 1 << 25}, {"margin_limit": 0.0}, {"margin_limit": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            two.score(**for_scoring(tail(classes=2)) | {"wanted": ["histogram"]} | changes)
    for wrong in (None, [left.astype(np.float64), None], [np.asfortranarray(left), None], [3, None]):
        with pytest.raises(TypeError, match="lefts"):
            prepared.score(**for_scoring(good) | {"lefts": wrong})
    assert_bits(score(prepared, good), expected)  # no mistake leaves a trace


def test_it_can_be_neither_copied_nor_made_empty() -> None:
    prepared = prepare(tail(samples=3))
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            make(prepared)
    with pytest.raises(TypeError):
        _native.PreparedTail()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize(
    "case",
    [
        Case(samples=151, groups=9),
        Case(samples=65, edited=(0, 1), rank=4, sizes=(31, 17, 2)),
        Case(samples=129, edited=(1,), own=(0,), candidates=3),
        Case(samples=3, edited=(), candidates=1),
    ],
    ids=str,
)
def test_the_backends_agree(
    case: Case, world: str, precision: str, assert_counts: Callable[..., float]
) -> None:
    arguments = case.build()
    x, labels, groups = arguments[0], *arguments[4:6]
    logits, bound = exact_tail(arguments, world, case.scale, precision, _native.active_isa())
    problem, candidates, wanted = from_schema(
        *arguments, world, case.scale, precision, case.wanted(), 1024, 16.0
    )
    for name in ("native", "reference"):
        prepared = backend(name).prepare_tail(problem)
        assert prepared.bytes >= x.numel() * x.element_size()
        for _ in range(2):
            counts = prepared.score(candidates, wanted)
            assert_counts(counts, logits, bound, labels, groups)
            assert counts.histogram.numel() == 0 or case.sizes[-1] == 2
