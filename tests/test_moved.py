"""Names of 0.1 still work, and say what to use instead."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from editing_tasks import make_task
from programs import run

import rledit
from rledit._moved import MOVED, NAMES, RENAMED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_module_is_the_new_one(old: str) -> None:
    sys.modules.pop(f"rledit.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"rledit.{old} is deprecated, use rledit.{MOVED[old]}"):
        module = importlib.import_module(f"rledit.{old}")
    new = importlib.import_module(f"rledit.{MOVED[old]}")
    assert module is new or old in NAMES
    for name, home in NAMES.get(old, {}).items():
        assert name.isupper() or ":" in home or getattr(module, name).__name__ == name


@pytest.mark.parametrize("name", RENAMED)
def test_an_old_name_is_the_new_one(name: str) -> None:
    module = importlib.import_module(f"rledit.{name}")
    for old, new in RENAMED[name].items():
        message = rf"rledit\.{name}\.{old} is deprecated, use rledit\.{name}\.{new} instead"
        with pytest.warns(DeprecationWarning, match=message) as caught:
            assert getattr(module, old) is getattr(module, new)
        assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match=f"module 'rledit.{name}' has no attribute 'nonsense'"):
        _ = module.nonsense


@pytest.mark.slow
def test_what_lay_in_a_package_or_module_moved_with_it() -> None:
    program = (
        "from rledit.training import RECIPES, Recipe, seeded\n"
        "from rledit.models.toxicity import SYNTHETIC_RECIPE\n"
        "from rledit.zoo.training import Hyperparameters\n"
        "assert Recipe is Hyperparameters is type(SYNTHETIC_RECIPE) is type(RECIPES['mnist'])\n"
        "from rledit.runs.folder import RunFolder as old\n"
        "from rledit.experiments.folder import RunFolder as new\n"
        "import rledit, rledit.debiasing.evaluation\n"
        "import rledit.recipes.debiasing.evaluation as evaluation\n"
        "assert old is new\n"
        "assert rledit.fairness.METRICS is rledit.objectives.METRICS\n"
        "assert rledit.debiasing.evaluation is evaluation\n"
        "from rledit.edit import Edit, World\n"
        "from typing import get_args\n"
        "assert set(get_args(World)) == {'shift', 'mask'}\n"
        "assert Edit is rledit.Edit\n"
    )
    done = run("import warnings\nwarnings.simplefilter('ignore')\n" + program)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_old_name_is_imported_by_rledit_itself() -> None:
    program = (
        "import warnings\n"
        "warnings.filterwarnings('error', category=DeprecationWarning, module=r'rledit(\\.|$)')\n"
        "import rledit, rledit.cli, rledit.recipes.unlearning, rledit.recipes.debiasing"
    )
    done = run(program)
    assert done.returncode == 0, done.stderr


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rledit.nonsense
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rledit.runs.nonsense")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs", "update_epochs"),
        ("minibatches", "num_minibatches"),
        ("clip", "clip_coef"),
        ("value_weight", "vf_coef"),
        ("entropy_weight", "ent_coef"),
    ],
)
def test_old_names_of_settings(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"PPOConfig.{old} is deprecated, use {new} instead"):
        config = rledit.PPOConfig(**{old: 3})
    assert getattr(config, new) == 3
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(config, old) == 3
    assert config == rledit.PPOConfig(**{new: 3})


def test_old_attributes_of_worlds() -> None:
    world = rledit.MaskWorld(make_task(), num_envs=4, rank=1)
    for name in ("episodes", "observe", "initial_observation", "overlaps"):
        with pytest.warns(DeprecationWarning, match=f"use MaskWorld.engine.{name} instead"):
            assert getattr(world, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = world.nonsense


@pytest.mark.parametrize("length", [1, 2])
def test_the_old_way_to_step(length: int) -> None:
    world = rledit.ShiftWorld(make_task(), num_envs=4, rank=1, episode_length=length)
    generator = torch.Generator().manual_seed(0)
    actions = [torch.randn(4, world.layout.size, generator=generator) for _ in range(2 * length)]
    world.reset()
    expected = [world.step(each.numpy()) for each in actions]
    world.reset()
    for each, (observation, rewards, *_, infos) in zip(actions, expected, strict=True):
        with pytest.warns(DeprecationWarning, match="engine.start"):
            world.start(each)
        again = world.step_wait()
        np.testing.assert_array_equal(again[0], observation)
        np.testing.assert_array_equal(again[1], rewards)
        if "final_obs" in infos:
            np.testing.assert_array_equal(np.stack(again[4]["final_obs"]), np.stack(infos["final_obs"]))


def test_a_script_is_told_which_line(tmp_path: Path) -> None:
    """With Python's default filters, which show what is blamed on the script itself."""
    lines = [
        "import rledit",
        "from rledit.edit import Edit",
        "rledit.data",
        "rledit.ppo.selection",
        "rledit.worlds.episodes",
        "rledit.PPOConfig(clip=0.1)",
    ]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))
    done = run(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert done.returncode == 0, done.stderr
    for number in range(2, len(lines) + 1):
        assert f"script.py:{number}: DeprecationWarning" in done.stderr
