"""The linear probe sees what the accuracy does not."""

from __future__ import annotations

import pytest
import torch
from audit_cases import audit_data, blind, clusters, masked, network
from torch import Tensor, nn

from rledit.audits import Audit, LinearProbe, last_features, linear_probe, run_audits
from rledit.audits.unlearning import AUDITS, NOT_MEASURED, limits
from rledit.objectives.metric_names import METRIC_DISPLAYS, direction, label, shown


def test_a_suppressed_logit_hides_the_class_from_the_output_and_not_from_the_probe() -> None:
    model = masked(-1e3)
    inputs, labels = clusters(300, 0)
    held_out, expected = clusters(300, 1)
    assert int((model(held_out).argmax(1) == 2).sum()) == 0
    recall = linear_probe(model, inputs, labels, held_out, expected, 3)
    assert recall.shape == (3,)
    assert float(recall.min()) > 0.9


def test_a_class_that_the_features_lost_is_not_recalled() -> None:
    model = blind()  # 1 and 2 look alike
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
    model, data = network(), audit_data(150)
    sets = [data.train, data.test]
    audit: Audit = LinearProbe(batch_size=64)
    figures = audit(model, data)
    assert set(figures) == {"forget_probe_accuracy", "retain_probe_accuracy"}
    train, test = (torch.cat(list(part.batches())) for part in sets)
    recall = linear_probe(model, train, sets[0].labels, test, sets[1].labels, 3)
    assert figures["forget_probe_accuracy"] == pytest.approx(float(recall[2]))
    only = LinearProbe(groups=("forget", "unknown"))(model, data)
    assert only["forget_probe_accuracy"] == figures["forget_probe_accuracy"]
    assert only["unknown_probe_accuracy"] != only["unknown_probe_accuracy"]
    assert len(only) == 2


def test_a_list_of_audits_gives_all_their_figures() -> None:
    model, data = network(), audit_data(150)
    forget, retain = LinearProbe(groups=("forget",)), LinearProbe(groups=("retain",))
    assert run_audits([], model, data) == {}
    both = run_audits([retain, forget], model, data)
    assert list(both) == ["retain_probe_accuracy", "forget_probe_accuracy"]
    assert both == retain(model, data) | forget(model, data)
    with pytest.raises(ValueError, match="one figure of each key, got several of forget_probe_accuracy"):
        run_audits([forget, LinearProbe()], model, data)


def test_figures_of_audits_have_names() -> None:
    assert label("forget_probe_accuracy") == "probe accuracy"
    assert shown("forget_probe_accuracy", 0.98054) == "98.05%"
    assert (direction("forget_probe_accuracy"), direction("retain_probe_accuracy")) == (-1, 1)
    labels = [entry.label for entry in METRIC_DISPLAYS.values()]
    assert len(set(labels)) == len(labels)


def test_a_report_says_what_each_audit_of_its_list_does() -> None:
    assert all(limits().count(audit.note) == 1 for audit in AUDITS)
    assert any(isinstance(audit, LinearProbe) for audit in AUDITS)
    assert NOT_MEASURED in limits()
    assert LinearProbe.note not in limits([])


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
