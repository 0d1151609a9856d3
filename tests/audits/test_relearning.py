"""A class that was only masked is back at once; one that the features lost is not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from audit_cases import audit_data, blind, masked, network

from rledit.audits import ClassMean, FewShot, MLPProbe, Relearning, linear_probe, run_audits
from rledit.audits.class_mean import nearest_mean
from rledit.audits.mlp_probe import _predict
from rledit.audits.relearning import unmask_

pytestmark = pytest.mark.usefixtures("one_thread")


def test_few_images_bring_a_masked_class_back() -> None:
    data = audit_data()
    before, after, lost = (FewShot()(model, data) for model in (network(), masked(), blind()))
    assert after == before
    assert list(after) == [f"forget_{shots}_shot_accuracy" for shots in (1, 2, 5, 10)]
    assert after["forget_1_shot_accuracy"] > 0.8
    assert after["forget_10_shot_accuracy"] > 0.97
    assert lost["forget_10_shot_accuracy"] < 0.7  # chance between two classes is 0.5
    assert FewShot()(network(), data) == before  # the same draws


def test_without_enough_images_it_is_unknown() -> None:
    figures = FewShot(shots=(5, 500), draws=2)(network(), audit_data())
    assert figures["forget_5_shot_accuracy"] > 0.9
    assert math.isnan(figures["forget_500_shot_accuracy"])
    with pytest.raises(ValueError, match="at least 1, got"):
        FewShot(shots=(0,))


def test_a_mask_of_any_size_costs_no_steps() -> None:
    data = audit_data()
    for model in (network(), masked(), masked(-1e4)):
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        assert Relearning(most=5, draws=2)(model.train(), data) == {"relearn_steps": 0}
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
        assert model.training


def test_a_class_that_is_not_there_takes_steps() -> None:
    data, model = audit_data(), network()
    with torch.no_grad():
        model[2].weight[2] = -model[2].weight[2]  # the more it looks like it, the less it is called it
    slow = Relearning(most=3, draws=2)(model, data)["relearn_steps"]
    assert slow == 3
    slower = Relearning(most=60, draws=2, learning_rate=0.01)(model, data)["relearn_steps"]
    quick = Relearning(most=60, draws=2, learning_rate=0.1)(model, data)["relearn_steps"]
    assert 0 < quick < slower < 60


def test_without_the_unedited_model_it_is_unknown() -> None:
    assert math.isnan(Relearning()(network(), replace(audit_data(), unedited=None))["relearn_steps"])


def test_unmasking_raises_the_forgotten_bias_only() -> None:
    model, inputs = masked(), next(audit_data().train.batches(60))
    unmask_(model, inputs, torch.tensor([2]))
    means = model(inputs).mean(0)
    assert float(means[2].detach()) == pytest.approx(float(means[:2].min().detach()), abs=1e-5)
    assert model[2].bias[:2].tolist() == [0, 0]
    unmask_(model, inputs, torch.tensor([2]))
    same = network()
    unmask_(same, inputs + torch.tensor([0.0, 0, 9]), torch.tensor([2]))  # it is high enough
    assert same[2].bias.tolist() == [0, 0, 0]


def test_the_nearest_mean_is_of_classes_that_are_there() -> None:
    train = torch.tensor([[0.0, 0], [2, 0], [9, 9]])
    found = nearest_mean(train, torch.tensor([0, 0, 3]), torch.tensor([[1.0, 0], [8, 8]]), 4)
    assert found.tolist() == [0, 3]


def test_probes_of_the_edited_layer_have_keys_of_their_own() -> None:
    data = audit_data()
    figures = ClassMean(layers=True)(masked(), data)
    assert list(figures) == [
        "forget_class_mean_accuracy", "retain_class_mean_accuracy",
        "0_forget_class_mean_accuracy", "0_retain_class_mean_accuracy",
    ]  # fmt: skip
    assert min(figures.values()) > 0.95
    lost = ClassMean(groups=("forget",))(blind(), data)
    assert lost["forget_class_mean_accuracy"] < 0.7


def test_the_probe_with_a_hidden_layer_sees_what_no_line_separates() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(800, 2, generator=generator) * 2 - 1
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    torch.manual_seed(0)  # a first layer that is nearly singular would hide the inputs
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    line = linear_probe(model, inputs[:400], labels[:400], inputs[400:], labels[400:], 2)
    assert float(line.mean()) < 0.65
    features = model[0](inputs).detach().double()
    found = _predict(MLPProbe(), 0, features[:400], labels[:400], features[400:], 2)
    assert float((found == labels[400:]).double().mean()) > 0.9
    both = [MLPProbe(epochs=3)(masked(), audit_data()) for _ in range(2)]
    assert both[0] == both[1]
    assert both[0]["forget_mlp_probe_accuracy"] > 0.9


def test_audits_of_a_list_share_one_pass() -> None:
    data, model, calls = audit_data(), network(), []
    model.register_forward_hook(lambda *_: calls.append(None))
    run_audits([ClassMean()], model, data)
    once = len(calls)
    run_audits([ClassMean(), FewShot()], model, data)
    assert len(calls) == 2 * once
