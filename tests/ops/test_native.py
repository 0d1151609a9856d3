"""The compiled core by itself: the same bits for any threads, forks, blow-ups and odd numbers."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from native_arguments import ALGEBRAS, PARTS, assert_bits, logits, part_of, score_tail, tail
from pairwise import pairwise

from rledit import _native


@pytest.fixture(autouse=True)
def _restore(keep_native_state: None) -> None:
    pass


# All are large enough for several threads: 13 candidates keep every thread busy, 1 candidate makes threads
# share counters. The last has spans: its unedited first layer's outputs are more than 32 MiB.
SHAPES = [
    {"candidates": 13},
    {"candidates": 1, "samples": 9000},
    {"candidates": 2, "samples": 5000, "rank": 16},
    {"candidates": 5, "samples": 2000, "own": True},
    {"candidates": 2, "samples": 400_000, "classes": 2, "hidden": 24},
]


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_for_any_number_of_threads(shape: dict[str, Any], world: str) -> None:
    arguments = tail(**shape) | {"world": world}
    _native.set_num_threads(1)
    expected = score_tail(**arguments)
    for threads in (2, 3, 8):
        _native.set_num_threads(threads)
        assert _native.num_threads() == threads
        assert_bits(score_tail(**arguments), expected)


# A stack of candidates shares a product where the first layer alone is edited; deep layers multiply in parts.
BATCHES = [
    {},
    {"samples": 300, "rank": 16},
    {"samples": 300, "own": True},
    {"samples": 300, "hidden": 3},
    {"samples": 130, "inputs": 1700, "rank": 4},
    {"samples": 130, "inputs": 1700, "rank": 17},
]


@pairwise(
    shape=BATCHES,
    world=["shift", "mask"],
    precision=["float32", "bfloat16"],
    isa=_native.available_isas(),
)
def test_same_bits_in_any_batch_of_candidates(
    shape: dict[str, Any], world: str, precision: str, isa: str
) -> None:
    _native.select_isa(isa)
    _native.set_num_threads(1)  # which makes blocks of 10 candidates, so there are stacks
    arguments = tail(**shape | {"candidates": 41}) | {"world": world, "precision": precision}
    for algebra in ALGEBRAS:
        whole = score_tail(**arguments, algebra=algebra)
        for start, stop in ((0, 1), (1, 3), (7, 20), (40, 41)):
            part = score_tail(**part_of(arguments, start, stop), algebra=algebra)
            assert_bits(part, [counts[start:stop] for counts in whole])


def test_tallies_have_the_same_bits_for_any_number_of_threads() -> None:
    arguments = logits()
    _native.set_num_threads(1)
    expected = _native.tally_logits(**arguments)
    one = _native.tally_logits(**arguments | {"logits": arguments["logits"][:1]})
    for threads in (2, 8):
        _native.set_num_threads(threads)
        assert_bits(_native.tally_logits(**arguments), expected)
    assert_bits(one, [part[:1] if part.ndim > 1 else part for part in expected])


def _score_in_child(queue: Any, arguments: dict[str, Any]) -> None:
    queue.put([_native.num_threads(), *score_tail(**arguments)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own() -> None:
    arguments = tail()
    _native.set_num_threads(3)
    expected = score_tail(**arguments)  # the pool runs: its threads do not exist in the child
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_score_in_child, args=(queue, arguments))
    child.start()
    threads, *counts = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert threads == 3
    assert_bits(counts, expected)
    assert_bits(score_tail(**arguments), expected)  # and the parent still has its own


def test_calls_from_several_threads() -> None:
    arguments = tail(samples=2000)
    expected = score_tail(**arguments)
    stop = threading.Event()

    def change_threads() -> None:
        # More threads may be asked for while a call runs whose scratch memory is for fewer.
        while not stop.is_set():
            for threads in (1, 8, 2):
                _native.set_num_threads(threads)

    changer = threading.Thread(target=change_threads)
    changer.start()
    try:
        with ThreadPoolExecutor(4) as executor:
            for counts in executor.map(lambda _: score_tail(**arguments), range(60)):
                assert_bits(counts, expected)
    finally:
        stop.set()
        changer.join()


def test_python_goes_on_meanwhile() -> None:
    arguments = tail(samples=20_000, candidates=400)
    _native.set_num_threads(1)
    worker = threading.Thread(target=score_tail, kwargs=arguments)
    turns = 0
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        assert _native.num_threads() == 1  # does not wait for the call either
        turns += 1
    assert turns > 10  # with the GIL held, the whole call would be one


@pytest.mark.parametrize("isa", _native.available_isas())
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_logits_that_are_not_finite_count_as_nothing(bad: float, isa: str) -> None:
    _native.select_isa(isa)
    arguments = tail(candidates=2)
    arguments["rights"][0][1] = bad
    arguments["nonlinearities"] = ["identity", "identity"]
    correct, predicted, confusion, loss, *_ = score_tail(**arguments)
    assert correct[0].sum() > 0
    assert correct[1].sum() == predicted[1].sum() == confusion[1].sum() == 0
    largest = float(np.finfo(np.float32).max)
    np.testing.assert_array_equal(loss[1], largest * arguments["groups"].sum(1))
    assert np.isfinite(loss).all()


@pytest.mark.parametrize("isa", _native.available_isas())
def test_finite_logits_whose_difference_overflows(isa: str) -> None:
    _native.select_isa(isa)
    values = np.array([[[3e38, -3e38], [-3e38, 3e38]]], dtype=np.float32)
    labels, groups = np.array([1, 1]), np.ones((1, 2), dtype=bool)
    parts = [*PARTS, "histogram"]
    correct, _, _, loss, histogram, *_ = _native.tally_logits(values, labels, groups, parts, 4, 1.0)
    assert correct.tolist() == [[1]]
    assert loss[0, 0] == pytest.approx(6e38, rel=1e-6)
    assert histogram.tolist() == [[[[0, 0, 0, 0], [1, 0, 0, 1]]]]


@pytest.mark.parametrize("isa", _native.available_isas())
def test_the_loss_of_a_sure_prediction_keeps_its_digits(isa: str) -> None:
    _native.select_isa(isa)
    values = np.array([[[1000.0, 985.0]]], dtype=np.float32)
    _, _, _, loss, *_ = _native.tally_logits(
        values, np.array([0]), np.ones((1, 1), dtype=bool), ["loss"], 1, 1.0
    )
    # log1p(exp(-15)) = 3.059e-7; of the sum 1 + 3.059e-7 a float32 keeps multiples of 1.19e-7.
    assert loss[0, 0] == pytest.approx(np.log1p(np.exp(-15)), abs=1.2e-7)


@pytest.mark.parametrize("isa", _native.available_isas())
def test_nan_of_any_bits_stays_nan_in_bfloat16(isa: str) -> None:
    _native.select_isa(isa)
    arguments = tail(candidates=1, own=True) | {"precision": "bfloat16"}
    arguments["lefts"] = arguments["rights"] = [None, None]
    arguments["weights"][0].view(np.uint32)[:] = 0xFFFFFFFF  # rounding would carry this NaN over to zero
    assert score_tail(**arguments)[0].sum() == 0


def test_rank_zero_edits_nothing() -> None:
    arguments = tail(candidates=3, rank=0)
    unedited = arguments | {"lefts": [None] * 2, "rights": [None] * 2, "candidates": 1}
    for ours, one in zip(score_tail(**arguments), score_tail(**unedited), strict=True):
        np.testing.assert_array_equal(ours, np.repeat(one, 3, 0))


def test_no_samples_and_no_groups() -> None:
    for samples, groups in ((0, 3), (70, 0), (0, 0)):
        arguments = tail(samples=samples)
        arguments["groups"] = np.zeros((groups, samples), dtype=bool)
        correct, predicted, _, loss, *_ = score_tail(**arguments)
        assert correct.shape == (13, groups)
        assert not correct.any()
        assert not predicted.any()
        assert not loss.any()
