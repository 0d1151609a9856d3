"""A network that has learned its samples by heart gives them away, one that was not trained does not."""

from __future__ import annotations

import math

import pytest
import torch
from audit_cases import audit_data, masked, network
from torch import Tensor, nn

import rledit
from rledit.audits import (
    AuditData,
    Membership,
    likelihood_ratio_attack,
    likelihood_ratios,
    scaled_confidence,
    shadow_confidences,
)
from rledit.audits.membership import scores

pytestmark = pytest.mark.usefixtures("one_thread")


def memorized(steps: int) -> tuple[nn.Module, AuditData]:
    """Labels at random: what is known of a sample was learned from it alone."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(400, 30), torch.randint(0, 2, (400,))
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[:200]), labels[:200]).backward()
        optimizer.step()
    sets = [
        rledit.Samples(inputs[part], labels[part], rledit.forget_groups(labels[part], 1))
        for part in (slice(0, 200), slice(200, 400))
    ]
    return model, AuditData(*sets, classes=2)


def test_a_network_that_memorized_its_samples_gives_them_away() -> None:
    figures = Membership()(*memorized(100))
    assert figures["membership_auc"] > 0.9
    assert figures["membership_confidence_auc"] > 0.6
    assert figures["membership_entropy_auc"] > 0.6
    assert figures["membership_attack_accuracy"] > 0.8


def test_a_network_that_was_not_trained_gives_nothing_away() -> None:
    figures = Membership()(*memorized(0))
    for key in ("membership_auc", "membership_confidence_auc", "membership_entropy_auc"):
        assert figures[key].low < 0.5 < figures[key].high  # type: ignore[attr-defined]
    assert figures["membership_true_positive_rate"] < 0.1
    assert 0.3 < figures["membership_attack_accuracy"] < 0.7


def test_all_members_may_be_asked() -> None:
    data = audit_data()
    inputs, labels = torch.randn(90, 3), torch.arange(90) % 3
    trained = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 2))
    whole = AuditData(data.train, data.test, 3, trained=trained)
    assert Membership(whole=True)(network(), whole) != Membership()(network(), whole)
    assert Membership(whole=True)(network(), data) == Membership()(network(), data)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="its logits are not numbers"):
        scores(torch.tensor([[0.0, value]]), torch.tensor([0]))


def test_scores_of_one_sample() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    loss, confidence, entropy = scores(logits, torch.tensor([0]))[:, 0].tolist()
    assert loss == pytest.approx(math.log(0.25))
    assert confidence == pytest.approx(math.log(0.75))
    assert entropy == pytest.approx(0.25 * math.log(0.25) + 0.75 * math.log(0.75))


def test_a_masked_logit_hides_the_loss_and_no_more() -> None:
    figures = Membership()(masked(), audit_data())
    assert figures["membership_auc"] == 0.5
    assert all(math.isfinite(figure) for figure in figures.values())


def shadows(models: int, apart: float) -> tuple[Tensor, Tensor]:
    """Confidences of samples that differ much more among each other than by membership."""
    generator = torch.Generator().manual_seed(0)
    membership = torch.rand(models, 300, generator=generator) < 0.5
    hardness = 5 * torch.randn(300, generator=generator)
    noise = torch.randn(models, 300, generator=generator)
    return hardness + apart * membership + noise, membership


def test_shadow_models_reach_what_theory_says() -> None:
    found = likelihood_ratio_attack(*shadows(64, apart=2.0))
    best = 0.5 * (1 + math.erf(1.0))  # of two unit Gaussians that are 2 apart
    assert found["shadow_auc"] == pytest.approx(best, abs=0.02)
    assert found["shadow_true_positive_rate"] > 0.25
    nothing = likelihood_ratio_attack(*shadows(16, apart=0.0))
    assert nothing["shadow_auc"] == pytest.approx(0.5, abs=0.03)


def test_a_ratio_is_that_of_two_gaussians() -> None:
    confidences = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]])
    membership = torch.tensor([[True], [True], [False], [False]])
    ratio = likelihood_ratios(torch.tensor([1.0]), confidences, membership, shared_spread=False)
    assert ratio.tolist() == pytest.approx([(9 - 1) / (2 * 2)])  # means 2 and -2, variances 2


def test_scaled_confidences_are_stable() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [100.0, -100.0]])
    found = scaled_confidence(logits, torch.tensor([1, 0]))
    assert found.tolist() == pytest.approx([math.log(3), 200.0])


def test_shadow_models_are_made_one_by_one() -> None:
    test, made = audit_data(30).test, []

    def make(number: int) -> tuple[nn.Module, Tensor]:
        made.append(number)
        return network(), torch.arange(30) % 2 == number % 2

    confidences, membership = shadow_confidences(make, 3, test)
    assert made == [0, 1, 2]
    assert confidences.shape == membership.shape == (3, 30)
    assert torch.equal(membership[0], membership[2])
    with pytest.raises(ValueError, match=r"members of model 0 as bool \[30\]"):
        shadow_confidences(lambda _: (network(), torch.ones(29) > 0), 1, test)


@pytest.mark.parametrize(
    ("confidences", "membership", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3) > 0, r"got \[4, 2\] and torch.bool \[4, 3\]"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, 2) > 0, "finite"),
        (torch.zeros(4, 2), torch.tensor([[True, False]] * 4), "models with each sample, sample 1 has 0"),
        (torch.zeros(4, 2), torch.zeros(4, 2) > 0, "a model with members and others"),
    ],
)
def test_shadow_models_that_do_not_fit(confidences: Tensor, membership: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood_ratio_attack(confidences, membership)
