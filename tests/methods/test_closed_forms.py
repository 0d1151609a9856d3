"""Methods without training, and importance, on cases that can be done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blob_problems import make_problem
from torch import nn
from torch.nn import functional as F

import rledit
from rledit.methods import Budget, UnlearningProblem, logit_mask, projection, prototype_projection, ssd
from rledit.methods.data import Data
from rledit.methods.fisher import noise_of
from rledit.methods.importance import batch_importance, expected_importance, sample_importance
from rledit.methods.layers import find_logits_layer, right_multiplied_, visit_inputs
from rledit.methods.projection import unlearning_matrix
from rledit.methods.prototype_projection import forget_directions
from rledit.methods.ssd import dampened

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def problem() -> UnlearningProblem:
    return make_problem((1, 2))[0]


def linear_problem(weight: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> UnlearningProblem:
    """A single Linear without bias; class 1 is to be forgotten."""
    outputs, width = weight.shape
    model = nn.Linear(width, outputs, bias=False).eval()
    with torch.no_grad():
        model.weight.copy_(weight)
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 1))
    return UnlearningProblem(model, samples, samples, samples, outputs, ("",), (1,))


# ------------------------------------------------------------------------------------------------ logit mask


def test_masked_classes_are_never_predicted_and_the_order_of_the_others_stays(
    problem: UnlearningProblem,
) -> None:
    inputs = torch.randn(500, 8, generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad():
        before = problem.model(inputs)
        after = logit_mask(problem, Budget(), 0).model(inputs)
    assert not torch.isin(after.argmax(1), torch.tensor([1, 2])).any()
    assert torch.equal(after[:, [0, 3]], before[:, [0, 3]])
    assert torch.equal(after[:, [0, 3]].argmax(1), before[:, [0, 3]].argmax(1))


def test_mask_of_half_precision_and_of_a_head_without_bias() -> None:
    problem = linear_problem(torch.eye(3), torch.eye(3), torch.arange(3))
    masked = logit_mask(problem, Budget(), 0).model
    with torch.no_grad():
        assert torch.isin(masked(torch.eye(3)).argmax(1), torch.tensor([0, 2])).all()
        halves = logit_mask(replace_model(problem, nn.Linear(3, 3).half()), Budget(), 0).model
        assert halves.bias.isfinite().all()
        assert halves.bias[1] < -30_000


def replace_model(problem: UnlearningProblem, model: nn.Module) -> UnlearningProblem:
    labels = problem.train.labels
    inputs = problem.train.head(len(labels)).to(next(model.parameters()).dtype)
    samples = rledit.Samples(inputs, labels, problem.train.groups)
    return replace(problem, model=model, train=samples, reward=samples, validation=samples)


def test_mask_needs_a_head(problem: UnlearningProblem) -> None:
    behind = nn.Sequential(problem.model, nn.Softmax(1)).eval()
    with pytest.raises(ValueError, match=r"expected an nn\.Linear that makes the logits"):
        logit_mask(replace(problem, model=behind), Budget(), 0)


# ------------------------------------------------------------------------------------------------ importance


def gradient(weight: torch.Tensor, x: torch.Tensor, label: int) -> torch.Tensor:
    """Of the cross-entropy of a Linear without bias, by hand."""
    p = (weight @ x).softmax(0)
    return torch.outer(p - F.one_hot(torch.tensor(label), len(p)), x)


def test_importance_of_a_linear_layer_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(3, 2, generator=generator), torch.randn(5, 2, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1])
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(weight)
    each = torch.stack([gradient(weight, x[i], int(labels[i])) for i in range(5)])
    data = Data(x, labels)
    torch.testing.assert_close(sample_importance(model, data)["weight"], each.square().mean(0))
    torch.testing.assert_close(batch_importance(model, data, 1)["weight"], each.square().mean(0))
    pairs = torch.stack([each[:2].mean(0), each[2:4].mean(0), each[4]])
    torch.testing.assert_close(batch_importance(model, data, 2)["weight"], pairs.square().mean(0))
    expected = torch.zeros(3, 2)
    for i in range(5):
        p = (weight @ x[i]).softmax(0)
        expected += sum(p[label] * gradient(weight, x[i], label).square() for label in range(3)) / 5
    torch.testing.assert_close(expected_importance(model, data, 3)["weight"], expected)


def test_importance_refuses_a_model_that_cannot_take_single_samples() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) if float(x.sum()) > 0 else -self.fc(x)

    with pytest.raises(ValueError, match=r"model: expected a forward that torch\.func\.vmap can run"):
        sample_importance(Branches(), Data(torch.ones(2, 2), torch.tensor([0, 1])))


# ------------------------------------------------------------------------------------------------ SSD, Fisher


def test_dampening_by_hand() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    matters, usual = torch.tensor([8.0, 8.0, 1.0, 0.0]), torch.tensor([1.0, 5.0, 1.0, 0.0])
    found = dampened(weight, matters, usual, selection=2.0, dampening=1.0)
    assert found.tolist() == [1 / 8, 2.0, 3.0, 4.0]  # only the first matters more than twice as much
    found = dampened(weight, matters, usual, selection=0.5, dampening=10.0)
    assert found.tolist() == [1.0, 2.0, 3.0, 4.0]  # never made larger


def test_ssd_dampens_what_only_the_forgotten_class_uses() -> None:
    """Each class reads an input of its own, column 1 is the forgotten class's; a constant favors the others.

    A third of the samples is to be forgotten and nobody else has gradients in column 1, so gradients of
    samples matter three times as much to forget as to all, and what is dampened becomes a third.
    """
    weight = torch.tensor([[2.0, 0, 0, 0.8], [0, 2.0, 0, 0], [0, 0, 2.0, 0.8]])
    labels = torch.arange(300) % 3
    inputs = torch.cat([torch.eye(3)[labels], torch.ones(300, 1)], 1)
    problem = linear_problem(weight, inputs, labels)
    result = ssd(problem, Budget(), 0)
    found = result.model.weight.detach()
    assert torch.equal(found[:, [0, 2]], weight[:, [0, 2]])
    assert found[1, 1] <= 2 / 3 + 1e-6
    with torch.no_grad():
        assert set(result.model(inputs[labels == 1]).argmax(1).tolist()) == {0}
        assert torch.equal(result.model(inputs[labels != 1]).argmax(1), labels[labels != 1])


def test_fisher_noise_by_hand() -> None:
    vector = torch.tensor([1.0, 2.0, 3.0])
    mean, variance = noise_of(vector, torch.tensor([1.0, 0.5, 0.0]), 1e-3, classes=9)
    assert torch.equal(mean, vector)
    torch.testing.assert_close(variance, torch.tensor([0.01, 0.02, 10.0]))  # at most 1e3, tenfold
    matrix = torch.ones(2, 2)
    mean, variance = noise_of(matrix, torch.tensor([[1.0, 0.5], [0.25, 0.25]]), 1e-3, classes=9)
    torch.testing.assert_close(variance, torch.tensor([[1.5e-3, 1.5e-3], [4e-3, 4e-3]]))  # mean over inputs


def test_fisher_noise_of_the_last_layer() -> None:
    head = torch.full((3, 2), 5.0)
    mean, variance = noise_of(head, torch.zeros(3, 2), 1e-3, classes=3, forget=(1,))
    assert mean.tolist() == [[5.0, 5.0], [0.0, 0.0], [5.0, 5.0]]
    torch.testing.assert_close(variance, torch.tensor([[1.0, 1.0], [1e-3, 1e-3], [1.0, 1.0]]))
    mean, _ = noise_of(head, torch.zeros(3, 2), 1e-3, classes=3)
    assert torch.equal(mean, head)


# ------------------------------------------------------------------------------------------------ projection


def test_projection_removes_exactly_the_forgotten_direction() -> None:
    """Retain lies along the first two axes, forget along the third, the fourth is nobody's."""
    retain, forget = torch.diag(torch.tensor([3.0, 1.0, 0, 0])), torch.diag(torch.tensor([0, 0, 2.0, 0]))
    for alpha_r, alpha_f in ((100.0, 3.0), (1.0, 1.0), (10.0, 30.0)):
        # One direction holds all of the group, so its share is 1 whatever alpha is.
        matrix = unlearning_matrix(retain, forget, alpha_r, alpha_f)
        torch.testing.assert_close(matrix, torch.diag(torch.tensor([1.0, 1.0, 0, 1.0]).double()))


