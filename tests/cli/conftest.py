"""A finished run of ``rledit unlearn``, for the commands that read one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from striped_images import dataset

from rledit.experiments.console import PlainConsole
from rledit.experiments.run import Options, carry_out
from rledit.ppo import PPOConfig
from rledit.recipes import unlearning
from rledit.recipes.unlearning.run import UnlearningRecipe
from rledit.runtime import one_thread
from rledit.zoo.models import MnistCNN

CONFIG: dict[str, Any] = {
    "dataset": "mnist5k",
    "forget": (1,),
    "candidates": 48,
    "num_envs": 16,
    "rank": 2,
    "ppo": PPOConfig(update_epochs=2, hidden=16, elites=4),
}


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Small data in place of the known, and no figures."""
    for name in ("run", "audit_run"):
        patch.setattr(sys.modules[f"rledit.recipes.unlearning.{name}"], "load", lambda *_: dataset())
    for name in ("experiments.run", "recipes.unlearning.audited_report"):
        patch.setattr(f"rledit.{name}.draw_all", lambda drawings: ([], []))


@pytest.fixture(scope="session")
def run_config() -> dict[str, Any]:
    return CONFIG


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    save_file(MnistCNN().state_dict(), folder / "given.safetensors")
    config = unlearning.UnlearningConfig(**CONFIG, weights=str(folder / "given.safetensors"))
    with pytest.MonkeyPatch.context() as patch, one_thread():
        stand_in(patch)
        recipe = UnlearningRecipe(config, with_retrain=False, audits=())
        result = carry_out(recipe, folder / "run", Options(console=PlainConsole(quiet=True)))
    assert result.missing == ()
    (folder / "given.safetensors").unlink()  # whoever checks does not have it
    return folder / "run"


@pytest.fixture
def run(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A copy, to be changed."""
    stand_in(monkeypatch)
    return Path(shutil.copytree(whole, tmp_path / "run"))
