"""Networks with gradients: the same logits as the edited model's, and their slopes."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.heads import last_features
from rledit.scoring import EditableFunction
from rledit.scoring.differentiable import DifferentiableNetwork

pytestmark = pytest.mark.usefixtures("one_thread")


class Residual(nn.Module):
    """A suffix that is no tail: a convolution beside a shortcut, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.edited = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.norm(self.edited(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Routed(nn.Module):
    """Rows that go different ways: run whole."""

    def __init__(self) -> None:
        super().__init__()
        self.edited = nn.Linear(16, 8)
        self.other = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        out = x.new_zeros(len(x), 8)
        here = x.sum(1) > 0
        out[here] = self.edited(x[here])
        out[~here] = self.other(x[~here])
        logits: Tensor = self.head(torch.relu(out))
        return logits


def tail() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def make_task(model: nn.Module, target: str) -> rledit.Task:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 1, 4, 4, generator=generator)
    labels = torch.arange(60) % 3
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 1))
    return rledit.Task(model, [target], samples, rledit.Unlearning())


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize(
    ("make", "target", "way"),
    [(tail, "1", "tail"), (Residual, "edited", "suffix"), (Routed, "edited", "whole")],
)
def test_logits_features_and_slopes_are_those_of_the_edited_model(
    make: type[nn.Module], target: str, way: str
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    task = make_task(model, target)
    assert task.editable.way == way
    rows = torch.tensor([5, 0, 17, 33])
    inputs = task.samples.head(60)[rows]
    weight = task.weights()[target]
    weights = torch.stack([weight, 1.5 * weight + 0.1]).requires_grad_()
    network = DifferentiableNetwork(task.editable, task.samples, features=True)
    logits, features = network.run({target: weights}, rows)
    assert features is not None
    assert logits.shape[:2] == features.shape[:2] == (2, 4)
    (slopes,) = torch.autograd.grad(logits.square().sum() + features.square().sum(), weights)
    for n in range(2):
        edited = deepcopy(model)
        own = edited.get_submodule(target).weight
        assert isinstance(own, nn.Parameter)
        own.data = weights[n].detach().view_as(own).clone()
        expected = edited(inputs)
        assert torch.allclose(logits[n], expected, atol=1e-5)
        assert torch.allclose(features[n].double(), last_features(edited, inputs), atol=1e-5)
        head = next(part for part in reversed(list(edited.modules())) if isinstance(part, nn.Linear))
        read: list[Tensor] = []
        with head.register_forward_pre_hook(lambda _, given, read=read: read.append(given[0])):
            value = edited(inputs).square().sum() + read[0].square().sum()
        (slope,) = torch.autograd.grad(value, own)
        assert torch.allclose(slopes[n], slope.reshape(slopes[n].shape), rtol=1e-3, atol=1e-4)


class Words(nn.Module):
    """Reads integers, and runs whole."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.edited = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.words(x).mean(1)
        out = mean.new_zeros(len(x), 5)
        here = x[:, 0] > 3
        out[here] = self.edited(mean[here])
        logits: Tensor = self.head(torch.relu(out))
        return logits


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
def test_features_of_models_that_read_integers() -> None:
    torch.manual_seed(0)
    words, labels = torch.randint(9, (30, 4)), torch.arange(30) % 3
    samples = rledit.Samples(words, labels, rledit.forget_groups(labels, 1))
    task = rledit.Task(Words(), ["edited"], samples, rledit.Unlearning())
    network = DifferentiableNetwork(task.editable, samples, features=True)
    weights = task.weights()["edited"][None].requires_grad_()
    _, features = network.run({"edited": weights}, torch.arange(30))
    assert features is not None
    assert features.dtype == torch.float32
    features.sum().backward()


def test_the_task_stays_as_it_is() -> None:
    torch.manual_seed(0)
    task = make_task(tail(), "1")
    before = task.weights()["1"]
    network = DifferentiableNetwork(task.editable, task.samples, features=False)
    weights = (2 * before[None]).requires_grad_()
    logits, features = network.run({"1": weights}, torch.arange(60))
    logits.sum().backward()
    assert features is None
    assert torch.equal(task.weights()["1"], before)
    assert all(parameter.grad is None for parameter in task.editable.model.parameters())


def test_a_black_box_has_no_gradients() -> None:
    task = make_task(tail(), "1")
    function = EditableFunction(lambda weights: torch.zeros(60, 3), {"w": torch.eye(3)})
    with pytest.raises(TypeError, match="expected a torch model, since gradients are asked for"):
        DifferentiableNetwork(function, task.samples, features=False)
