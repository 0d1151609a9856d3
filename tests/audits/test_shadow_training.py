"""Shadow models: which halves they are trained on, and whom the attack then finds."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.audits import (
    likelihood_ratio_attack,
    likelihood_ratios,
    scaled_confidence,
    train_shadow_models,
)
from rledit.audits.estimates import auc
from rledit.zoo.training import Hyperparameters, train_classifier

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, CLASSES = 100, 4
LONG = Hyperparameters(epochs=60, batch_size=50, learning_rate=1e-2, weight_decay=0.0)
SHORT = Hyperparameters(epochs=1, batch_size=50, learning_rate=1e-4)


def noise(seed: int) -> rledit.Samples:
    """Labels that say nothing of the inputs: whoever knows them has learned them by heart."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(SIZE, 20, generator=generator)
    labels = torch.randint(CLASSES, (SIZE,), generator=generator)
    return rledit.Samples(inputs, labels, {"all": torch.ones(SIZE, dtype=torch.bool)})


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def trained(samples: rledit.Samples, rows: Tensor) -> nn.Module:
    torch.manual_seed(99)
    model = build()
    inputs = samples.head(SIZE)[rows]
    train_classifier(model, inputs, samples.labels[rows], seed=99, **asdict(LONG))
    return model.eval()


def confidences_of(model: nn.Module, samples: rledit.Samples) -> Tensor:
    with torch.no_grad():
        return scaled_confidence(model(samples.head(SIZE)), samples.labels)


@pytest.fixture(scope="module")
def shadows() -> tuple[Tensor, Tensor]:
    return train_shadow_models(build, LONG, noise(0), 8)


def test_every_sample_is_in_half_of_the_models(shadows: tuple[Tensor, Tensor]) -> None:
    confidences, membership = shadows
    assert confidences.shape == membership.shape == (8, SIZE)
    assert confidences.dtype == torch.float64
    assert membership.dtype == torch.bool
    assert membership.sum(0).tolist() == [4] * SIZE
    assert len({tuple(row.tolist()) for row in membership}) == 8
    shares = membership.double().mean(1)
    assert float(shares.min()) > 0.3
    assert float(shares.max()) < 0.7


def test_a_model_that_memorizes_is_found_and_a_fresh_one_is_not(shadows: tuple[Tensor, Tensor]) -> None:
    samples = noise(0)
    members = torch.arange(SIZE) % 2 == 0
    ratio = likelihood_ratios(confidences_of(trained(samples, members), samples), *shadows)
    assert float(auc(ratio[members], ratio[~members])) > 0.95
    elsewhere = trained(noise(1), members)  # it knows other samples by heart, and none of these
    ratio = likelihood_ratios(confidences_of(elsewhere, samples), *shadows)
    assert float(auc(ratio[members], ratio[~members])) == pytest.approx(0.5, abs=0.15)
    assert float((ratio > 0).double().mean()) < 0.4  # of members, most are


def test_the_attack_on_the_shadows_themselves(shadows: tuple[Tensor, Tensor]) -> None:
    assert likelihood_ratio_attack(*shadows)["shadow_auc"] > 0.95
    barely = likelihood_ratio_attack(*train_shadow_models(build, SHORT, noise(0), 8))
    assert barely["shadow_auc"] == pytest.approx(0.5, abs=0.1)


def test_models_that_forgot_are_attacked_after_it() -> None:
    seen: list[int] = []

    def start_anew(model: nn.Module, members: Tensor) -> nn.Module:
        assert not model.training
        seen.append(int(members.sum()))
        torch.manual_seed(0)
        return build()

    confidences, membership = train_shadow_models(build, SHORT, noise(0), 6, forget=start_anew)
    assert seen == membership.sum(1).tolist()
    assert torch.equal(confidences, confidences[:1].expand(6, -1))  # nothing is left of the training
    assert likelihood_ratio_attack(confidences, membership)["shadow_auc"] == pytest.approx(0.5, abs=1e-9)


def test_a_seed_gives_the_same_and_leaves_the_callers_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train_shadow_models(build, SHORT, noise(0), 6, seed=1)
    assert torch.equal(torch.rand(3), expected)
    with torch.inference_mode():
        again = train_shadow_models(build, SHORT, noise(0), 6, seed=1)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    other = train_shadow_models(build, SHORT, noise(0), 6, seed=2)
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("models", [4, 7])
def test_too_few_models(models: int) -> None:
    with pytest.raises(ValueError, match=f"models: expected an even number of at least 6, got {models}"):
        train_shadow_models(build, SHORT, noise(0), models)


def test_what_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"build: expected it to give a torch\.nn\.Module, got int"):
        train_shadow_models(lambda: 3, SHORT, noise(0), 6)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"forget: expected it to give a torch\.nn\.Module, got NoneType"):
        train_shadow_models(build, SHORT, noise(0), 6, forget=lambda *_: None)  # type: ignore[arg-type,return-value]
    one = rledit.Samples(torch.zeros(1, 20), torch.zeros(1, dtype=torch.int64), {"all": torch.ones(1) > 0})
    with pytest.raises(ValueError, match="samples: expected at least 2, got 1"):
        train_shadow_models(build, SHORT, one, 6)
