"""PPO learns, repeats itself, resumes, and returns what it should."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from editing_tasks import SHORT, make_ppo, make_task, same_edit
from pairwise import pairwise
from torch import Tensor

import rledit
from rledit.engine import Engine
from rledit.ppo.rollout import collect, start
from rledit.worlds import World

WORLDS = [rledit.MaskWorld, rledit.ShiftWorld]
TIMES = ("seconds_score", "seconds_policy", "candidates_per_second")


pytestmark = pytest.mark.usefixtures("one_thread")


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


# ------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("length", "kind"),
    [
        (1, rledit.MaskWorld),
        pytest.param(1, rledit.ShiftWorld, marks=pytest.mark.slow),
        pytest.param(2, rledit.ShiftWorld, marks=pytest.mark.slow),
        pytest.param(2, rledit.MaskWorld, marks=pytest.mark.exhaustive),
    ],
)
def test_learns(kind: type[World], length: int) -> None:
    env = kind(make_task(), num_envs=64, rank=2, episode_length=length)
    result = rledit.PPO(env, config=rledit.PPOConfig(learning_rate=2e-3)).train(64 * length * 40)
    first, last = result.history[0]["reward_mean"], result.history[-1]["reward_mean"]
    assert last > max(first + 0.3, 0.7)
    after = result.edit.metrics["validation"]["after"]  # type: ignore[index, call-overload]
    assert after["value"] > 0.7  # type: ignore[index, call-overload]
    assert result.stopped == ""
    assert result.candidates == 64 * length * 40


@pytest.mark.slow
def test_the_objectives_scale_does_not_matter() -> None:
    last = []
    for scale in (1.0, 1000.0):
        task = make_task(rledit.Unlearning(forget_weight=scale, retain_weight=scale))
        env = rledit.MaskWorld(task, num_envs=64, rank=2)
        result = rledit.PPO(env, config=rledit.PPOConfig(learning_rate=2e-3)).train(64 * 40)
        last.append(result.history[-1]["reward_mean"] / scale)
    assert last[1] == pytest.approx(last[0], abs=0.1)


@pytest.mark.parametrize("envs", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [1, 2])
def test_any_number_of_candidates(envs: int, length: int) -> None:
    config = rledit.PPOConfig(update_epochs=2, num_minibatches=4, hidden=8)
    ppo = make_ppo(num_envs=envs, episode_length=length, config=config)
    result = ppo.train(3 * envs * length)
    assert [row["optimizer_steps"] for row in result.history] == [2 * max(1, min(4, envs // 2))] * 3
    assert all(np.isfinite(list(row.values())).all() for row in result.history)


# --------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("length", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_seed_repeats(kind: type[World], length: int) -> None:
    runs = [make_ppo(kind, seed, episode_length=length) for seed in (3, 3, 4)]
    before = torch.get_rng_state()
    results = [ppo.train(16 * length * 4) for ppo in runs]
    assert torch.equal(torch.get_rng_state(), before)
    assert same_edit(results[0].edit, results[1].edit)
    assert results[0].origin == results[1].origin
    assert without_times(results[0].history) == without_times(results[1].history)
    assert not same_edit(results[0].edit, results[2].edit)
    assert without_times(results[0].history) != without_times(results[2].history)


# -------------------------------------------------------------------------------------------- rollout


def rows_seen(ppo: rledit.PPO) -> list[int]:
    rows: list[int] = []
    for network in (ppo.agent.policy.trunk, ppo.agent.value.trunk):
        network.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    return rows


def test_one_row_for_one_step_episodes() -> None:
    ppo = make_ppo(num_envs=64)
    rows = rows_seen(ppo)
    ppo.update()
    ppo.result()
    assert set(rows) == {1}
    longer = make_ppo(num_envs=64, episode_length=2)
    rows = rows_seen(longer)
    collect(longer.engine, longer.agent, longer.generator)
    assert rows == [1, 64]


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("length", [1, 3])
def test_rollout_is_what_gymnasium_shows(kind: type[World], length: int) -> None:
    ppo = make_ppo(kind, episode_length=length)
    rollout = collect(ppo.engine, ppo.agent, ppo.generator)
    observation, _ = ppo.env.reset()
    for t in range(length):
        np.testing.assert_array_equal(
            observation, rollout.observations[t].expand(16, -1).numpy(), err_msg=f"step {t}"
        )
        observation, reward, _, _, infos = ppo.env.step(rollout.actions[t].numpy())
        np.testing.assert_array_equal(rollout.rewards[t].numpy(), reward.astype(np.float32))
    for name, metric in rollout.metrics.items():
        np.testing.assert_array_equal(metric.numpy(), infos["final_info"][name])
    with torch.no_grad():
        means = ppo.agent.policy(rollout.observations[0]).mean
        normal = torch.distributions.Normal(means, ppo.agent.policy.log_std.exp())
    expected = normal.log_prob(rollout.actions[0]).sum(1)
    torch.testing.assert_close(rollout.log_probs[0], expected, rtol=1e-5, atol=1e-4)


# --------------------------------------------------------------------------------------------- edits


@pairwise(conv=[False, True], length=[1, 2], kind=WORLDS)
def test_an_edit_gives_the_counts_of_its_candidate(kind: type[World], length: int, conv: bool) -> None:
    ppo = make_ppo(kind, conv=conv, episode_length=length)
    task = ppo.env.task
    rollout = collect(ppo.engine, ppo.agent, ppo.generator)
    inputs = torch.cat(list(task.samples.batches()))
    compared = 0
    for candidate in range(ppo.env.num_envs):
        edit = ppo.env.edit(rollout.actions[:, candidate])
        edit.apply_(task.editable.model)
        with torch.no_grad():
            logits = task.editable.model(inputs)
        edit.revert_(task.editable.model)
        top = logits.topk(2).values
        if float((top[:, 0] - top[:, 1]).min()) < 1e-4:
            continue  # a tie may fall either way
        right = logits.argmax(1) == task.samples.labels
        for group, mask in task.samples.groups.items():
            assert float(rollout.metrics[f"{group}_accuracy"][candidate]) == float(
                right[mask].double().mean()
            )
        compared += 1
    assert compared > 8


def test_float64_models_are_edited_by_the_factors_that_were_scored() -> None:
    task = make_task()
    double = rledit.Task(task.editable.model.double(), ["0"], *_double(task))
    env = rledit.ShiftWorld(double, num_envs=3, rank=2)
    actions = torch.randn(3, env.layout.size)
    scored = env.layout.factors(actions)["0"]
    for candidate in range(3):
        left, right = env.edit(actions[candidate : candidate + 1]).factors["0"]
        assert torch.equal(left.double(), scored[0][candidate])
        assert torch.equal(right.double(), scored[1][candidate])


def _double(task: rledit.Task) -> tuple[rledit.Samples, Any]:
    inputs = torch.cat(list(task.samples.batches())).double()
    return rledit.Samples(inputs, task.samples.labels, task.samples.groups), rledit.Unlearning()


# ---------------------------------------------------------------------------------------- checkpoint


@pairwise(done=[0, 3], length=[1, 2], kind=WORLDS)
def test_resumed_is_uninterrupted(kind: type[World], length: int, done: int) -> None:
    budget = 16 * length * 6
    whole = make_ppo(kind, episode_length=length).train(budget)
    ppo = make_ppo(kind, episode_length=length)
    for _ in range(done):
        ppo.update()
    tensors, state = ppo.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    state = json.loads(json.dumps(state, allow_nan=False))
    ppo.update()  # what came after the checkpoint is lost
    other = make_ppo(kind, episode_length=length)
    other.update()
    other.load_state(tensors, state)
    assert without_times(other.history) == without_times(whole.history[:done])
    result = other.train(budget)
    assert same_edit(result.edit, whole.edit)
    assert result.origin == whole.origin
    assert result.candidates == whole.candidates
    assert without_times(result.history) == without_times(whole.history)


def test_resumed_after_a_recovery() -> None:
    def run(interrupt: bool) -> rledit.Result:
        ppo = make_ppo()
        for step in range(5):
            if step == 2:
                with torch.no_grad():
                    ppo.agent.policy.head.bias[0] = float("nan")
            ppo.update()
            if interrupt and step == 3:
                tensors, state = ppo.state()
                ppo = make_ppo()
                ppo.load_state(tensors, state)
        assert ppo.guard.recoveries == 1
        return ppo.result()

    assert same_edit(run(False).edit, run(True).edit)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"kind": rledit.ShiftWorld},
        {"rank": 1},
        {"num_envs": 8},
        {"episode_length": 2},
        {"bound": 1.0},
        {"config": rledit.PPOConfig(update_epochs=3, hidden=16, elites=5, clip_coef=0.3)},
        {"conv": True},
    ],
)
def test_another_trainers_checkpoint(other: dict[str, Any]) -> None:
    ppo = make_ppo()
    ppo.update()
    stranger = make_ppo(**other)
    before = {name: value.clone() for name, value in stranger.agent.state_dict().items()}
    with pytest.raises(ValueError, match="does not belong to this search"):
        stranger.load_state(*ppo.state())
    assert all(torch.equal(value, before[name]) for name, value in stranger.agent.state_dict().items())


@pytest.mark.parametrize(
    "missing", ["generator", "history", "0.elites.actions", "learned.agent.policy.log_std"]
)
def test_an_incomplete_checkpoint(missing: str) -> None:
    ppo = make_ppo()
    ppo.update()
    tensors, state = ppo.state()
    del tensors[missing]
    with pytest.raises(ValueError, match="checkpoint"):
        make_ppo().load_state(tensors, state)
    for key in state:
        with pytest.raises(ValueError, match="checkpoint"):
            make_ppo().load_state(ppo.state()[0], {k: v for k, v in state.items() if k != key})


# -------------------------------------------------------------------------------------- interruption


def test_ctrl_c_returns_a_result_and_training_can_go_on() -> None:
    def stop(row: dict[str, float]) -> None:
        if row["update"] == 2:
            raise KeyboardInterrupt

    ppo = make_ppo()
    result = ppo.train(16 * 4, stop)
    assert result.stopped == "interrupted"
    assert len(result.history) == 2
    assert len(result.edit.targets) == 1
    again = make_ppo()
    again.load_state(*ppo.state())
    whole = make_ppo().train(16 * 4)
    for interrupted in (ppo, again):
        rest = interrupted.train(16 * 4)
        assert rest.stopped == ""
        assert same_edit(rest.edit, whole.edit)


@pytest.mark.parametrize("length", [1, 2])
def test_ctrl_c_while_scoring(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make_ppo(episode_length=length)
    whole = make_ppo(episode_length=length).train(16 * length * 2)
    ppo.update()
    ppo.update()

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt  # the step stays under way

    def never(actions: Tensor, parts: int) -> list[Any]:
        return [SimpleNamespace(result=interrupted) for _ in Engine.score_parts(ppo.engine, actions, parts)]

    with monkeypatch.context() as patch:
        patch.setattr(ppo.engine, "wait", interrupted)
        patch.setattr(ppo.engine, "score_parts", never)
        result = ppo.train(16 * length * 9)
    assert result.stopped == "interrupted"
    assert same_edit(result.edit, whole.edit)
    fresh = make_ppo(episode_length=length)
    monkeypatch.setattr(fresh.engine, "wait", interrupted)
    monkeypatch.setattr(fresh.engine, "score_parts", never)
    with pytest.raises(KeyboardInterrupt):  # nothing has been learned yet
        fresh.train(16)


@pytest.mark.parametrize("kind", WORLDS)
def test_halves_are_the_batch(kind: type[World]) -> None:
    """What is scored beside the update is what one call would have scored."""
    ppo = make_ppo(kind)
    assert ppo.engine.overlaps
    arriving = start(ppo.engine, ppo.agent, ppo.config, torch.Generator().manual_seed(5))
    first, second = arriving
    assert arriving.sizes == (first.actions.shape[1], second.actions.shape[1]) == (8, 8)
    whole = arriving.whole()
    expected = collect(ppo.engine, ppo.agent, torch.Generator().manual_seed(5))
    for name in ("actions", "log_probs", "rewards", "returns"):
        assert torch.equal(getattr(whole, name), getattr(expected, name)), name
    assert whole.metrics.keys() == expected.metrics.keys()


def test_what_cannot_be_scored_beside_the_update_is_not() -> None:
    assert not make_ppo(episode_length=2).engine.overlaps
    assert not make_ppo(conv=True).engine.overlaps
    ppo = make_ppo(config=replace(SHORT, num_minibatches=1))
    assert start(ppo.engine, ppo.agent, ppo.config, ppo.generator).sizes == (16,)


# ----------------------------------------------------------------------------------------- bad input


def test_a_nan_objective_says_so() -> None:
    broken = False

    def objective(tally: rledit.Tally) -> Tensor:
        retain = tally.accuracy("retain")
        return torch.where(torch.arange(len(retain)) == 3, float("nan"), retain) if broken else retain

    ppo = rledit.PPO(rledit.ShiftWorld(make_task(objective), num_envs=32, rank=2), config=SHORT)
    ppo.update()
    broken = True
    with pytest.raises(ValueError, match=r"objective: expected .* to give finite values, got nan"):
        ppo.train(3200)
    broken = False
    assert ppo.result().origin  # and nothing is lost


def test_bad_arguments() -> None:
    env = rledit.MaskWorld(make_task(), num_envs=4, rank=1)
    with pytest.raises(TypeError, match="env: expected a MaskWorld or ShiftWorld, or an Engine; got str"):
        rledit.PPO("env")  # type: ignore[arg-type]
    for seed in (-1, 1.5, True):
        with pytest.raises(ValueError, match="seed: expected an integer of at least 0"):
            rledit.PPO(env, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="candidates: expected an integer of at least 1, got 0"):
        rledit.PPO(env).train(0)
