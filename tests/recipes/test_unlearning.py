"""The unlearning recipe: what it asks a model on the test split. Whole runs are in tests/cli."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from striped_images import dataset, images
from torch import nn

from rledit import Edit
from rledit.audits import AuditData, Leakage, linear_probe
from rledit.audits.unlearning import HEADLINE, NOT_MEASURED
from rledit.experiments.console import PlainConsole
from rledit.recipes.unlearning import UnlearningConfig, UnlearningData, evaluate
from rledit.recipes.unlearning.audit_run import audit_run
from rledit.recipes.unlearning.report import audit_section, audited_models, headline
from rledit.recipes.unlearning.run import UnlearningRecipe, retrained_network
from rledit.storage.files import write_tensors
from rledit.storage.fingerprint import fingerprint
from rledit.zoo.data import Dataset
from rledit.zoo.models import MnistCNN

FORGET = (1, 2)


class Biases:
    """Of one's own: an audit that reads the model alone."""

    note = "The biases are the mean of all biases."

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        assert data.classes == 3
        assert set(data.train.groups) == {"forget", "retain"}
        return {"mean_bias": float(model.fc2.bias.detach().mean())}


def unlearning_data(test_labels: torch.Tensor) -> UnlearningData:
    return UnlearningData(dataset(test_labels=test_labels), seed=0)


@pytest.fixture(scope="module")
def model() -> MnistCNN:
    torch.manual_seed(0)
    return MnistCNN().eval()


def test_figures_of_the_test_split(model: MnistCNN) -> None:
    data = unlearning_data(torch.arange(50) % 3)
    figures = evaluate(model, data, FORGET)
    assert list(figures)[:3] == ["forget_accuracy", "retain_accuracy", "forget_probe_accuracy"]
    assert list(figures)[-2:] == ["intervals", "per_class_accuracy"]
    assert set(figures) >= {
        "forget_1_shot_accuracy",
        "membership_auc",
        "leak_rate",
        "worst_retained_accuracy",
    }
    low, high = figures["intervals"]["forget_accuracy"]
    assert low < figures["forget_accuracy"] < high or low == 0 or high == 1
    recall = linear_probe(
        model, data.inputs(data.reward), data.reward.labels, data.inputs(data.test), data.test.labels, 3
    )
    counts = torch.bincount(data.test.labels).double()
    expected = float((recall * counts)[1:].sum() / counts[1:].sum())
    assert 0 < expected <= 1
    assert figures["forget_probe_accuracy"] == pytest.approx(expected, rel=1e-15)


def test_a_class_without_test_images_has_no_figures(model: MnistCNN) -> None:
    figures = evaluate(model, unlearning_data(torch.zeros(20, dtype=torch.int64)), FORGET)
    assert math.isnan(figures["forget_accuracy"])
    assert math.isnan(figures["forget_probe_accuracy"])
    assert figures["retain_accuracy"] >= 0


def test_an_audit_of_ones_own(model: MnistCNN) -> None:
    figures = evaluate(model, unlearning_data(torch.arange(30) % 3), FORGET, audits=[Biases()])
    assert figures["mean_bias"] == float(model.fc2.bias.detach().mean())
    assert "forget_probe_accuracy" not in figures


