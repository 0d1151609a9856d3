"""One logit, and one of several labels, as two logits: the same answers, names and way of scoring."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.recipes.debiasing.two_logits import OneLogit, OneOfSeveral, own_weights, seen_as_two

pytestmark = pytest.mark.usefixtures("one_thread")


class Network(nn.Module):
    """With weights and buffers of its own beside its layers."""

    def __init__(self, outputs: int = 1, flat: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(12, 8)
        self.fc2 = nn.Linear(8, outputs)
        self.scale = nn.Parameter(torch.rand(12) + 0.5)
        self.register_buffer("mean", torch.full((12,), 0.1))
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(torch.relu(self.fc1((x - self.mean) * self.scale)))
        return logits.squeeze(-1) if self.flat else logits


class Untraceable(Network):
    """Its forward looks at numbers."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if bool((logits.abs() > 1e6).any()):
            raise ValueError("too large")
        return logits


@pytest.fixture
def inputs() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(60, 12)


def samples(inputs: Tensor) -> rledit.Samples:
    place = torch.arange(60)
    groups = {"utility": place < 30, "bias": place >= 30, "a": (place >= 30) & (place < 45), "b": place >= 45}
    return rledit.Samples(inputs, place % 2, groups)


def margins(model: nn.Module, inputs: Tensor) -> Tensor:
    logits: Tensor = model.eval()(inputs)
    return logits[:, 1] - logits[:, 0]


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_is_its_own_margin(inputs: Tensor, flat: bool) -> None:
    model = Network(flat=flat)
    found = seen_as_two(model, model(inputs))
    torch.testing.assert_close(margins(found, inputs), model(inputs).reshape(-1))
    shifted = seen_as_two(model, model(inputs), threshold=0.5)
    torch.testing.assert_close(margins(shifted, inputs), model(inputs).reshape(-1) - 0.5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_one_of_several_has_the_label_s_probability(inputs: Tensor, multi_label: bool) -> None:
    model = Network(4)
    found = seen_as_two(model, model(inputs), label=2, multi_label=multi_label)
    expected = torch.sigmoid(model(inputs)) if multi_label else model(inputs).softmax(1)
    torch.testing.assert_close(torch.sigmoid(margins(found, inputs)), expected[:, 2])


def test_the_first_of_two_classes(inputs: Tensor) -> None:
    model = Network(2)
    found = seen_as_two(model, model(inputs), label=0)
    torch.testing.assert_close(margins(found, inputs), -margins(model, inputs))
    assert seen_as_two(model, model(inputs)) is model
    assert seen_as_two(model, model(inputs), label=1) is model


CASES: list[tuple[nn.Module, Any, str]] = [
    (Network(), OneLogit, "tail"),
    (Network(flat=True), lambda model: OneLogit(model, flat=True), "tail"),
    (Network(3), lambda model: OneOfSeveral(model, 3, 1, multi_label=True), "tail"),
    (Network(2), lambda model: OneOfSeveral(model, 2, 0), "tail"),
    (Network(3), lambda model: OneOfSeveral(model, 3, 1), "suffix"),
    (Untraceable(), OneLogit, "whole"),
]


@pytest.mark.parametrize(("model", "seen", "way"), CASES)
def test_an_edit_of_what_is_seen_is_one_of_the_model(
    inputs: Tensor, model: nn.Module, seen: Any, way: str
) -> None:
    model = deepcopy(model).eval()
    task = rledit.Task(seen(model), ["fc1", "fc2"], samples(inputs), rledit.Debias(least_group=1))
    assert task.scorer().way == way
    world = rledit.ShiftWorld(task, num_envs=2, rank=1)
    edit = world.edit(torch.randn(1, world.single_action_space.shape[0]))
    of_what_is_seen = deepcopy(seen(model))
    edit.apply_(of_what_is_seen)
    before = model(inputs).detach()
    edit.apply_(model)  # without force: the names and the weights are those that it was learned for
    assert float((model(inputs).detach() - before).abs().max()) > 1e-4
    torch.testing.assert_close(of_what_is_seen(inputs), seen(model)(inputs))
    assert own_weights(seen(model)).keys() == model.state_dict().keys()


def test_a_copy_goes_along_with_its_model(inputs: Tensor) -> None:
    model = Network()
    found = OneLogit(model).double()
    assert model.mean.dtype == torch.float64  # its buffers are the model's
    copy = deepcopy(found)
    with torch.no_grad():
        copy.fc1.weight.zero_()  # type: ignore[union-attr, operator]
    assert float(model.fc1.weight.detach().abs().sum()) > 0
    assert not torch.equal(copy(inputs.double()), found(inputs.double()))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((5, 3), {}, "expected which of the model's 3 logits is meant"),
        ((5, 3), {"label": 3}, r"expected 0\.\.2"),
        ((5, 3), {"label": 1, "threshold": 0.5}, "threshold: expected none"),
        ((5, 1), {"label": 0}, "expected none for a model with one output"),
        ((5, 3, 2), {}, r"expected logits \[S\], \[S, 1\] or \[S, C\]"),
    ],
)
def test_outputs_that_cannot_be_seen_so(shape: tuple[int, ...], options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seen_as_two(nn.Identity(), torch.randn(shape), **options)


def test_probabilities_are_asked_about() -> None:
    with pytest.raises(ValueError, match=r"threshold=0\.5"):
        seen_as_two(nn.Identity(), torch.rand(9))
    seen_as_two(nn.Identity(), torch.rand(9), threshold=0.5)
    seen_as_two(nn.Identity(), torch.rand(9), threshold=0.0)
