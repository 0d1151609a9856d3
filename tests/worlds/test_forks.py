"""A world in a forked child goes on where the parent stood, and never hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from editing_tasks import make_task
from torch import nn

import rledit
from rledit.worlds import World

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(work: Callable[[], bool]) -> str:
    """What a forked child makes of the work: "right", "wrong", an error, or "hangs"."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in another process
        try:
            said = "right" if work() else "wrong"
        except BaseException as error:
            said = repr(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    for _ in range(300):
        if os.waitpid(pid, os.WNOHANG)[0]:
            with os.fdopen(read) as pipe:
                return pipe.read()
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def actions_for(world: World, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, world.action_space.shape).astype(np.float32)


@pytest.fixture(params=[1, 2], ids=["one step", "two steps"])
def world(request: pytest.FixtureRequest) -> World:
    return rledit.ShiftWorld(make_task(), num_envs=8, rank=2, episode_length=request.param)


def test_a_world_that_has_stepped(world: World) -> None:
    world.reset()
    expected = [world.step(actions_for(world, seed))[1] for seed in range(2)]
    world.reset()
    world.step(actions_for(world, 0))

    def goes_on() -> bool:
        rewards = world.step(actions_for(world, 1))[1]
        return world.episode_length == 1 or np.array_equal(rewards, expected[1])

    assert in_child(goes_on) == "right"
    assert goes_on()  # and so does the parent


def test_a_step_under_way(world: World) -> None:
    world.reset()
    expected = world.step(actions_for(world, 0))[1]
    world.reset()
    world.step_async(actions_for(world, 0))
    assert in_child(lambda: np.array_equal(world.step_wait()[1], expected)) == "right"
    np.testing.assert_array_equal(world.step_wait()[1], expected)


def test_a_search(world: World) -> None:
    ppo = rledit.PPO(world)
    ppo.update()
    assert in_child(lambda: ppo.update()["update"] == 2) == "right"


def test_a_closed_world(world: World) -> None:
    world.step(actions_for(world, 0))
    world.close()
    assert "it is closed" in in_child(lambda: bool(world.step(actions_for(world, 0))))


@pytest.mark.usefixtures("one_thread")  # torch's own threads do not outlive a fork
def test_a_child_of_a_thread_that_was_scoring_a_whole_network() -> None:
    """Nobody in the child finishes the edit, nor gives the lock back."""
    began, ended, other = threading.Event(), threading.Event(), []

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.fc(x)
            if float(logits.sum()) > 1e9:
                return x[:, :3]
            if threading.get_ident() in other and os.getpid() == parent:
                began.set()
                ended.wait(60)
            return logits

    torch.manual_seed(0)
    parent, labels = os.getpid(), torch.arange(60) % 3
    samples = rledit.Samples(torch.randn(60, 6), labels, rledit.forget_groups(labels, 1))
    with pytest.warns(UserWarning, match="runs it whole"):
        scorer = rledit.Task(Routed(), ["fc"], samples, rledit.Unlearning()).scorer()
    edits = {"fc": torch.randn(2, 3, 6)}
    expected = scorer.score({}).correct.counts

    def score() -> None:
        other.append(threading.get_ident())
        scorer.score({}, weights=edits)

    thread = threading.Thread(target=score)
    thread.start()
    try:
        assert began.wait(60)
        assert in_child(lambda: torch.equal(scorer.score({}).correct.counts, expected)) == "right"
    finally:
        ended.set()
        thread.join()
