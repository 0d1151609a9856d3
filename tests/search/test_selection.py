"""Which edit PPO returns, with and without a constraint."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from editing_tasks import SHORT, make_ppo, make_task, same_edit
from torch import Tensor

import rledit
from rledit.ppo.rollout import Rollout, collect
from rledit.ppo.trainer import mean_actions
from rledit.search import Elites
from rledit.search.selection import ENOUGH, SHRINKAGE

pytestmark = pytest.mark.usefixtures("one_thread")


def take(elites: Elites, rollout: Rollout, ppo: rledit.PPO) -> None:
    elites.add(rollout.returns, ppo.engine.clip(rollout.actions.transpose(0, 1)))


@pytest.mark.parametrize("length", [1, 2])
def test_elites_are_the_best_in_a_stable_order(length: int) -> None:
    ppo = make_ppo(episode_length=length)
    rollouts = [collect(ppo.engine, ppo.agent, ppo.generator) for _ in range(4)]
    elites = Elites(7, length, ppo.env.layout.size)
    for rollout in rollouts:
        take(elites, rollout, ppo)
    every = [
        (float(rollout.returns[i]), order, i)
        for order, rollout in enumerate(rollouts)
        for i in range(ppo.env.num_envs)
    ]
    best = sorted(every, key=lambda item: (-item[0], item[1], item[2]))[:7]
    assert elites.returns.tolist() == [item[0] for item in best]
    for actions, (_, order, i) in zip(elites.actions, best, strict=True):
        assert torch.equal(actions, rollouts[order].actions[:, i].clamp(-ppo.env.bound, ppo.env.bound))


@pytest.mark.parametrize("length", [1, 2])
def test_the_best_on_validation_is_returned(length: int) -> None:
    ppo = make_ppo(episode_length=length)
    ppo.train(16 * length * 3)
    actions = torch.cat([mean_actions(ppo.engine, ppo.agent), ppo.elites.actions])
    outcome = ppo.engine.replay(actions, "validation").outcome
    best = int(outcome.values.argmax())
    result = ppo.result()
    assert result.origin == (f"elite {best}" if best else "policy mean")
    assert same_edit(result.edit, ppo.env.edit(actions[best]))
    after = result.edit.metrics["validation"]["after"]  # type: ignore[index, call-overload]
    assert after["value"] == float(outcome.values.max())  # type: ignore[index, call-overload]
    assert result.edit.metrics["origin"] == result.origin


def test_ties_go_to_the_mean() -> None:
    task = make_task(lambda tally: tally.accuracy("retain") * 0)
    result = rledit.PPO(rledit.MaskWorld(task, num_envs=8, rank=1), config=SHORT).train(16)
    assert result.origin == "policy mean"


def test_an_edit_that_only_harms_is_not_returned() -> None:
    task = make_task(lambda tally: tally.accuracy("retain") + tally.accuracy("forget"))
    ppo = rledit.PPO(rledit.MaskWorld(task, num_envs=8, rank=2))
    with torch.no_grad():
        ppo.agent.policy.head.bias.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    result = ppo.result()
    assert result.origin == "no edit"
    assert all(not left.any() and not right.any() for left, right in result.edit.factors.values())


@pytest.mark.parametrize("length", [1, 3])
def test_mean_actions_are_the_policys_own(length: int) -> None:
    ppo = make_ppo(rledit.ShiftWorld, num_envs=1, episode_length=length)
    ppo.train(2 * length)
    actions = mean_actions(ppo.engine, ppo.agent)
    assert actions.shape == (1, length, ppo.env.layout.size)
    observation, _ = ppo.env.reset()
    for t in range(length):
        with torch.no_grad():
            expected = ppo.agent.policy(torch.from_numpy(np.array(observation))).mean.clamp(-4, 4)
        assert torch.equal(actions[:, t], expected)
        observation, *_ = ppo.env.step(expected.numpy())


class Constrained(rledit.Unlearning):
    """Retain accuracy may fall by a twentieth."""

    def admissible(self, tally: rledit.Tally) -> Tensor:
        return tally.accuracy("retain") >= 0.95


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("kind", [rledit.MaskWorld, rledit.ShiftWorld])
def test_the_edit_keeps_the_objectives_constraint(kind: type[rledit.worlds.World], length: int) -> None:
    """A reward that is better beyond the constraint drives there; the choice does not."""
    task = make_task(Constrained(retain_weight=-1.0, forget_weight=0.0))
    env = kind(task, num_envs=256, rank=4, episode_length=length, scale=2.0)
    ppo = rledit.PPO(env, config=SHORT)
    with torch.no_grad():  # far from the identity from the first
        ppo.agent.policy.head.bias.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    result = ppo.train(5 * 256 * length)
    known = 1 + len(SHRINKAGE)
    assert len(result.choices) == known * (1 + SHORT.elites) + 1
    beyond = [choice for choice in result.choices if not choice["admissible"]]
    within = [choice for choice in result.choices if choice["admissible"]]
    assert beyond, "nothing to choose against"
    after = result.edit.metrics["validation"]["after"]  # type: ignore[index, call-overload]
    assert after["retain_accuracy"] >= 0.95  # type: ignore[index, call-overload]
    best, before = max(choice["value"] for choice in within), -1.0
    assert after["value"] >= before + ENOUGH * (best - before)  # type: ignore[index, call-overload]


def test_the_smallest_version_that_does_nearly_as_much() -> None:
    class Free(rledit.Unlearning):
        def admissible(self, tally: rledit.Tally) -> Tensor:
            return torch.ones(tally.candidates, dtype=torch.bool)

    ppo = rledit.PPO(rledit.ShiftWorld(make_task(Free()), num_envs=64, rank=2), config=SHORT)
    with torch.no_grad():
        ppo.agent.policy.head.bias.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    result = ppo.train(1280)
    whole = 1 + SHORT.elites
    values = torch.tensor([choice["value"] for choice in result.choices[:-1]], dtype=torch.float64).view(
        -1, whole
    )
    best = values.max()
    edit = int((values == best).nonzero()[0, 1])
    before = ppo.env.task.scorer(split="validation").score({})
    start = float(ppo.env.task.objective(before)[0])
    enough = values[:, edit] >= start + ENOUGH * (best - start)
    chosen = result.edit.metrics["validation"]["after"]["value"]  # type: ignore[index, call-overload]
    assert chosen == float(values[enough, edit][-1])


def test_shrunk_edits_are_those_smaller_deltas() -> None:
    task = make_task(Constrained())
    env = rledit.ShiftWorld(task, num_envs=8, rank=2)
    ppo = rledit.PPO(env, config=SHORT)
    ppo.train(16)
    whole = env.edit(ppo.elites.actions[0]).deltas(task.weights())["0"]
    half = env.edit(env.engine.shrunk(ppo.elites.actions[0], 0.5)).deltas(task.weights())["0"]
    torch.testing.assert_close(half, 0.5 * whole)


def test_without_a_constraint_nothing_is_shrunk() -> None:
    result = make_ppo().train(16)
    assert len(result.choices) == 1 + SHORT.elites + 1
    assert all(choice["admissible"] == 1.0 for choice in result.choices)


def test_the_unedited_model_is_what_remains_if_nothing_is_allowed() -> None:
    class Nothing(rledit.Unlearning):
        def admissible(self, tally: rledit.Tally) -> Tensor:
            unedited = tally.accuracy("retain") == 1.0
            return unedited & (tally.accuracy("forget") == 1.0)

    result = rledit.PPO(rledit.MaskWorld(make_task(Nothing()), num_envs=8, rank=2), config=SHORT).train(64)
    left, right = result.edit.factors["0"]
    if result.origin == "no edit":
        assert not left.any()
        assert not right.any()
    after = result.edit.metrics["validation"]["after"]  # type: ignore[index, call-overload]
    assert after["forget_accuracy"] == 1.0  # type: ignore[index, call-overload]


class Judged(rledit.Unlearning):
    """Sample by sample: at most so many answers may differ from those of the unedited model."""

    most = 20

    def admissible(self, tally: rledit.Tally) -> Tensor:
        return torch.ones(tally.candidates, dtype=torch.bool)

    def confirmation(self, samples: rledit.Samples, unedited: Tensor) -> Callable[[Tensor], bool]:
        assert len(unedited) == len(samples)
        return lambda edited: int((edited.argmax(1) != unedited.argmax(1)).sum()) <= self.most


@pytest.mark.parametrize("most", [3, 0])
@pytest.mark.parametrize("length", [1, 2])
def test_an_objective_that_judges_sample_by_sample_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch, most: int, length: int
) -> None:
    monkeypatch.setattr(Judged, "most", most)
    task = make_task(Judged())
    world = rledit.ShiftWorld(task, num_envs=64, rank=2, episode_length=length)
    ppo = rledit.PPO(world, config=SHORT)
    with torch.no_grad():
        ppo.agent.policy.head.bias.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    result = ppo.train(64 * 10 * length)
    inputs = torch.cat(list(task.validation.batches()))
    edited = copy.deepcopy(task.editable.model)
    result.edit.apply_(edited)
    with torch.no_grad():
        before, after = task.editable.model(inputs), edited(inputs)
    assert int((before.argmax(1) != after.argmax(1)).sum()) <= most
    lax = [choice for choice in result.choices if choice["admissible"]]
    after_value = result.edit.metrics["validation"]["after"]["value"]  # type: ignore[index, call-overload]
    assert after_value < max(choice["value"] for choice in lax)  # the best was not confirmed


def test_logits_of_actions_are_those_of_the_edited_model() -> None:
    ppo = make_ppo(rledit.ShiftWorld, episode_length=2)
    ppo.train(64)
    engine, task = ppo.engine, ppo.engine.task
    model = copy.deepcopy(task.editable.model)
    inputs = torch.cat(list(task.validation.batches()))
    actions = ppo.elites.actions[0]
    with torch.no_grad():
        torch.testing.assert_close(engine.logits(actions[:0], "validation"), model(inputs))
        engine.edit(actions).apply_(model)
        torch.testing.assert_close(engine.logits(actions, "validation"), model(inputs), atol=1e-4, rtol=1e-4)
