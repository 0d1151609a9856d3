"""Networks with gradients: the same logits as the edited model's, and their slopes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import rledit
from rledit.ops.rules import EditRule
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


def factors_of(task: rledit.Task, name: str, candidates: int) -> tuple[Tensor, Tensor]:
    """Factors of rank 2 that require gradients."""
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = task.weights()[name].shape
    left = torch.randn(candidates, outputs, 2, generator=generator).requires_grad_()
    return left, torch.randn(candidates, 2, inputs, generator=generator).requires_grad_()


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("kind", ["shift", "mask"])
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(
    ("make", "target", "way"),
    [(tail, "1", "tail"), (Residual, "edited", "suffix"), (Routed, "edited", "whole")],
)
def test_logits_features_and_slopes_are_those_of_the_edited_model(
    make: type[nn.Module], target: str, way: str, candidates: int, kind: str
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    task = make_task(model, target)
    assert task.editable.way == way
    rows = torch.tensor([5, 0, 17, 33])
    inputs = task.samples.head(60)[rows]
    left, right = factors_of(task, target, candidates)
    rule = EditRule(kind, 0.5)
    network = DifferentiableNetwork(task.editable, task.samples, True, {})
    logits, features = network.run({target: (left, right)}, rule, rows)
    assert features is not None
    assert logits.shape[:2] == features.shape[:2] == (candidates, 4)
    slopes = torch.autograd.grad(logits.square().sum() + features.square().sum(), (left, right))
    head = next(part for part in reversed(list(model.modules())) if isinstance(part, nn.Linear))
    for n in range(candidates):
        weight = task.weights()[target][None].clone()
        rule.edit_(weight, left[n : n + 1], right[n : n + 1])
        read: list[Tensor] = []
        with head.register_forward_pre_hook(lambda _, given, read=read: read.append(given[0])):
            own = {f"{target}.weight": weight.view_as(model.get_submodule(target).weight)}
            expected = functional_call(model, own, (inputs,))
        assert torch.allclose(logits[n], expected, atol=1e-5)
        assert torch.allclose(features[n], read[0].flatten(1), atol=1e-5)
        value = expected.square().sum() + read[0].square().sum()
        for slope, wanted in zip(slopes, torch.autograd.grad(value, (left, right)), strict=True):
            assert torch.allclose(slope[n], wanted[n], rtol=1e-3, atol=1e-4)


class Shared(nn.Module):
    """Two targets read one value; one of them again, later."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 6), nn.Linear(16, 6)
        self.back, self.head = nn.Linear(6, 16), nn.Linear(6, 4)
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :16]
        hidden = torch.relu(self.first(x)) + self.second(x)
        if self.again:
            hidden = self.second(torch.relu(self.back(hidden)))
        logits: Tensor = self.head(torch.relu(hidden))
        return logits


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("candidates", [1, 3])
def test_columns_without_which_right_factors_are_zero_are_not_read(candidates: int, again: bool) -> None:
    torch.manual_seed(0)
    model = Shared(again).eval()
    samples = make_task(tail(), "1").samples
    task = rledit.Task(model, ["first", "second"], samples, rledit.Unlearning())
    rows = torch.tensor([5, 0, 17, 33])
    columns = {"first": torch.tensor([0, 3, 7]), "second": torch.tensor([2, 3])}
    factors = {}
    for name, kept in columns.items():
        left, right = factors_of(task, name, candidates)
        used = torch.zeros(16).index_fill(0, kept, 1.0)
        factors[name] = left, (right.detach() * used).requires_grad_()
    leaves = [factor for pair in factors.values() for factor in pair]
    expected, found = (
        DifferentiableNetwork(task.editable, samples, False, used).run(factors, EditRule(), rows)[0]
        for used in ({}, columns)
    )
    assert torch.allclose(found, expected, atol=1e-5)
    # Entries that are zero have a slope, too, but nobody asks for it.
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    for leaf, slope, other in zip(
        leaves, torch.autograd.grad(found.square().sum(), leaves), wanted, strict=True
    ):
        used = leaf != 0
        assert torch.allclose(slope[used], other[used], rtol=1e-3, atol=1e-4)


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
    network = DifferentiableNetwork(task.editable, samples, True, {})
    factors = {"edited": factors_of(task, "edited", 1)}
    _, features = network.run(factors, EditRule(), torch.arange(30))
    assert features is not None
    assert features.dtype == torch.float32
    features.sum().backward()


def test_the_task_stays_as_it_is() -> None:
    torch.manual_seed(0)
    task = make_task(tail(), "1")
    before = task.weights()["1"]
    network = DifferentiableNetwork(task.editable, task.samples, False, {})
    factors = {"1": factors_of(task, "1", 2)}
    logits, features = network.run(factors, EditRule("mask"), torch.arange(60))
    logits.sum().backward()
    assert features is None
    assert torch.equal(task.weights()["1"], before)
    assert all(parameter.grad is None for parameter in task.editable.model.parameters())


def test_a_black_box_has_no_gradients() -> None:
    task = make_task(tail(), "1")
    function = EditableFunction(lambda weights: torch.zeros(60, 3), {"w": torch.eye(3)})
    with pytest.raises(TypeError, match="expected a torch model, since gradients are asked for"):
        DifferentiableNetwork(function, task.samples, False, {})
