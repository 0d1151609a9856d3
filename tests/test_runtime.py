"""What torch keeps globally stays the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from editing_tasks import SHORT, make_ppo, same_edit
from torch import nn

import rledit
from rledit.runtime import one_thread, plain_modes, seeded


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": default_dtype,
    "default device": lambda: torch.device("meta"),
}


@pytest.fixture(scope="module")
def plain() -> rledit.Result:
    return make_ppo(rledit.ShiftWorld).train(48)


@pytest.mark.parametrize("mode", MODES)
def test_searching_within_a_mode(mode: str, plain: rledit.Result) -> None:
    task_of = make_ppo(rledit.ShiftWorld).engine.task
    with MODES[mode]():
        world = rledit.ShiftWorld(task_of, num_envs=16, rank=2)
        result = rledit.PPO(world, config=SHORT).train(48)
    assert same_edit(result.edit, plain.edit)
    assert torch.get_default_dtype() == torch.float32


def test_modes_are_put_back() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), default_dtype():
        with plain_modes(grad=True):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert torch.get_default_dtype() == torch.float32
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64


def in_threads(work: Callable[[int], Any], count: int) -> list[Any]:
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(i: int) -> None:
        barrier.wait()
        results[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def parameters(ppo: rledit.PPO) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in ppo.agent.parameters()])


def test_searches_in_threads_repeat_their_seeds() -> None:
    state = torch.get_rng_state()
    alone = [parameters(make_ppo(seed=seed)) for seed in range(3)]
    torch.set_rng_state(state)
    task = make_ppo().engine.task
    state = torch.get_rng_state()

    def first(seed: int) -> torch.Tensor:
        world = rledit.MaskWorld(task, num_envs=16, rank=2)
        return parameters(rledit.PPO(world, seed=seed, config=SHORT))

    for _ in range(5):
        together = in_threads(first, 3)
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_in_threads() -> None:
    state = torch.get_rng_state()
    expected = []
    for seed in range(4):
        with seeded(seed, torch.device("cpu")):
            expected.append(nn.Linear(20, 30).weight.detach())

    def make(seed: int) -> torch.Tensor:
        with seeded(seed, torch.device("cpu")):
            return nn.Linear(20, 30).weight.detach()

    for _ in range(5):
        assert all(map(torch.equal, in_threads(make, 4), expected))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("one_thread")  # which puts the number back
def test_each_thread_gets_its_own_threads_back() -> None:
    """Whoever leaves first, while another is still inside."""
    torch.set_num_threads(2)
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def work(i: int) -> tuple[int, int]:
        before = torch.get_num_threads()
        if i == 0:
            with one_thread():
                first_in.set()
                assert second_in.wait(10)
            first_out.set()
        else:
            assert first_in.wait(10)
            with one_thread():
                second_in.set()
                assert first_out.wait(10)
        return before, torch.get_num_threads()

    counts = in_threads(work, 2)
    assert counts[0][1] == counts[1][1] == 2


def test_one_thread_gives_the_threads_back() -> None:
    before = torch.get_num_threads()
    inside = []

    def work(_: int) -> None:
        for _ in range(50):
            with one_thread():
                inside.append(torch.get_num_threads())

    in_threads(work, 4)
    assert set(inside) == {1}
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
