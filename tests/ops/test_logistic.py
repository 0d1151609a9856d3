"""Logistic regression in a fixed number of steps, and probes that are counted by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rledit.objectives.soft import PROBE_STEPS
from rledit.ops import (
    Candidates,
    EditRule,
    Layer,
    Probe,
    TailProblem,
    Wanted,
    backend,
    halves,
    tally_features_ref,
)
from rledit.ops.logistic import STEPS, logistic_weights, standardized

pytestmark = pytest.mark.usefixtures("one_thread")


def clouds(count: int, width: int = 5, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    centers = 1.5 * torch.randn(classes, width, generator=generator)
    return centers[labels] + torch.randn(count, width, generator=generator), labels


def test_it_comes_where_scikit_learn_comes() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = clouds(400)
    seen, _ = standardized(features[None].double(), features[None].double())
    penalty = 1e-3
    ours = logistic_weights(seen, F.one_hot(labels).double(), penalty, steps=400)[0]
    theirs = linear_model.LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-10, max_iter=10_000)
    theirs.fit(seen[0, :, :-1].numpy(), labels.numpy())
    expected = np.concatenate([theirs.coef_, theirs.intercept_[:, None]], 1).T
    apart = (ours - ours.mean(1, keepdim=True)).numpy() - (expected - expected.mean(1, keepdims=True))
    assert np.abs(apart).max() < 0.02 * np.abs(expected).max()  # our constant is penalized by a thousandth
    few = (seen @ logistic_weights(seen, F.one_hot(labels).double(), penalty))[0].argmax(1)
    agree = (few.numpy() == theirs.predict(seen[0, :, :-1].numpy())).mean()
    assert agree > 0.97


def overlapping(classes: int) -> tuple[Tensor, Tensor]:
    """Two classes on top of each other, 45 to 55, and others apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1000) % classes
    labels[(labels == 0) & (torch.rand(1000, generator=generator) < 0.1)] = 1
    centers = 6 * torch.randn(classes, 6, generator=generator)
    centers[1] = centers[0]
    return centers[labels] + torch.randn(1000, 6, generator=generator), labels


