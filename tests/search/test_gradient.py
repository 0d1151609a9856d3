"""Gradients as a search: what it finds, repeats, resumes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from editing_tasks import make_task
from torch import nn

import rledit
from rledit.engine.relaxation import Relaxation
from rledit.heads import last_features
from rledit.worlds import World

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = {"steps": 4, "restarts": 2, "learning_rate": 0.05}
TIMES = ("seconds_score", "seconds_policy", "candidates_per_second")


def make(kind: type[World] = rledit.ShiftWorld, seed: int = 0, **settings: Any) -> rledit.GradientSearch:
    env = kind(make_task(), num_envs=16, rank=2)  # type: ignore[arg-type]
    return rledit.GradientSearch(env, seed, **{**SHORT, **settings})


def chosen(result: rledit.Result) -> dict[str, Any]:
    metrics: Any = result.edit.metrics["validation"]
    return metrics["after"]


def same(first: rledit.Result, second: rledit.Result) -> bool:
    return all(
        torch.equal(a, b)
        for name in first.edit.factors
        for a, b in zip(first.edit.factors[name], second.edit.factors[name], strict=True)
    )


@pytest.mark.parametrize("kind", [rledit.MaskWorld, rledit.ShiftWorld])
def test_finds_an_edit(kind: type[World]) -> None:
    result = make(kind).train(300)
    assert chosen(result)["value"] >= 0.9
    assert result.history[-1]["soft"] > result.history[0]["soft"]
    assert result.candidates == 300
    assert [row["candidates"] for row in result.history[:2]] == [10, 20]  # two restarts, four slopes, a score


@pytest.mark.slow
def test_edits_images_and_along_directions() -> None:
    for env in (
        rledit.ShiftWorld(make_task(conv=True), num_envs=16, rank=2),
        rledit.MaskWorld(make_task(), num_envs=16, rank=2, directions="strata"),
    ):
        result = rledit.GradientSearch(env, **SHORT).train(300)
        assert chosen(result)["value"] > 0.6


def hidden_task(objective: rledit.Unlearning) -> rledit.Task:
    """Four clouds, of which the network's one edited layer can hide one."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 4
    centers = 2 * torch.randn(4, 12, generator=generator)
    splits = [
        rledit.Samples(inputs, labels, rledit.forget_groups(labels, 2))
        for inputs in (centers[labels] + torch.randn(240, 12, generator=generator) for _ in range(2))
    ]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    inputs = splits[0].head(240)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return rledit.Task(model, ["0"], splits[0], objective, splits[1])