def test_projection_keeps_what_is_shared() -> None:
    """Forget in equal parts along axes 0 and 1, all of retain along axis 0."""
    retain, forget = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([1.0, 1.0]))
    matrix = unlearning_matrix(retain, forget, alpha_r=5.0, alpha_f=3.0)
    scaled = 3 * 0.5 / (2 * 0.5 + 1)  # of either direction
    torch.testing.assert_close(matrix, torch.diag(torch.tensor([1.0, 1 - scaled]).double()))


def test_projection_of_a_network_with_orthogonal_classes() -> None:
    weight = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    labels = torch.arange(30) % 3
    problem = linear_problem(weight, torch.eye(3)[labels], labels)
    found = projection(problem, Budget(), 0).model.weight.detach()
    expected = weight.clone()
    expected[:, 1] = 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_forget_directions_are_what_retained_prototypes_do_not_span() -> None:
    retain = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    forget = torch.tensor([[5.0, 1.0], [6.0, 1.0], [3.0, 0.0], [0.0, 0.0]])  # the second is spanned
    q = forget_directions(forget, retain)
    torch.testing.assert_close(q.abs(), torch.tensor([[0.0], [0.0], [1.0], [0.0]]).double())
    assert forget_directions(forget[:, 1:], retain).shape == (4, 0)


