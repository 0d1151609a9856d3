"""What every search has in common: states between updates, identity, several tasks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from editing_tasks import SHORT, make_ppo, make_task, same_edit
from torch import Tensor

import rledit
from rledit.engine import Engine
from rledit.ops.rules import EditRule
from rledit.search import Row, Search

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------------------------- between updates


def interrupting(step: Callable[..., Any], at: int) -> Callable[..., Any]:
    """An optimizer's step that is followed by Ctrl-C at its n-th call."""
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        step(*args, **kwargs)
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    return interrupted


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 8, 17])
@pytest.mark.parametrize("length", [1, 2])
def test_ctrl_c_amid_an_update_takes_it_back(length: int, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = 16 * length * 5
    whole = make_ppo(episode_length=length).train(budget)
    ppo = make_ppo(episode_length=length)
    ppo.update()
    with monkeypatch.context() as patch:
        patch.setattr(ppo.optimizer, "step", interrupting(ppo.optimizer.step, at))
        result = ppo.train(budget)
    assert result.stopped == "interrupted"
    resumed = make_ppo(episode_length=length)
    resumed.load_state(*ppo.state())
    for search in (resumed, ppo):  # in another process, and in the same one
        assert same_edit(search.train(budget).edit, whole.edit)


@pytest.mark.parametrize("moment", ["before its step", "after its row", "twice"])
def test_ctrl_c_is_never_forgotten(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that was cut off must not look finished."""
    whole = make_ppo().train(16 * 4)
    ppo = make_ppo()
    ppo.update()

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    class Interrupting(list[Row]):
        def append(self, row: Row) -> None:
            super().append(row)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "before its step":
            patch.setattr("rledit.search.search.plain_modes", interrupt)
        elif moment == "after its row":
            ppo.history = Interrupting(ppo.history)
        else:
            patch.setattr(ppo, "step", interrupt)
            load, calls = ppo._load, []

            def second(*state: Any) -> None:
                calls.append(state)
                if len(calls) == 1:
                    raise KeyboardInterrupt
                load(*state)

            patch.setattr(ppo, "_load", second)
        if moment == "before its step":
            with pytest.raises(KeyboardInterrupt):
                ppo.update()
        else:
            assert ppo.train(16 * 4).stopped == "interrupted"
    ppo.history = list(ppo.history)
    assert same_edit(ppo.train(16 * 4).edit, whole.edit)


def test_the_state_amid_an_update_is_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make_ppo()
    ppo.update()
    tensors, state = ppo.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    seen: list[tuple[dict[str, Tensor], dict[str, Any]]] = []
    step = ppo.optimizer.step

    def looking(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        seen.append(ppo.state())

    monkeypatch.setattr(ppo.optimizer, "step", looking)
    ppo.update()
    for other, more in seen:
        assert more == state
        assert other.keys() == tensors.keys()
        assert all(torch.equal(other[name], value) for name, value in tensors.items())


def test_an_error_while_scoring_takes_the_update_back(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_ppo().train(16 * 4)
    ppo = make_ppo()
    ppo.update()
    with monkeypatch.context() as patch:
        patch.setattr(ppo.engine.episodes.scorer, "count", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ppo.update()
    assert same_edit(ppo.train(16 * 4).edit, whole.edit)


def test_a_finished_search_can_be_extended() -> None:
    whole = make_ppo().train(16 * 6)
    ppo = make_ppo()
    ppo.train(16 * 3)
    assert same_edit(ppo.train(16 * 6).edit, whole.edit)


# ----------------------------------------------------------------------------------------- identity


def splits(seed: int = 0, flip: bool = False) -> rledit.Samples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(80, 6, generator=generator)
    labels = torch.arange(80) % 3
    return rledit.Samples(inputs.flip(1) if flip else inputs, labels, rledit.forget_groups(labels, 1))


def search_of(
    objective: Any = None, samples: rledit.Samples | None = None, validation: rledit.Samples | None = None
) -> rledit.PPO:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    task = rledit.Task(
        model, ["0"], samples or splits(), objective or rledit.Unlearning(), validation or splits(1)
    )
    return rledit.PPO(rledit.MaskWorld(task, num_envs=8, rank=1), config=SHORT)


def constant(tally: rledit.Tally) -> Tensor:
    return 0.0 * tally.accuracy("retain")


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"objective": rledit.Unlearning(forget_weight=2.0)}, "objective"),
        ({"objective": constant}, "objective"),
        ({"samples": splits(flip=True)}, "samples"),
        ({"validation": splits(2)}, "validation"),
        ({"validation": splits(1, flip=True)}, "validation"),
    ],
)
def test_a_state_of_another_task_is_refused(others: dict[str, Any], named: str) -> None:
    search = search_of()
    search.update()
    tensors, state = search.state()
    search_of().load_state(tensors, json.loads(json.dumps(state)))
    stranger = search_of(**others)
    before = stranger.state()[0]
    with pytest.raises(ValueError, match=rf"does not belong to this search .*{named}"):
        stranger.load_state(tensors, state)
    assert all(torch.equal(value, before[name]) for name, value in stranger.state()[0].items())


# ------------------------------------------------------------------------------------ several tasks


@pytest.mark.slow
def test_one_policy_on_several_tasks() -> None:
    """Advantages are normalized per task: a task of a large scale does not drown the other."""

    def loud(tally: rledit.Tally) -> Tensor:
        return 1000 * (tally.accuracy("retain") - tally.accuracy("forget"))

    worlds = [
        rledit.ShiftWorld(make_task(objective), num_envs=32, rank=2)
        for objective in (rledit.Unlearning(), loud)
    ]
    ppo = rledit.PPO(worlds, seed=1, config=rledit.PPOConfig(hidden=16, elites=4))
    result = ppo.train(2 * 32 * 30)
    assert result.candidates == 2 * 32 * 30
    assert len(result.selections) == 2
    assert result.edit is result.selections[0].edit
    for selection in result.selections:
        validation: Any = selection.edit.metrics["validation"]
        assert validation["after"]["value"] > validation["before"]["value"]
    resumed = rledit.PPO(worlds, seed=1, config=ppo.config)
    resumed.load_state(*ppo.state())
    assert same_edit(resumed.result().selections[1].edit, result.selections[1].edit)


def test_several_of_the_same_task_learn_as_one() -> None:
    task = make_task()
    two = rledit.PPO([rledit.MaskWorld(task, num_envs=8, rank=2) for _ in range(2)], config=SHORT)
    row = two.update()
    assert row["candidates"] == 16
    assert row["optimizer_steps"] > 0


def test_tasks_that_are_scored_in_different_ways() -> None:
    """One arrives in halves by itself, the other never does."""
    worlds = [
        rledit.MaskWorld(make_task(), num_envs=6, rank=2, backend=backend)
        for backend in ("native", "reference")
    ]
    ppo = rledit.PPO(worlds, config=rledit.PPOConfig(num_minibatches=3, update_epochs=2, hidden=8))
    assert ppo.update()["optimizer_steps"] == 6


def test_worlds_that_do_not_fit_together() -> None:
    task = make_task()
    one, other = (rledit.MaskWorld(task, num_envs=8, rank=rank) for rank in (1, 2))
    with pytest.raises(ValueError, match="env: expected worlds with the same size of actions"):
        rledit.PPO([one, other])
    with pytest.raises(ValueError, match="env: expected at least one world"):
        rledit.PPO([])


# ------------------------------------------------------------------------------ a search of one's own


class RandomSearch(Search):
    """The least that a search must do."""

    def step(self) -> Row:
        engine = self.engine
        shape = (engine.candidates, engine.layout.size)
        actions = engine.clip(torch.randn(shape, generator=self.generator))
        engine.reset()
        engine.start(actions)
        outcome = engine.wait()
        self.elites.add(outcome.rewards, actions[:, None])
        self.candidates += engine.candidates
        return {"candidates": float(self.candidates), "reward_best": float(outcome.rewards.max())}

    def proposals(self, task: int) -> Mapping[str, Tensor]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {}

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        pass


def test_a_search_of_ones_own_over_an_engine() -> None:
    def make(seed: int = 0) -> RandomSearch:
        return RandomSearch(Engine(make_task(), EditRule("shift"), candidates=16, rank=2), seed, elites=4)

    search = make()
    result = search.train(16 * 10)
    assert result.origin.startswith("elite")
    assert [row["update"] for row in result.history] == list(range(1, 11))
    part = make()
    with contextlib.suppress(KeyboardInterrupt):
        part.train(16 * 4)
    resumed = make()
    resumed.load_state(*part.state())
    assert same_edit(resumed.train(16 * 10).edit, result.edit)
    with pytest.raises(ValueError, match="seed: 0, here 1"):
        make(seed=1).load_state(*part.state())
    with pytest.raises(ValueError, match="search: 'RandomSearch', here 'PPO'"):
        make_ppo().load_state(*part.state())