def test_a_recipe_runs_its_list_of_audits(model: MnistCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataset(test_labels=torch.arange(30) % 3)
    # By its name in sys.modules: the package has a function of the same name.
    monkeypatch.setattr(sys.modules["rledit.recipes.unlearning.run"], "load", lambda *_: small)
    recipe = UnlearningRecipe(UnlearningConfig(dataset="mnist5k", forget=FORGET), audits=[Biases()])
    recipe._before = model.eval()
    figures = recipe.evaluate(model)
    assert (
        figures["before"]["mean_bias"]
        == figures["after"]["mean_bias"]
        == float(model.fc2.bias.detach().mean())
    )
    page = recipe.page(SimpleNamespace(metrics={"test": figures}))
    assert Biases.note in page.limits
    assert NOT_MEASURED in page.limits
    assert "probe" not in page.limits
    assert "mean_bias" in page.headline
    assert "mean bias" in page.sections[0]


def test_what_the_retrained_network_says_stands_beside_the_rest() -> None:
    metrics = {
        "test": {
            "before": {"forget_accuracy": 1.0, "intervals": {"forget_accuracy": [0.9, 1.0]}},
            "after": {"forget_accuracy": 0.0, "intervals": {}},
        },
        "baselines": {
            "retrain": {
                "test": {"forget_accuracy": 0.0},
                "agreement": {"after": {"leak_rate": 0.5, "intervals": {"leak_rate": [0.4, 0.6]}}},
            },
            "other": {},
        },
    }
    models = audited_models(metrics)
    assert list(models) == ["before", "after", "retrain"]
    assert models["after"] == {
        "forget_accuracy": 0.0, "leak_rate": 0.5, "intervals": {"leak_rate": [0.4, 0.6]},
    }  # fmt: skip
    text = " ".join(audit_section(models).split())
    assert "[90.00, 100.00]" in text
    assert "[40.00, 60.00]" in text
    assert audit_section({}) == ""


def test_the_first_table_holds_what_counts_most() -> None:
    few = {"before": {"leak_rate": 1.0, "forget_accuracy": 0.0}}
    assert list(headline(few)) == ["forget_accuracy", "leak_rate"]
    many = {"before": dict.fromkeys((*HEADLINE, *"abcdefgh"), 0.0)}
    assert list(headline(many)) == list(HEADLINE)


def run_folder(folder: Path, model: MnistCNN, **config: object) -> Path:
    """What audits need of a finished run that has forgotten class 7 of mnist5k."""
    folder.mkdir()
    asked = {"rledit_version": "0", "dataset": "mnist5k", "forget": [7], "layer": [], "seed": 0, **config}
    (folder / "config.json").write_text(json.dumps(asked))
    save_file(model.state_dict(), folder / "model.safetensors")
    weight = model.fc1.weight.detach()
    factors = {"fc1": (0.1 * torch.ones(32, 1), torch.ones(1, 128))}
    Edit(factors, "shift", 1.0, fingerprint({"fc1": weight})).save(folder / "edit.safetensors")
    return folder


def test_a_run_is_audited_from_its_folder(
    model: MnistCNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = images(torch.arange(900) % 10, 0), images(torch.arange(60) % 10, 1)
    ten = Dataset("mnist5k", train, test, tuple("0123456789"))
    module = sys.modules["rledit.recipes.unlearning.audit_run"]
    monkeypatch.setattr(module, "load", lambda *_: ten)
    monkeypatch.setattr(module, "AUDITS", (Leakage(),))
    folder = run_folder(tmp_path / "run", model)
    save_file(MnistCNN().state_dict(), tmp_path / "other.safetensors")
    alone = audit_run(folder, console=PlainConsole(quiet=True))
    assert list(alone["models"]) == ["unedited", "edited"]
    assert "forget_agreement_rate" not in alone["models"]["edited"]
    out = tmp_path / "out.json"
    other = tmp_path / "other.safetensors"
    found = audit_run(folder, retrained=other, out=out, console=PlainConsole(quiet=True))
    assert list(found["models"]) == ["unedited", "edited", "retrained"]
    assert found["models"]["retrained"]["forget_agreement_rate"] == 1
    assert json.loads(out.read_text()) == found
    assert json.loads((folder / "audits.json").read_text())["models"] == alone["models"]
    assert found["models"]["unedited"] != found["models"]["edited"]


def test_what_is_no_run_is_refused(model: MnistCNN, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        audit_run(tmp_path / "none")
    with pytest.raises(ValueError, match=r"has no config\.json that rledit wrote"):
        audit_run(tmp_path)
    folder = run_folder(tmp_path / "run", model)
    with pytest.raises(ValueError, match="retrained: expected a safetensors file"):
        audit_run(folder, retrained=tmp_path / "none.safetensors")
    save_file({"fc1.weight": torch.zeros(3, 3)}, tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"retrained: .* does not fit the model"):
        audit_run(folder, retrained=tmp_path / "small.safetensors")
    (folder / "edit.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no edit\.safetensors yet; .*--resume"):
        audit_run(folder)
    wrong = run_folder(tmp_path / "wrong", model, dataset="imagenet")
    with pytest.raises(ValueError, match=r"config\.json is not as rledit wrote it: dataset"):
        audit_run(wrong)
    debiasing = run_folder(tmp_path / "debiasing", model)
    (debiasing / "config.json").write_text(json.dumps({"rledit_version": "0"}))
    with pytest.raises(ValueError, match="holds one that forgets nothing"):
        audit_run(debiasing)


def test_the_retrained_network_is_kept_and_read_again(tmp_path: Path, model: MnistCNN) -> None:
    config = UnlearningConfig(dataset="mnist5k", forget=FORGET)
    data = unlearning_data(torch.arange(30) % 3)
    keep = tmp_path / "retrained.safetensors"
    write_tensors(keep, model.state_dict(), {"seconds": "12.5"})
    made = retrained_network(config, data, PlainConsole(quiet=True), keep)
    assert made is not None
    assert made[1] == 12.5
    assert torch.equal(made[0].fc1.weight, model.fc1.weight)
