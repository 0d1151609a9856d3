"""Unlearning with levels: what is counted, what is punished, what is returned."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

import rledit
from rledit.objectives import Unlearning
from rledit.objectives.base import admissible_of, values_of

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = torch.Generator().manual_seed(0)
LABELS = torch.arange(160) % 4
CENTERS = 2 * torch.randn(4, 12, generator=RANDOM)
INPUTS, HELD_OUT = (CENTERS[LABELS] + torch.randn(160, 12, generator=RANDOM) for _ in range(2))
GROUPS = {**rledit.forget_groups(LABELS, 2), "unseen": torch.arange(160) % 5 == 0}


def make_task(objective: Unlearning) -> rledit.Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS), LABELS).backward()
        optimizer.step()
    splits = [rledit.Samples(inputs, LABELS, GROUPS) for inputs in (INPUTS, HELD_OUT)]
    return rledit.Task(model, ["0"], splits[0], objective, splits[1])


def edit(objective: Unlearning) -> rledit.Result:
    world = rledit.ShiftWorld(make_task(objective), num_envs=64, rank=2)
    return rledit.PPO(world, seed=0).train(1280)


def chosen(result: rledit.Result) -> dict[str, Any]:
    metrics: Any = result.edit.metrics["validation"]
    return metrics["after"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe": 1.5}, "probe: expected a level in 0..1"),
        ({"nearest": -0.1}, "nearest: expected a level in 0..1"),
        ({"membership": 0.4}, "membership: expected a level in 0.5..1"),
        ({"probe": float("nan")}, "probe: expected a level"),
        ({"penalty": -1.0}, "penalty: expected a number of at least 0"),
    ],
)
def test_levels_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Unlearning(**settings)  # type: ignore[arg-type]


def test_only_what_has_a_level_is_counted() -> None:
    assert Unlearning().needs == {"correct"}
    assert Unlearning(probe=0.9, membership=0.6).needs == {"correct", "recalled", "lower_loss"}
    assert not Unlearning().constrained
    assert Unlearning(nearest=0.9).constrained


def test_a_subclass_keeps_its_own_needs_and_constraint() -> None:
    class Careful(Unlearning):
        needs = frozenset({"correct", "loss"})

        def admissible(self, tally: rledit.Tally) -> torch.Tensor:
            return tally.accuracy("retain") >= 0.9

    assert Careful().needs == {"correct", "loss"}
    assert Careful(probe=0.9).needs == {"correct", "loss", "recalled"}
    assert Careful().constrained
    assert Careful().unedited_admissible


def test_without_levels_an_old_checkpoint_fits() -> None:
    assert set(Unlearning().identity()["settings"]) == {  # type: ignore[arg-type]
        "forget", "retain", "forget_weight", "retain_weight",
    }  # fmt: skip
    assert Unlearning(probe=0.5).identity() != Unlearning(probe=0.6).identity()


def test_excess_is_punished_and_what_lies_below_gains_nothing() -> None:
    found = make_task(Unlearning(probe=1.0)).scorer().score({})
    recall = float(found.probe_recall("forget")[0])
    plain = float(values_of(Unlearning(), found)[0])
    for level in (recall, (1 + recall) / 2, 1.0):
        assert float(values_of(Unlearning(probe=level), found)[0]) == plain
        assert admissible_of(Unlearning(probe=level), found) == torch.tensor([True])
    below = Unlearning(probe=recall - 0.2, penalty=5.0)
    assert float(values_of(below, found)[0]) == pytest.approx(plain - 5 * 0.2)
    assert admissible_of(below, found) == torch.tensor([False])


def test_a_loss_that_is_conspicuously_high_is_no_better() -> None:
    found = make_task(Unlearning(membership=1.0)).scorer().score({})
    auc = float(found.membership_auc("forget", "unseen")[0])
    level = max(auc, 1 - auc)
    swapped = Unlearning(forget="unseen", unseen="forget", membership=level - 0.01)
    for objective in (Unlearning(membership=level - 0.01), swapped):
        assert admissible_of(objective, found) == torch.tensor([False])


@pytest.mark.slow
def test_a_level_is_kept_where_it_can_be(caplog: pytest.LogCaptureFixture) -> None:
    free = chosen(edit(Unlearning(probe=1.0)))
    assert free["forget_accuracy"] < 0.1
    level = free["probe_recall"] - 0.1
    with caplog.at_level(logging.WARNING, "rledit"):
        held = chosen(edit(Unlearning(probe=level)))
    assert not caplog.records
    assert held["forget_accuracy"] < 0.1
    assert held["probe_recall"] <= level


def test_a_level_out_of_reach_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rledit"):
        result = edit(Unlearning(probe=0.0))
    assert "No edit keeps the constraint of Unlearning" in caplog.text
    assert not any(choice["admissible"] for choice in result.choices)
    assert chosen(result)["forget_accuracy"] < 0.2  # and not the unedited model