@pytest.mark.parametrize("steps", [PROBE_STEPS, STEPS])
@pytest.mark.parametrize("classes", [2, 4])
def test_it_does_not_swing_where_classes_overlap(classes: int, steps: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = overlapping(classes)
    seen, unseen = standardized(features[None, ::2], features[None, 1::2])
    theirs = linear_model.LogisticRegression(C=1 / (1e-3 * len(labels[::2])), max_iter=1000)
    theirs.fit(seen[0, :, :-1].numpy(), labels[::2].numpy())
    judged = labels[1::2] == 1
    expected = float((theirs.predict(unseen[0, :, :-1].numpy())[judged.numpy()] == 1).mean())
    for more in (0, 1):  # what swings differs from one step to the next
        weights = logistic_weights(seen, F.one_hot(labels[::2]).float(), 1e-3, steps + more)
        ours = float(((unseen @ weights)[0].argmax(1)[judged] == 1).double().mean())
        assert ours == pytest.approx(expected, abs=0.1)


def by_autograd(features: Tensor, targets: Tensor, penalty: float, steps: int) -> Tensor:
    """The same steps, written down as they are."""
    samples, classes = targets.shape
    penalties = features.new_full((features.shape[2],), penalty)
    penalties[-1] = penalty / 1000
    bound = torch.linalg.inv(features.mT @ features / (2 * samples) + penalties.diag())
    weights = bound @ (features.mT @ (targets - 1 / classes) / samples)
    ahead, pace = weights, 1.0
    for _ in range(steps):
        wrong = targets - (features @ ahead).softmax(-1)
        stepped = ahead + bound @ (features.mT @ wrong / samples - penalties[:, None] * ahead)
        next_pace = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
        ahead = stepped + (pace - 1) / next_pace * (stepped - weights)
        weights, pace = stepped, next_pace
    return weights


@pytest.mark.parametrize("steps", [0, 1, 2, 9])
@pytest.mark.parametrize("classes", [2, 5])
def test_weights_and_slopes_are_those_of_the_steps(classes: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % classes
    features = torch.randn(3, 40, 6, generator=generator, dtype=torch.float64)
    seen, _ = standardized(features, features)
    seen.requires_grad_()
    targets = F.one_hot(labels).double()
    toward = torch.randn(3, 7, classes, generator=generator, dtype=torch.float64)
    found = []
    for weights in (logistic_weights(seen, targets, 1e-2, steps), by_autograd(seen, targets, 1e-2, steps)):
        found.append((weights, *torch.autograd.grad((weights * toward).sum(), seen)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_features_that_are_not_finite_spoil_their_own_candidate_alone() -> None:
    features, labels = clouds(40)
    both = torch.stack([features, features])
    both[1, 0, 0] = torch.inf
    seen, _ = standardized(both, both)
    seen.requires_grad_()
    weights = logistic_weights(seen, F.one_hot(labels).float(), 1e-3, 4)
    (slope,) = torch.autograd.grad(weights[0].sum(), seen)
    assert weights[0].isfinite().all()
    assert slope[0].isfinite().all()
    assert weights[1].isnan().all()


def test_it_can_be_differentiated() -> None:
    features, labels = clouds(24, width=2, classes=3)
    targets = F.one_hot(labels[::2]).double()

    def scores(moved: Tensor) -> Tensor:
        seen, unseen = standardized(moved[None, ::2], moved[None, 1::2])
        return unseen @ logistic_weights(seen, targets, 1e-2, steps=4)

    assert torch.autograd.gradcheck(scores, features.double().requires_grad_())


def test_it_sees_a_class_that_lies_between_two_others() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    features = (labels - 1.0)[:, None] + 0.1 * torch.randn(300, 1, generator=generator)
    groups, fit = (labels == 1)[None], halves(labels)
    found = [
        int(tally_features_ref(features[None], labels, groups, fit, 1e-3, ["recalled"], classifier)[0])
        for classifier in ("ridge", "logistic")
    ]
    assert found[0] < 10 < 45 < found[1] <= 50  # least squares masks it


def test_features_that_are_all_the_same_tell_nothing() -> None:
    labels = torch.arange(40) % 4
    features = torch.full((1, 40, 3), 7.0)
    groups = torch.ones(1, 40, dtype=torch.bool)
    recalled, _ = tally_features_ref(features, labels, groups, halves(labels), 1e-3, ["recalled"], "logistic")
    assert int(recalled) == 5  # one class of four, of twenty that are judged


def test_features_that_are_not_finite_count_as_badly_as_can_be() -> None:
    features, labels = clouds(40)
    features[3] = torch.nan
    groups = torch.ones(1, 40, dtype=torch.bool)
    recalled, _ = tally_features_ref(
        features[None], labels, groups, halves(labels), 1e-3, ["recalled"], "logistic"
    )
    assert int(recalled) == 20


@pytest.mark.parametrize("parts", [["recalled"], ["correct", "nearest", "recalled", "lower_loss"]])
def test_backends_count_it_alike(parts: list[str]) -> None:
    features, labels = clouds(120, width=6)
    generator = torch.Generator().manual_seed(1)
    layers = tuple(
        Layer(torch.randn(out, width, generator=generator), torch.randn(out, generator=generator), function)
        for out, width, function in ((5, 6, "relu"), (4, 5, "identity"))
    )
    groups = torch.stack([labels == 1, labels != 1])
    probe = Probe(halves(labels, groups), classifier="logistic")
    problem = TailProblem(features, layers, labels, groups, probe=probe)
    left = 0.3 * torch.randn(3, 5, 2, generator=generator)
    right = torch.randn(3, 2, 6, generator=generator)
    candidates = Candidates(3, EditRule("shift"), [left, None], [right, None], [None, None])
    native, reference = (
        backend(name).prepare_tail(problem).score(candidates, Wanted(parts))
        for name in ("native", "reference")
    )
    assert torch.equal(native.recalled, reference.recalled)
    assert native.recalled.shape == (3, 2)
    for part in parts:
        assert torch.equal(getattr(native, part), getattr(reference, part))
    for part in {"correct", "nearest", "lower_loss"} - set(parts):
        assert getattr(native, part).shape == (0,)


def test_an_unknown_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="classifier: expected one of ridge, logistic; got 'forest'"):
        Probe(torch.ones(4, dtype=torch.bool), classifier="forest")  # type: ignore[arg-type]
