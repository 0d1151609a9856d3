"""What works without the extras, in a process that has none of their packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import run
from safetensors.torch import load_file, save_file

import rledit
from rledit.storage.fingerprint import fingerprint

WITHOUT = """
import contextlib, io, json, sys
from importlib.abc import MetaPathFinder

BLOCKED = "rich tyro matplotlib pooch mlxtend pandas pyarrow transformers".split()

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocked())
sys.path += json.loads(sys.argv[1])
folder = sys.argv[2]

import rledit, rledit.experiments, rledit.methods, rledit.zoo.data, rledit.zoo.models
from rledit.cli import main
from rledit.recipes import unlearning
from rledit.recipes.debiasing import DebiasConfig, run

def command(*arguments):
    sys.argv = ["rledit", *arguments]
    out, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return [status, out.getvalue(), errors.getvalue()]

answers = {name: command(name) for name in ("--version", "--help", "unlearn", "debias", "demo", "apply")}
edit = ["--edit", f"{folder}/edit.safetensors", "--model", f"{folder}/model.safetensors"]
answers["applied"] = command("apply", *edit, "--out", f"{folder}/out.safetensors")
answers["again"] = command("apply", *edit, "--out", f"{folder}/out.safetensors")
config = DebiasConfig(layer=("fc3",), candidates=32, num_envs=16, vocabulary=300)
answers["run"] = list(run(config, f"{folder}/run").missing)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model and an edit of it."""
    folder = tmp_path_factory.mktemp("plain")
    weight = torch.randn(3, 5)
    save_file({"fc.weight": weight, "fc.bias": torch.zeros(3)}, folder / "model.safetensors")
    factors = {"fc": (torch.ones(3, 1), torch.ones(1, 5))}
    rledit.Edit(factors, "shift", 1.0, fingerprint({"fc": weight})).save(folder / "edit.safetensors")
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Any]:
    paths = json.dumps([path for path in sys.path if path])
    done = run(WITHOUT, paths, folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_version_and_help(answers: dict[str, Any]) -> None:
    assert answers["--version"] == [0, f"rledit {rledit.__version__}\n", ""]
    status, text, _ = answers["--help"]
    assert status == 0
    assert all(name in text for name in ("unlearn", "debias", "apply", "demo"))


@pytest.mark.parametrize("name", ["unlearn", "debias", "demo"])
def test_a_command_says_what_to_install(answers: dict[str, Any], name: str) -> None:
    status, _, errors = answers[name]
    assert status == 2
    assert errors.count("\n") == 1
    assert f"rledit {name}" in errors
    assert 'pip install "rledit[cli]"' in errors


def test_apply_works(answers: dict[str, Any], folder: Path) -> None:
    assert answers["apply"][0] == 2
    assert "--edit" in answers["apply"][2]
    assert answers["applied"][0] == 0, answers["applied"]
    before, after = load_file(folder / "model.safetensors"), load_file(folder / "out.safetensors")
    assert torch.equal(after["fc.weight"], before["fc.weight"] + 1)
    assert answers["again"][0] == 2
    assert "--overwrite" in answers["again"][2]


def test_a_run_lacks_its_figures_only(answers: dict[str, Any], folder: Path) -> None:
    assert len(answers["run"]) == 1
    assert 'pip install "rledit[cli]"' in answers["run"][0]
    assert (folder / "run" / "edit.safetensors").exists()
    assert "n/a" not in (folder / "run" / "report.html").read_text().partition("Figures")[0]
