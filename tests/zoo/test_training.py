"""rledit.zoo.training and rledit.methods.retrain: it learns, it can be repeated, it leaves no traces."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rledit.methods.retrain import retrain
from rledit.zoo.data import Dataset
from rledit.zoo.models import MnistCNN, normalize
from rledit.zoo.training import (
    HYPERPARAMETERS,
    Progress,
    TrainingResult,
    accuracy,
    per_class_accuracy,
    train_classifier,
)

ARGUMENTS: dict[str, Any] = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05}


def blobs(samples: int = 200, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Well-separated points, float32 [S, 8], and their classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % classes
    return 4 * torch.eye(8)[labels] + torch.randn(samples, 8, generator=generator) * 0.5, labels


def network(dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4)
        )


def train(model: nn.Module, seed: int = 0, progress: Progress | None = None) -> TrainingResult:
    return train_classifier(model, *blobs(), seed=seed, progress=progress, **ARGUMENTS)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_learns_and_reports() -> None:
    model = network()
    seen: list[tuple[int, int, float]] = []
    result = train(model, progress=lambda step, steps, loss: seen.append((step, steps, loss)))
    assert accuracy(model, *blobs()) > 0.99
    assert result.steps == 3 * (200 // 16)
    assert [entry[0] for entry in seen] == list(range(1, result.steps + 1))
    assert {entry[1] for entry in seen} == {result.steps}
    assert result.loss == pytest.approx(sum(entry[2] for entry in seen[-12:]) / 12)
    assert result.seconds > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_same_seed_same_weights_and_the_global_random_state_stays() -> None:
    results = []
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        model = network(dropout=0.3)
        train(model, seed)
        assert torch.equal(before, torch.get_rng_state())
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])


def test_every_module_gets_its_own_mode_back() -> None:
    model = network().train()
    model[1].eval()
    train(model)
    accuracy(model, *blobs())
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model.training


def test_evaluation_is_in_eval_mode_and_changes_nothing() -> None:
    model = network(dropout=0.9).train()
    before = weights(model)
    assert accuracy(model, *blobs()) == accuracy(model, *blobs(), batch_size=7)
    assert torch.equal(before, weights(model))


def test_only_parameters_that_require_gradients_are_trained() -> None:
    model = network()
    model[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not changed & {"0.weight", "0.bias"}
    assert {"4.weight", "4.bias"} <= changed


def test_trains_although_the_caller_switched_gradients_off() -> None:
    model = network()
    with torch.no_grad():
        train(model)
    assert accuracy(model, *blobs()) > 0.99


@pytest.mark.parametrize("steps", [1, 2])
def test_very_short_trainings(steps: int) -> None:
    inputs, labels = blobs(samples=5)
    result = train_classifier(
        network(), inputs, labels, epochs=steps, batch_size=100, learning_rate=0.01, seed=0
    )
    assert result.steps == steps


def test_interrupt_passes_through_and_restores_the_mode() -> None:
    def interrupt(step: int, steps: int, loss: float) -> None:
        raise KeyboardInterrupt

    model = network().eval()
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        train(model, progress=interrupt)
    assert not any(module.training for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())


def test_non_finite_loss_is_an_error() -> None:
    inputs, labels = blobs()
    inputs[3] = float("nan")
    model = network().eval()
    with pytest.raises(FloatingPointError, match=r"loss became nan in step \d+ of 36: lower learning_rate"):
        train_classifier(model, inputs, labels, seed=0, **ARGUMENTS)
    assert not model.training


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate: expected a positive number, got nan"),
        ({"max_shift": 1}, ValueError, r"max_shift: expected 0, or more with images \[S, C, H, W\]; got 1"),
        ({"inputs": torch.zeros(200, 8, dtype=torch.uint8)}, TypeError, "inputs: expected a floating-point"),
        ({"inputs": torch.zeros(199, 8)}, ValueError, r"equally many.*\[199, 8\] and \[200\]"),
        ({"labels": torch.full((200,), 4)}, ValueError, r"labels: expected 0\.\.3 .*got 4"),
        ({"labels": torch.full((200,), -1)}, ValueError, "labels: expected class indices from 0, got -1"),
        ({"labels": torch.zeros(200)}, TypeError, "labels: expected int64"),
        ({"model": nn.ReLU()}, ValueError, "model: expected a parameter that requires gradients"),
        (
            {"model": nn.Sequential(nn.Linear(8, 4), nn.Unflatten(1, (2, 2)))},
            ValueError,
            "model: expected logits",
        ),
    ],
)
def test_train_classifier_rejects(change: dict[str, Any], error: type[Exception], message: str) -> None:
    inputs, labels = blobs()
    arguments = {"model": network(), "inputs": inputs, "labels": labels, "seed": 0, **ARGUMENTS, **change}
    with pytest.raises(error, match=message):
        train_classifier(**arguments)


def test_per_class_accuracy_counts() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x[:, 0].long(), 4).float()

    labels = torch.tensor([0, 0, 0, 1, 3])
    predicted = torch.tensor([[0.0], [1.0], [0.0], [1.0], [2.0]])
    out = per_class_accuracy(Fixed(), predicted, labels, classes=4, batch_size=2)
    assert out.dtype == torch.float64
    torch.testing.assert_close(
        out, torch.tensor([2 / 3, 1.0, float("nan"), 0.0], dtype=torch.float64), equal_nan=True
    )
    assert accuracy(Fixed(), predicted, labels) == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match=r"labels: expected 0\.\.2 with 3 classes, got 3"):
        per_class_accuracy(Fixed(), predicted, labels, classes=3)
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        accuracy(Fixed(), predicted, labels, batch_size=0)


@pytest.mark.exhaustive
def test_mnist_cnn_learns_real_digits(mnist5k: Dataset) -> None:
    inputs = normalize("mnist5k", mnist5k.train.images)
    test_inputs = normalize("mnist5k", mnist5k.test.images)
    torch.manual_seed(0)
    model = MnistCNN()
    # A sixth of the epochs keeps the test short; all of them reach 98%.
    fewer = replace(HYPERPARAMETERS["mnist5k"], epochs=4)
    train_classifier(model, inputs, mnist5k.train.labels, seed=0, **asdict(fewer))
    assert accuracy(model, test_inputs, mnist5k.test.labels) >= 0.96


def test_retrain_leaves_the_class_out() -> None:
    inputs, labels = blobs()
    torch.manual_seed(7)
    state = torch.get_rng_state()

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    model = retrain(build, inputs, labels, {2}, seed=1, **ARGUMENTS)
    per_class = per_class_accuracy(model, inputs, labels, classes=4)
    assert per_class[2] == 0
    assert float(per_class[[0, 1, 3]].min()) > 0.95
    assert not model.training
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(8)
    assert torch.equal(weights(retrain(build, inputs, labels, [2], seed=1, **ARGUMENTS)), weights(model))
    # The very same as training on the other samples: nothing of the class's own can have played a part.
    poisoned = torch.where((labels == 2)[:, None], torch.nan, inputs)
    assert torch.equal(weights(retrain(build, poisoned, labels, [2], seed=1, **ARGUMENTS)), weights(model))


def test_retrain_rejects() -> None:
    inputs, labels = blobs()
    with pytest.raises(ValueError, match=r"forget_classes: expected classes among .*got \[9\]"):
        retrain(network, inputs, labels, [9], seed=0, **ARGUMENTS)
    with pytest.raises(ValueError, match="forget_classes: expected at least one class to remain"):
        retrain(network, inputs, labels, range(4), seed=0, **ARGUMENTS)
