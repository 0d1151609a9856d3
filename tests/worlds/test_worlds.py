"""The worlds keep Gymnasium's conventions, and the promises of their docstrings."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pairwise import pairwise
from torch import nn

import rledit
from rledit.engine import observations
from rledit.worlds import SingleMaskWorld, SingleShiftWorld, World

WORLDS = [rledit.MaskWorld, rledit.ShiftWorld]
SINGLE = {rledit.MaskWorld: SingleMaskWorld, rledit.ShiftWorld: SingleShiftWorld}
NAMES = ["MaskWorld", "ShiftWorld"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc1 = nn.Linear(16, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x)).flatten(1)
        logits: torch.Tensor = self.fc2(torch.relu(self.fc1(x)))
        return logits


def make_task(targets: tuple[str, ...] = ("fc1",), **kwargs: Any) -> rledit.Task:
    torch.manual_seed(0)
    model = Net()
    inputs = torch.randn(60, 1, 4, 4)
    labels = torch.arange(60) % 3
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 1))
    return rledit.Task(model, list(targets), samples, kwargs.pop("objective", rledit.Unlearning()), **kwargs)


@pytest.fixture(scope="module")
def task() -> rledit.Task:
    return make_task()


def actions_for(env: World, seed: int = 0, spread: float = 0.5) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, spread, env.action_space.shape).astype(np.float32)


@pytest.fixture
def env(task: rledit.Task) -> Iterator[World]:
    world = rledit.ShiftWorld(task, num_envs=5, rank=2, episode_length=2)
    yield world
    world.close()


# ------------------------------------------------------------------------------------------ Gymnasium


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("length", [1, 3])
def test_check_env(task: rledit.Task, kind: type[World], length: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Its advice for any unbounded observation, actions beyond [-1, 1], and environments without a spec.
        for advice in (
            "A Box observation space",
            "we recommend using a symmetric",
            "alternative render modes",
        ):
            warnings.filterwarnings("ignore", message=f".*{advice}")
        check_env(SINGLE[kind](task, rank=2, episode_length=length))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*WARN")
def test_make_passes_the_checker(task: rledit.Task, name: str) -> None:
    env = gymnasium.make(f"rledit/{name}-v0", task=task, rank=2, episode_length=2)
    assert isinstance(env.unwrapped, SINGLE[getattr(rledit, name)])
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=3)
    for _ in range(2):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert observation in env.observation_space
    assert terminated
    assert not truncated
    assert isinstance(reward, float)
    assert set(info) == {"value", "forget_accuracy", "retain_accuracy"}
    env.close()
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_make_vec(task: rledit.Task, name: str) -> None:
    env = gymnasium.make_vec(f"rledit/{name}-v0", num_envs=4, task=task, rank=3, episode_length=2)
    assert isinstance(env, getattr(rledit, name))
    assert env.spec is not None
    assert env.num_envs == 4
    assert env.action_space.shape == (4, 3 * (6 + 16))
    assert env.single_action_space.shape == (3 * (6 + 16),)
    assert env.observation_space.shape == (4, 96)
    assert env.single_observation_space.shape == (96,)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert observation in env.observation_space
    assert (reward.dtype, reward.shape) == (np.float64, (4,))
    assert (terminated.dtype, truncated.dtype) == (np.bool_, np.bool_)
    env.close()
    env.close()


def same_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        if isinstance(value, dict):
            same_infos(ours[name], value)
        elif value.dtype == object:
            assert ours[name].dtype == object
            for mine, other in zip(ours[name], value, strict=True):
                np.testing.assert_allclose(mine, other, atol=1e-6)
        else:
            assert ours[name].dtype == value.dtype
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_laid_out_as_gymnasiums_own_vector_env(task: rledit.Task, kind: type[World], length: int) -> None:
    """N candidates at once, and N single worlds under Gymnasium's SyncVectorEnv in SAME_STEP mode."""
    ours = kind(task, num_envs=3, rank=2, episode_length=length)
    theirs = SyncVectorEnv(
        [lambda: SINGLE[kind](task, rank=2, episode_length=length)] * 3,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    first, infos = ours.reset(seed=1)
    their_first, their_infos = theirs.reset(seed=1)
    np.testing.assert_array_equal(first, their_first)
    same_infos(infos, their_infos)
    for step in range(2 * length + 1):
        actions = actions_for(ours, seed=step)
        mine, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(mine[0], other[0], atol=1e-6)
        for a, b in zip(mine[1:4], other[1:4], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        same_infos(mine[4], other[4])
        assert ("final_obs" in mine[4]) == bool(mine[2].all()) == ((step + 1) % length == 0)
    ours.close()
    theirs.close()


# ----------------------------------------------------------------------------------- reset and seeds


def test_reset_starts_over(env: World) -> None:
    first, infos = env.reset()
    once = env.step(actions_for(env))
    assert not np.array_equal(once[0], first)
    again, infos_again = env.reset()
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(infos["value"], infos_again["value"])
    twice = env.step(actions_for(env))
    np.testing.assert_array_equal(once[0], twice[0])
    np.testing.assert_array_equal(once[1], twice[1])


def test_autoreset_starts_over(env: World) -> None:
    env.reset()
    episodes = []
    for _ in range(2):
        steps = [env.step(actions_for(env, seed=step)) for step in range(2)]
        episodes.append(np.array([step[1] for step in steps]))
        np.testing.assert_array_equal(steps[1][0], env.reset()[0])
    np.testing.assert_array_equal(*episodes)


def test_returns_are_the_total_improvement(task: rledit.Task) -> None:
    env = rledit.MaskWorld(task, num_envs=4, rank=2, episode_length=5)
    _, infos = env.reset()
    rewards = []
    for step in range(5):
        _, reward, _, _, last = env.step(actions_for(env, step))
        rewards.append(reward)
    improvement = last["final_info"]["value"] - infos["value"]
    np.testing.assert_allclose(np.sum(rewards, axis=0), improvement, atol=1e-12)
    env.close()


def test_seeds_have_gymnasiums_forms(env: World) -> None:
    for seed in (None, 0, [1, 2, 3, 4, 5], [None] * 5):
        env.reset(seed=seed)  # type: ignore[arg-type]
    env.reset(seed=7)
    first = env.np_random.random()
    env.reset(seed=7)
    assert env.np_random.random() == first
    with pytest.raises(ValueError, match="expected 5 seeds, one per candidate, got 2"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": np.ones(5, dtype=bool)})


def test_results_belong_to_the_caller(env: World) -> None:
    env.reset()
    expected = [env.step(actions_for(env, step)) for step in range(2)]
    env.reset()
    for step in range(2):
        actions = actions_for(env, step)
        env.step_async(actions)
        actions[:] = np.nan  # the world has its own copy
        _, reward, _, _, infos = env.step_wait()
        np.testing.assert_array_equal(reward, expected[step][1])
        infos["value"][:] = -1
        reward[:] = -1


# -------------------------------------------------------------------------------------- asynchronous


def test_async_returns_at_once(env: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    count = env.engine.episodes.scorer.count

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert go.wait(10)
        return count(*args, **kwargs)

    env.reset()
    monkeypatch.setattr(env.engine.episodes.scorer, "count", slow)
    env.step_async(actions_for(env))  # would hang if it waited
    with pytest.raises(RuntimeError, match="has not been waited for"):
        env.step_async(actions_for(env))
    go.set()
    _, reward, *_ = env.step_wait()
    with pytest.raises(RuntimeError, match="no step is under way"):
        env.step_wait()
    env.reset()
    np.testing.assert_array_equal(reward, env.step(actions_for(env))[1])


def test_reset_abandons_the_step_under_way(env: World) -> None:
    first, _ = env.reset()
    env.step_async(actions_for(env))
    np.testing.assert_array_equal(env.reset()[0], first)
    with pytest.raises(RuntimeError, match="no step is under way"):
        env.step_wait()
    assert env.engine.episodes.steps == 0


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("length", [1, 2])
def test_an_error_while_scoring(kind: type[World], length: int) -> None:
    broken = False

    def objective(tally: rledit.Tally) -> torch.Tensor:
        value = tally.accuracy("retain")
        return value * float("nan") if broken else value

    env = kind(make_task(objective=objective), num_envs=3, rank=2, episode_length=length)
    first, _ = env.reset()
    expected = env.step(actions_for(env))[1]
    env.reset()
    broken = True
    env.step_async(actions_for(env, spread=2))
    with pytest.raises(ValueError, match=r"objective: expected .* to give finite values, got nan"):
        env.step_wait()
    broken = False
    np.testing.assert_array_equal(env.step(actions_for(env))[1], expected)  # begins anew
    np.testing.assert_array_equal(env.reset()[0], first)
    single = SINGLE[kind](env.task, rank=2, episode_length=length)
    broken = True
    with pytest.raises(ValueError, match="objective"):
        single.step(actions_for(env)[0])
    broken = False
    assert single.step(actions_for(env)[0])[1] == expected[0]


def test_objective_of_a_wrong_shape() -> None:
    class Bad(rledit.Unlearning):
        def __call__(self, tally: rledit.Tally) -> torch.Tensor:
            return super().__call__(tally)[:, None]

    with pytest.raises(ValueError, match=r"one value per candidate, shape \[1\], got \[1, 1\]"):
        rledit.MaskWorld(make_task(objective=Bad()), num_envs=3)


def test_close(task: rledit.Task) -> None:
    env = rledit.MaskWorld(task, num_envs=2, rank=1)
    env.reset()
    env.step_async(actions_for(env))
    env.close()
    env.close()
    closed = rledit.MaskWorld(task, num_envs=2, rank=1)
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.step(actions_for(closed))


# ------------------------------------------------------------------------------------------- actions


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("length", [1, 2])
def test_out_of_bounds_is_clipped(task: rledit.Task, kind: type[World], length: int) -> None:
    env = kind(task, num_envs=4, rank=2, episode_length=length, bound=0.75)
    assert env.single_action_space.high.max() == 0.75
    actions = actions_for(env, spread=2)
    env.reset()
    wild = env.step(np.where(np.abs(actions) > 3, np.copysign(np.inf, actions), actions))
    env.reset()
    tame = env.step(np.clip(actions, -0.75, 0.75))
    np.testing.assert_array_equal(wild[1], tame[1])
    np.testing.assert_array_equal(wild[0], tame[0])
    env.reset()
    huge = env.step(actions.astype(np.float64) * 1e300)  # beyond float32
    env.reset()
    np.testing.assert_array_equal(huge[1], env.step(np.copysign(0.75, actions))[1])
    env.close()


def test_bad_actions_lose_nothing(env: World) -> None:
    env.reset()
    good = actions_for(env)
    expected = [env.step(actions_for(env, step))[1] for step in range(2)]
    env.step(good)
    bad = good.copy()
    bad[2, 3] = np.nan
    for wrong, text in [
        (bad, "got NaN"),
        (good[:-1], r"expected shape \[5, 44\], got \[4, 44\]"),
        (good[:, 1:], r"got \[5, 43\]"),
        (good[0], r"got \[44\]"),
        (good[None], r"got \[1, 5, 44\]"),
    ]:
        with pytest.raises(ValueError, match=text):
            env.step_async(wrong)
    np.testing.assert_array_equal(env.step(actions_for(env, 1))[1], expected[1])
    with pytest.raises(ValueError, match="NaN"):
        SingleShiftWorld(env.task, rank=2).step(bad[2])
    with pytest.raises(ValueError, match=r"expected shape \[44\], got \[5, 44\]"):
        SingleShiftWorld(env.task, rank=2).step(good)


def test_any_array_is_accepted(env: World) -> None:
    good = actions_for(env)
    readonly = good.copy()
    readonly.setflags(write=False)
    wide = np.zeros((5, 88), dtype=np.float64)
    wide[:, ::2] = good
    kinds: list[Any] = [
        readonly,
        wide[:, ::2],
        np.asfortranarray(good),
        np.ascontiguousarray(good[::-1])[::-1],
        good.tolist(),
        torch.from_numpy(good),
    ]
    env.reset()
    expected = env.step(good)[1]
    for kind in kinds:
        env.reset()
        np.testing.assert_array_equal(env.step(kind)[1], expected)


LOSS = rledit.Function(lambda tally: -tally.loss["retain"], needs=("loss",))


@pairwise(targets=[("fc1",), ("fc2", "fc1"), ("conv",)], length=[1, 2, 5], kind=WORLDS)
def test_zero_is_the_identity(kind: type[World], length: int, targets: tuple[str, ...]) -> None:
    for objective in (rledit.Unlearning(), LOSS):
        env = kind(make_task(targets, objective=objective), num_envs=3, rank=2, episode_length=length)
        first, before = env.reset()
        for _ in range(length):
            observation, reward, _, _, infos = env.step(np.zeros(env.action_space.shape, dtype=np.float32))
            np.testing.assert_array_equal(reward, 0.0)
            np.testing.assert_array_equal(observation, first)
        np.testing.assert_array_equal(np.stack(infos["final_obs"]), first)
        np.testing.assert_array_equal(infos["final_info"]["value"], before["value"])
        env.close()


@pairwise(full=[False, True], targets=[("fc1",), ("fc2",), ("fc1", "fc2"), ("conv", "fc2")], kind=WORLDS)
def test_any_rank_and_targets(kind: type[World], targets: tuple[str, ...], full: bool) -> None:
    task = make_task(targets)
    shapes = [weight.shape for weight in task.weights().values()]
    rank = min(min(shape) for shape in shapes) if full else 1
    env = kind(task, num_envs=1, rank=rank, episode_length=2)
    assert env.action_space.shape == (1, rank * sum(sum(shape) for shape in shapes))
    assert env.observation_space.shape == (1, sum(shape.numel() for shape in shapes))
    first, _ = env.reset()
    for name, weight in task.weights().items():
        assert weight.flatten().div(weight.std())[0] in torch.from_numpy(np.array(first)), name
    observation, reward, *_ = env.step(actions_for(env))
    assert np.isfinite(observation).all()
    assert reward.shape == (1,)
    env.close()
    with pytest.raises(ValueError, match=rf"expected a rank in 1\.\.\d+, got {rank + 20}"):
        kind(task, rank=rank + 20)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rank": 0}, r"rank: expected an integer of at least 1, got 0"),
        ({"rank": 7}, r"expected a rank in 1\.\.6, got 7"),
        ({"rank": 2.0}, r"rank: expected an integer of at least 1, got 2\.0"),
        ({"rank": True}, "rank: expected an integer of at least 1, got True"),
        ({"num_envs": 0}, "num_envs: expected an integer of at least 1"),
        ({"episode_length": 1.5}, "episode_length: expected an integer"),
        ({"scale": 0.0}, "scale: expected a positive number"),
        ({"scale": float("nan")}, "scale: expected a positive number"),
        ({"bound": float("inf")}, "bound: expected a positive number"),
        ({"observation": "pixels"}, "observation: expected 'auto', 'weights' or 'neurons'"),
        ({"backend": "tpu"}, "backend: expected one of"),
        ({"precision": "int8"}, "precision: expected one of"),
    ],
)
def test_bad_arguments(task: rledit.Task, arguments: dict[str, Any], text: str) -> None:
    for kind in WORLDS:
        with pytest.raises(ValueError, match=text):
            kind(task, **arguments)


def test_final_obs_can_be_left_out(task: rledit.Task) -> None:
    env = rledit.MaskWorld(task, num_envs=2, rank=1, final_obs=False)
    *_, infos = env.step(actions_for(env))
    assert "final_obs" not in infos
    assert infos["_final_info"].all()
    env.close()


# -------------------------------------------------------------------------------------- observations


def test_auto_observation(
    task: rledit.Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rledit"):
        assert rledit.MaskWorld(task, rank=1).engine.observe.name == "weights"
        assert not caplog.records
        monkeypatch.setattr(observations, "WHOLE_LIMIT", 95)
        env = rledit.MaskWorld(task, num_envs=2, rank=1, episode_length=2)
        assert env.engine.observe.name == "neurons"
        assert "96 weights, more than the 95" in caplog.text
        assert rledit.MaskWorld(task, rank=1, observation="weights").engine.observe.name == "weights"
    first, _ = env.reset()
    assert first.shape == (2, 3 * (6 + 16))
    weight = task.weights()["fc1"]
    scaled = (weight / weight.std()).double()
    statistics = [
        f(scaled, axis)
        for axis in (1, 0)
        for f in (
            lambda x, axis: x.mean(axis),
            lambda x, axis: x.std(axis, unbiased=False),
            lambda x, axis: x.abs().amax(axis),
        )
    ]
    np.testing.assert_allclose(first[0], torch.cat(statistics).numpy(), atol=1e-6)
    observation, *_ = env.step(actions_for(env))
    assert observation in env.observation_space
    env.close()


def test_a_constant_weight_is_observed() -> None:
    task = make_task()
    with torch.no_grad():
        task.editable.targets["fc1"].weight.fill_(0.5)
    env = rledit.ShiftWorld(task, num_envs=2, rank=1)
    np.testing.assert_array_equal(env.reset()[0], 0.5)
    assert np.isfinite(env.step(actions_for(env))[1]).all()
    env.close()
