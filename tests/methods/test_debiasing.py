"""The opponents of debiasing, on cases that can be done by hand."""

from __future__ import annotations

import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rledit
from rledit.extras import MissingExtraError
from rledit.methods import debiasing

pytestmark = pytest.mark.usefixtures("one_thread")


def test_reweighing_makes_groups_and_labels_equally_heavy() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2 + [0] * 2 + [1] * 2)
    women = torch.arange(12) >= 8
    samples = rledit.Samples(torch.zeros(12, 1), labels, {"utility": ~women, "women": women})
    weights = debiasing.reweighed(samples, "utility", ["women"])
    for group in samples.groups.values():
        for label in (0, 1):
            assert float(weights[group & (labels == label)].sum()) == pytest.approx(3)
    assert float(weights.mean()) == pytest.approx(1)


def test_swapped_terms() -> None:
    texts = ["A black woman!", "nobody", "women and men"]
    terms = ["black woman", "men"]
    copies, labels = debiasing.swapped(texts, torch.tensor([1, 0, 0]), terms, 0)
    assert labels.tolist() == [1, 0]  # of the first text and the third
    assert copies[0].strip() in ("a black woman", "a men")
    assert copies[1].strip() in ("women and black woman", "women and men")
    drawn = {tuple(debiasing.swapped(texts, torch.tensor([1, 0, 0]), terms, seed)[0]) for seed in range(20)}
    assert len(drawn) == 4


def test_fine_tuning_of_some_layers_only() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    before = deepcopy(model.state_dict())
    inputs = torch.randn(300, 4)
    labels = (inputs[:, 0] > 0).long()
    state = torch.get_rng_state()
    found = list(debiasing.fine_tuned(model, inputs, labels, torch.ones(300), ("2",), seed=0))
    assert torch.equal(torch.get_rng_state(), state)
    assert [(tuned.rate, tuned.epochs) for tuned in found] == [
        (rate, epochs) for rate in debiasing.RATES for epochs in debiasing.EPOCHS
    ]
    losses = []
    for tuned in found:
        assert torch.equal(tuned.weights["0.weight"], before["0.weight"])
        logits = torch.func.functional_call(model, tuned.weights, (inputs,))
        losses.append(float(F.cross_entropy(logits, labels).detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = next(iter(debiasing.fine_tuned(model, inputs, labels, torch.ones(300), ("2",), seed=0)))
    assert torch.equal(again.weights["2.weight"], found[0].weights["2.weight"])


def test_samples_without_weight_do_not_matter() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2))
    inputs, labels = torch.randn(64, 4), torch.randint(2, (64,))
    weights = (torch.arange(64) < 32).float()
    poisoned = torch.where(weights[:, None] > 0, inputs, 100.0)
    first, second = (
        next(iter(debiasing.fine_tuned(model, x, labels, weights, ("0",), seed=0)))
        for x in (inputs, poisoned)
    )
    torch.testing.assert_close(first.weights, second.weights)


def test_layers_that_the_model_does_not_have() -> None:
    with pytest.raises(
        ValueError, match=r"layers: expected children of the model with parameters, got \['fc'\]"
    ):
        next(
            iter(
                debiasing.fine_tuned(
                    nn.Linear(2, 2), torch.ones(2, 2), torch.tensor([0, 1]), torch.ones(2), ("fc",), 0
                )
            )
        )


@pytest.mark.slow  # its imports are
@pytest.mark.filterwarnings("ignore:The value of `prefit`:UserWarning")
def test_thresholds_bring_rates_of_groups_together() -> None:
    pytest.importorskip("fairlearn")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 2000)
    groups = generator.integers(0, 2, 2000) - 1  # -1 is a group like any other
    scores = np.clip(0.3 + 0.4 * labels + 0.25 * (groups == 0) + 0.15 * generator.standard_normal(2000), 0, 1)

    def gap(answers: np.ndarray) -> float:
        rates = [answers[(groups == group) & (labels == 0)].mean() for group in (-1, 0)]
        return abs(rates[0] - rates[1])

    answer = debiasing.thresholds(scores, labels, groups, "false_positive_rate_parity")
    assert gap((scores > 0.5).astype(float)) > 0.3
    assert gap(answer(scores, groups)) < 0.02
    unknown = answer(scores, np.full(2000, 5))
    assert np.array_equal(unknown, answer(scores, np.full(2000, -1)))


@pytest.mark.parametrize(
    ("module", "package"), [("concept_erasure", "concept-erasure"), ("fairlearn.postprocessing", "fairlearn")]
)
def test_missing_packages_are_named(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    calls = {
        "fairlearn": lambda: debiasing.thresholds(np.ones(2), np.ones(2), np.zeros(2), "equalized_odds"),
        "concept-erasure": lambda: debiasing.leace(torch.ones(2, 2), torch.ones(2, 1)),
    }
    with pytest.raises(MissingExtraError, match=f"needs the package {package}.*pip install {package}"):
        calls[package]()
