"""Methods that train: what each of them does and does not change, and how settings are picked."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from blob_problems import build, make_problem
from torch import Tensor, nn
from torch.nn import functional as F

import rledit
from rledit.methods import Budget, UnlearningProblem, finetune, finetune_last, l1_sparse, retraining, salun
from rledit.methods.descent import Descent
from rledit.methods.distillation import divergence
from rledit.methods.random_labels import wrong_labels
from rledit.methods.tuning import Tuning, class_value, sample_value, trainable_copy

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def problem() -> UnlearningProblem:
    return make_problem()[0]


def changed(problem: UnlearningProblem, model: nn.Module) -> dict[str, float]:
    """Share of the entries of each parameter that differ."""
    before = problem.model.state_dict()
    return {
        name: float((value != before[name]).double().mean()) for name, value in model.state_dict().items()
    }


def test_last_layer_alone_changes(problem: UnlearningProblem) -> None:
    shares = changed(problem, finetune_last(problem, Budget(epochs=1), 0).model)
    assert shares["0.weight"] == shares["0.bias"] == 0
    assert shares["2.weight"] == 1


def test_salient_half_alone_changes(problem: UnlearningProblem) -> None:
    model = salun(problem, Budget(epochs=3), 0).model
    before = problem.model.state_dict()
    differ = torch.cat([(value != before[name]).flatten() for name, value in model.state_dict().items()])
    assert 0.4 < float(differ.double().mean()) <= 0.5
    # The entries with the largest gradients of the forget loss, by hand.
    mask = problem.train.groups["forget"]
    copy = trainable_copy(problem)
    F.cross_entropy(copy(problem.train.head(480)[mask]), problem.train.labels[mask]).backward()
    sizes = torch.cat([p.grad.abs().flatten() for p in copy.parameters()])
    assert sizes[differ].min() >= sizes.median()


def test_stronger_penalty_gives_smaller_weights(
    problem: UnlearningProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    for gamma in (1e-5, 1e-2):
        monkeypatch.setattr("rledit.methods.finetuning.PENALTIES", ((1e-2, gamma),))
        model = l1_sparse(problem, Budget(epochs=20), 0).model
        norms.append(sum(float(p.detach().abs().sum()) for p in model.parameters()))
    assert norms[1] < norms[0]


def test_retraining_sees_retained_samples_only(problem: UnlearningProblem) -> None:
    """A forgotten sample that would blow up the training is never looked at."""
    inputs = problem.train.head(480).clone()
    inputs[problem.train.groups["forget"]] = 1e30
    poisoned = rledit.Samples(inputs, problem.train.labels, problem.train.groups)
    first = retraining(problem, Budget(), 3)
    second = retraining(replace(problem, train=poisoned), Budget(), 3)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert first.steps == problem.training.epochs * (360 // problem.training.batch_size)
    assert retraining(problem, Budget(epochs=1), 3).steps == 360 // problem.training.batch_size


def test_wrong_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (2000,), generator=generator)
    drawn = wrong_labels(labels, 5, (), generator)
    assert not (drawn == labels).any()
    assert torch.bincount((drawn - labels) % 5, minlength=5)[1:].min() > 400
    drawn = wrong_labels(labels, 5, (1, 3), generator)
    assert set(drawn.tolist()) == {0, 2, 4}
    assert torch.bincount(drawn, minlength=5)[[0, 2, 4]].min() > 550


def test_divergence_by_hand() -> None:
    teacher, student = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    by_hand = 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(divergence(teacher, student, 2.0), by_hand)
    assert float(divergence(teacher, teacher, 4.0)) == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------------------------- descent


def test_masked_entries_keep_their_bits_in_spite_of_decay() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    mask = torch.tensor([[True, False], [False, True]])
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.5)
    descent = Descent(layer, optimizer, 0, {layer.weight: mask})
    inputs = torch.randn(8, 2)
    descent.epoch(8, 4, lambda batch: layer(inputs[batch]).square().sum())
    assert descent.steps == 2
    assert torch.equal(layer.weight[~mask], before[~mask])
    assert (layer.weight[mask] != before[mask]).all()


def test_every_sample_once_an_epoch_but_a_last_lone_one() -> None:
    layer = nn.Linear(1, 1)
    descent = Descent(layer, torch.optim.SGD(layer.parameters(), lr=0.0), 0)
    seen: list[int] = []

    def loss(batch: torch.Tensor) -> torch.Tensor:
        assert layer.training
        seen.extend(batch.tolist())
        return layer(torch.ones(len(batch), 1)).sum()

    layer.eval()
    descent.epoch(10, 4, loss)
    assert sorted(seen) == list(range(10))
    assert seen != list(range(10))
    assert not layer.training
    seen.clear()
    descent.epoch(9, 4, loss)
    assert len(set(seen)) == len(seen) == 8


def test_descent_stops_where_the_loss_is_not_finite() -> None:
    layer = nn.Linear(1, 1)
    before = deepcopy(layer.state_dict())
    descent = Descent(layer, torch.optim.SGD(layer.parameters(), lr=1.0), 0)
    descent.epoch(4, 2, lambda batch: layer(torch.ones(2, 1)).sum() * torch.inf)
    assert descent.diverged
    assert descent.steps == 0
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


# ---------------------------------------------------------------------------------------------------- tuning


def constant(label: int) -> nn.Module:
    """Predicts one class."""
    model = build().eval()
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.zero_()
        model[2].bias[label] = 1
    return model


def test_values_by_hand(problem: UnlearningProblem) -> None:
    validation = problem.validation  # four classes alike, class 1 is to be forgotten
    assert class_value(problem.model, validation) == 0
    assert class_value(constant(1), validation) == -1
    assert class_value(constant(0), validation) == pytest.approx(1 / 3)
    every = {"forget": torch.ones(160, dtype=torch.bool)}
    inputs = validation.head(160)
    alike = rledit.Samples(inputs, validation.labels, every)
    assert sample_value(constant(0), validation, alike) == 0.25
    others = rledit.Samples(inputs, torch.zeros(160, dtype=torch.int64), every)
    assert sample_value(constant(0), validation, others) == pytest.approx(0.25 - 0.75)


def test_the_published_setting_wins_ties_else_the_first(problem: UnlearningProblem) -> None:
    tuning = Tuning(problem)
    tuning.offer(constant(1), {"name": "worst"})
    tuning.offer(constant(0), {"name": "first"})
    tuning.offer(constant(2), {"name": "second"})
    assert tuning.result().settings["name"] == "first"
    tuning.offer(constant(3), {"name": "published"}, published=True)
    tuning.offer(constant(0), {"name": "late"})
    assert tuning.result().settings["name"] == "published"
    assert tuning.result().evaluations == 5


def test_settings_that_diverge_are_passed_over(problem: UnlearningProblem) -> None:
    tuning = Tuning(problem)
    broken = constant(0)
    with torch.no_grad():
        broken[2].bias[0] = torch.nan
    tuning.offer(broken, {"name": "broken"}, published=True)
    tuning.offer(constant(1), {"name": "poor"})
    assert tuning.result().settings["name"] == "poor"


def test_what_is_kept_is_a_copy(problem: UnlearningProblem) -> None:
    tuning = Tuning(problem)
    model = constant(0)
    tuning.offer(model, {})
    with torch.no_grad():
        model[2].bias.fill_(torch.nan)
    assert class_value(tuning.result().model, problem.validation) == pytest.approx(1 / 3)


class Viewed(nn.Module):
    """Calls view on what a convolution made, as much code does: channels must stand before places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, (1, 2))
        self.head = nn.Linear(4 * 2 * 1, 4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(images).view(len(images), -1))
        return out


def test_a_model_that_calls_view_on_images(problem: UnlearningProblem) -> None:
    def images(samples: rledit.Samples) -> rledit.Samples:
        return rledit.Samples(samples.head(len(samples)).view(-1, 2, 2, 2), samples.labels, samples.groups)

    splits = {name: images(getattr(problem, name)) for name in ("train", "reward", "validation")}
    viewed = replace(problem, model=Viewed().eval(), targets=("head",), **splits)
    assert finetune(viewed, Budget(epochs=1), 0).steps > 0