def recall_by_scikit_learn(task: rledit.Task, edit: rledit.Edit) -> float:
    """On the validation split, learned on the other."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = deepcopy(task.editable.model)
    edit.apply_(model)
    seen, unseen = (last_features(model, split) for split in (task.samples, task.validation))
    probe = linear_model.LogisticRegression(max_iter=2000).fit(seen.numpy(), task.samples.labels.numpy())
    forget = task.validation.groups["forget"]
    return float((probe.predict(unseen[forget].numpy()) == 2).mean())


@pytest.mark.slow
def test_no_probe_finds_what_is_held_to_a_level() -> None:
    objective = rledit.Unlearning(probe=0.6, nearest=0.6, classifier="logistic")
    env = rledit.ShiftWorld(hidden_task(objective), num_envs=16, rank=4)
    result = rledit.GradientSearch(env, restarts=1, learning_rate=0.05).train(165)
    after, before = chosen(result), env.engine.initial_metrics
    assert recall_by_scikit_learn(env.engine.task, result.edit) < 0.75
    assert before["probe_recall"] > 0.9
    assert after["probe_recall"] <= 0.6
    assert after["nearest_recall"] <= 0.6
    assert after["forget_accuracy"] <= 0.05
    assert after["retain_accuracy"] >= before["retain_accuracy"] - 0.05


def test_a_seed_repeats_and_resumes() -> None:
    whole = make().train(60)
    search = make()
    search.train(20)
    tensors, state = search.state()
    kept = {key: value.clone() for key, value in tensors.items()}
    state = json.loads(json.dumps(state, allow_nan=False))
    search.update()  # lost
    other = make()
    other.update()
    other.load_state(tensors, state)
    search.load_state(tensors, state)
    search.update()
    assert all(torch.equal(tensors[key], kept[key]) for key in kept)  # which are the caller's
    for again in (make().train(60), other.train(60)):
        assert same(again, whole)
        assert again.origin == whole.origin
        rows = [
            [{name: value for name, value in row.items() if name not in TIMES} for row in each.history]
            for each in (again, whole)
        ]
        assert rows[0] == rows[1]
    assert not same(make(seed=1).train(60), whole)
    with pytest.raises(ValueError, match=r"learning_rate: 0\.05, here 0\.1"):
        make(learning_rate=0.1).load_state(tensors, state)


def test_it_ends_when_nothing_gets_better(caplog: pytest.LogCaptureFixture) -> None:
    result = make(patience=3).train(100_000)
    assert result.stopped == "settled: no better candidate in 3 updates"
    assert "GradientSearch has settled" in caplog.text
    assert result.candidates < 10_000


def test_batches_have_their_share_of_every_stratum() -> None:
    labels = torch.arange(400) % 4
    rare = torch.arange(400) < 8
    groups = {**rledit.forget_groups(labels, 1), "rare": rare}
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    samples = rledit.Samples(torch.randn(400, 3), labels, groups)
    task = rledit.Task(model, ["0"], samples, rledit.Unlearning())
    relaxation = Relaxation(rledit.ShiftWorld(task, num_envs=2, rank=2).engine)
    generator = torch.Generator().manual_seed(0)
    rows, fit = relaxation.draw(100, generator)
    strata = labels[rows] * 2 + rare[rows]
    assert torch.equal(torch.bincount(strata[fit]), torch.tensor([12, 1] * 4))
    assert len(rows.unique()) == len(rows)
    assert torch.equal(torch.bincount(strata), torch.tensor([24, 2] * 4))
    assert not torch.equal(rows, relaxation.draw(100, generator)[0])
    assert torch.equal(relaxation.draw(10_000, generator)[0].sort().values, torch.arange(400))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"restarts": 0}, "restarts: expected"),
        ({"steps": 0}, "steps: expected"),
        ({"batch": 0}, "batch: expected"),
        ({"learning_rate": 0.0}, "learning_rate: expected"),
        ({"patience": 0}, "patience: expected"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**setting)


class Fickle(rledit.Unlearning):
    def __init__(self, given: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        object.__setattr__(self, "_given", given)

    def soft(self, tally: rledit.objectives.SoftTally) -> Any:
        return self._given(super().soft(tally))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (lambda value: None, "got NoneType"),
        (lambda value: 0.5, "got float"),
        (lambda value: value.detach(), r"got \[2\], detached"),
        (lambda value: value.sum(), r"got \[\]"),
    ],
)
def test_soft_values_that_are_none_are_refused(given: Callable[[torch.Tensor], Any], got: str) -> None:
    search = rledit.GradientSearch(rledit.ShiftWorld(make_task(Fickle(given)), num_envs=2, rank=2))
    with pytest.raises(ValueError, match=rf"expected soft\(\) of Fickle to give a tensor \[2\].*{got}"):
        search.update()


def test_a_restart_that_is_lost_does_not_end_the_others() -> None:
    lost = torch.tensor([1.0, torch.inf])
    search = rledit.GradientSearch(
        rledit.ShiftWorld(make_task(Fickle(lambda value: value * lost)), num_envs=2, rank=2), **SHORT
    )
    before = search.actions.clone()
    search.update()
    assert not torch.equal(search.actions[0], before[0])
    assert torch.equal(search.actions[1], before[1])
    both = Fickle(lambda value: value * torch.inf)
    result = rledit.GradientSearch(rledit.ShiftWorld(make_task(both), num_envs=2, rank=2), **SHORT).train(100)
    assert result.stopped == "its soft values or their slopes are not finite"


def test_another_call_needs_another_soft() -> None:
    class Reversed(rledit.Unlearning):
        def __call__(self, tally: rledit.Tally) -> torch.Tensor:
            return -super().__call__(tally)

    with pytest.raises(ValueError, match=r"expected one with soft\(\).*Reversed can only be counted"):
        rledit.GradientSearch(rledit.ShiftWorld(make_task(Reversed()), num_envs=2, rank=2))


def test_what_has_no_slope_is_refused() -> None:
    def counted(tally: rledit.Tally) -> torch.Tensor:
        return tally.accuracy("retain") - tally.accuracy("forget")

    with pytest.raises(ValueError, match=r"expected one with soft\(\).* can only be counted"):
        rledit.GradientSearch(rledit.ShiftWorld(make_task(counted), num_envs=2, rank=2))
    with pytest.raises(ValueError, match="episode_length: expected 1, since gradients are asked for; got 2"):
        rledit.GradientSearch(rledit.ShiftWorld(make_task(), num_envs=2, rank=2, episode_length=2))
    world = rledit.ShiftWorld(make_task(), num_envs=2, rank=2)
    with pytest.raises(ValueError, match="env: expected one world, got 2"):
        rledit.GradientSearch([world, world])
