"""The unlearning recipe: what it asks a model on the test split. Whole runs are in tests/cli."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rledit.audits import AuditData, linear_probe
from rledit.audits.unlearning import NOT_MEASURED
from rledit.recipes.unlearning import UnlearningConfig, UnlearningData, evaluate
from rledit.recipes.unlearning.run import UnlearningRecipe
from rledit.zoo.data import Dataset, LabeledImages
from rledit.zoo.models import MnistCNN

FORGET = (1, 2)


class Biases:
    """Of one's own: an audit that reads the model alone."""

    note = "The biases are the mean of all biases."

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        assert data.classes == 3
        assert set(data.train.groups) == {"forget", "retain"}
        return {"mean_bias": float(model.fc2.bias.detach().mean())}


def images(labels: torch.Tensor, seed: int) -> LabeledImages:
    noise = torch.randint(0, 60, (len(labels), 1, 28, 28), generator=torch.Generator().manual_seed(seed))
    for i, label in enumerate(labels.tolist()):
        noise[i, :, 5 * label : 5 * label + 5] += 180
    return LabeledImages(noise.to(torch.uint8), labels)


def unlearning_data(test_labels: torch.Tensor) -> UnlearningData:
    train, test = images(torch.arange(920) % 3, 0), images(test_labels, 1)
    return UnlearningData(Dataset("mnist5k", train, test, ("a", "b", "c")), seed=0)


@pytest.fixture(scope="module")
def model() -> MnistCNN:
    torch.manual_seed(0)
    return MnistCNN().eval()


def test_figures_of_the_test_split(model: MnistCNN) -> None:
    data = unlearning_data(torch.arange(50) % 3)
    figures = evaluate(model, data, FORGET)
    assert list(figures) == [
        "forget_accuracy", "retain_accuracy", "forget_probe_accuracy", "per_class_accuracy",
    ]  # fmt: skip
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
    train, test = images(torch.arange(920) % 3, 0), images(torch.arange(30) % 3, 1)
    dataset = Dataset("mnist5k", train, test, ("a", "b", "c"))
    # By its name in sys.modules: the package has a function of the same name.
    monkeypatch.setattr(sys.modules["rledit.recipes.unlearning.run"], "load", lambda *_: dataset)
    recipe = UnlearningRecipe(UnlearningConfig(dataset="mnist5k", forget=FORGET), audits=[Biases()])
    recipe._before = model
    figures = recipe.evaluate(model)
    assert (
        figures["before"]["mean_bias"]
        == figures["after"]["mean_bias"]
        == float(model.fc2.bias.detach().mean())
    )
    limits = recipe.page(SimpleNamespace()).limits
    assert f"{Biases.note} {NOT_MEASURED}" in limits
    assert "probe" not in limits
