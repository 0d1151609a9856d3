"""The linear probe sees what the accuracy does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.audits import Audit, AuditData, LinearProbe, last_features, linear_probe


def clusters(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    centres = 4.0 * torch.eye(3)
    return centres[labels] + torch.randn(samples, 3, generator=generator), labels


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.Linear(3, 3))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(torch.eye(3))
            layer.bias.zero_()
    return model


def test_a_suppressed_logit_hides_the_class_from_the_output_and_not_from_the_probe() -> None:
    model = network()
    with torch.no_grad():
        model[2].bias[2] = -1e3
    inputs, labels = clusters(300, 0)
    held_out, expected = clusters(300, 1)
    assert int((model(held_out).argmax(1) == 2).sum()) == 0
    recall = linear_probe(model, inputs, labels, held_out, expected, 3)
    assert recall.shape == (3,)
    assert float(recall.min()) > 0.9


def test_a_class_that_the_features_lost_is_not_recalled() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 1]]))  # 1 and 2 look alike
    inputs, labels = clusters(600, 0)
    held_out, expected = clusters(600, 1)
    recall = linear_probe(model, inputs, labels, held_out, expected, 3)
    assert float(recall[0]) > 0.9
    assert float(recall[1] + recall[2]) < 1.2  # chance is 1 for the two together


def test_features_are_what_the_last_layer_reads_and_the_mode_is_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 2)).train()
    inputs = torch.randn(7, 3)
    features = last_features(model, inputs, batch_size=3)
    assert torch.equal(features, model[0](inputs).double())
    assert model.training
    assert all(module.training for module in model.modules())
    assert not model[2]._forward_pre_hooks


def test_what_cannot_be_probed_is_said() -> None:
    with pytest.raises(ValueError, match=r"expected an nn\.Linear"):
        last_features(nn.Flatten(), torch.zeros(2, 3))
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(float("inf"))
    inputs, labels = clusters(30, 0)
    with pytest.raises(ValueError, match="not finite"):
        linear_probe(model, inputs, labels, inputs, labels, 3)


def test_the_probe_as_an_audit_gives_a_figure_per_group() -> None:
    model = network()
    sets = []
    for seed in (0, 1):
        inputs, labels = clusters(150, seed)
        sets.append(rledit.Samples(inputs, labels, rledit.forget_groups(labels, 2)))
    audit: Audit = LinearProbe(batch_size=64)
    figures = audit(model, AuditData(*sets, classes=3))
    assert set(figures) == {"forget_probe_accuracy", "retain_probe_accuracy"}
    train, test = (torch.cat(list(part.batches())) for part in sets)
    recall = linear_probe(model, train, sets[0].labels, test, sets[1].labels, 3)
    assert figures["forget_probe_accuracy"] == pytest.approx(float(recall[2]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.zeros(29, dtype=torch.int64),
            r"test_labels: expected shape \[30\], one per input, got \[29\]",
        ),
        (torch.zeros(30), "test_labels: expected int64, got torch.float32"),
        (torch.full((30,), 3), r"test_labels: expected classes 0..2, got 3"),
        (torch.full((30,), -1), r"test_labels: expected classes 0..2, got -1"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels: Tensor, message: str) -> None:
    inputs, known = clusters(30, 0)
    with pytest.raises(ValueError, match=message):
        linear_probe(network(), inputs, known, inputs, labels, 3)
