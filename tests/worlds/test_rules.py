"""A third edit rule is one entry of a table, and works from the environment to the saved edit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from editing_tasks import SHORT, make_task

import rledit
from rledit.experiments.config import EditingConfig
from rledit.ops.rules import KINDS, RuleKind
from rledit.worlds import WORLDS, World


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[World]]:
    """W' = W * (1 + mean over inputs of scale * (left @ right)): rows are scaled."""

    def scale_rows(weight: torch.Tensor, delta: torch.Tensor) -> None:
        weight.mul_(1 + delta.mean(-1, keepdim=True))

    monkeypatch.setitem(
        KINDS, "rows", RuleKind("W * (1 + mean(scale * (left @ right)))", scale_rows, relative=True)
    )

    class RowsWorld(World):
        world = "rows"

    yield RowsWorld
    WORLDS.pop("rows")


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("conv", [False, True], ids=["tail", "suffix"])
def test_a_third_rule(rows: type[World], conv: bool, length: int, tmp_path: Path) -> None:
    task = make_task(conv=conv)
    world = rows(task, num_envs=32, rank=2, episode_length=length)
    result = rledit.PPO(world, config=SHORT).train(32 * length * 4)
    assert result.edit.world == "rows"
    target = result.edit.targets[0]
    result.edit.save(tmp_path / "edit.safetensors")
    edit = rledit.Edit.load(tmp_path / "edit.safetensors")
    weight = task.weights()[target]
    delta = edit.deltas({target: weight})[target]
    ratio = delta / weight
    assert (ratio - ratio.mean(1, keepdim=True)).abs().max() < 1e-4  # whole rows
    actions = np.random.default_rng(0).normal(0, 1, (32, world.layout.size)).astype(np.float32)
    if length == 1:
        world.reset()
        rewards = world.step(actions)[1]
        left, right = world.layout.factors(torch.from_numpy(actions))[target]
        edited = weight.expand(32, -1, -1).clone()
        world.engine.rule.edit_(edited, left, right)
        values = task.objective(task.scorer().score({}, weights={target: edited}))
        before = float(task.objective(task.scorer().score({}))[0])
        np.testing.assert_allclose(rewards, (values - before).numpy(), atol=1e-12)


def test_a_run_knows_it(rows: type[World]) -> None:
    assert WORLDS["rows"] is rows
    assert EditingConfig(world="rows").world == "rows"  # type: ignore[arg-type]


def test_an_environment_of_an_unknown_rule() -> None:
    with pytest.raises(ValueError, match="world: expected one of 'shift', 'mask'; got 'nonsense'"):

        class Nonsense(World):
            world = "nonsense"


def test_a_rule_of_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind: expected one of 'shift', 'mask'; got 'nonsense'"):
        rledit.EditRule("nonsense")