def test_prototype_projection_of_orthogonal_classes() -> None:
    """One layer, so it stands at full depth; the classes are told apart without error, so a is 1."""
    weight = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    labels = torch.arange(60) % 3
    problem = linear_problem(weight, torch.eye(3)[labels], labels)
    result = prototype_projection(problem, Budget(), 0)
    assert result.settings["rule"] == "depth and separability"
    assert result.settings["strengths"] == {"": pytest.approx(1.0)}
    expected = weight.clone()
    expected[:, 1] = 0
    torch.testing.assert_close(result.model.weight.detach(), expected, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(5, 3),
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(2, 3, (3, 2), stride=2, padding=1, dilation=2),
        nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular"),
    ],
    ids=["linear", "conv", "strided", "circular"],
)
def test_what_a_layer_reads_gives_what_it_writes(layer: nn.Linear | nn.Conv2d) -> None:
    inputs = torch.randn(4, 2, 7, 5, generator=torch.Generator().manual_seed(0))
    seen = {}
    visit_inputs(nn.Sequential(layer), inputs, lambda name, rows: seen.update({name: rows}))
    with torch.no_grad():
        written = layer(inputs)
        again = seen["0"] @ layer.weight.flatten(1).T + layer.bias
    if isinstance(layer, nn.Conv2d):
        again = again.transpose(1, 2)
    torch.testing.assert_close(again.reshape(written.shape), written)


def test_right_multiplication_of_a_convolution() -> None:
    layer = nn.Conv2d(2, 3, 2)
    before = layer.weight.detach().clone()
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    right_multiplied_(layer, matrix)
    torch.testing.assert_close(layer.weight.detach().flatten(1), before.flatten(1) @ matrix)


def test_the_layer_of_the_logits(problem: UnlearningProblem) -> None:
    inputs = torch.randn(2, 8)
    assert find_logits_layer(problem.model, inputs) == "2"
    assert find_logits_layer(nn.Sequential(problem.model, nn.Softmax(1)), inputs) is None
