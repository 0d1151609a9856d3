"""Where forgotten samples go, what retained ones lose, and whether an edit survives rounding."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from audit_cases import audit_data, blind, masked, network
from torch import nn

from rledit.audits import (
    Agreement,
    Calibration,
    Leakage,
    Pruning,
    RetainedClasses,
    Rounding,
    calibration_error,
    intervals,
    run_audits,
)
from rledit.audits.agreement import jensen_shannon
from rledit.audits.leakage import entropy
from rledit.audits.pruning import prune_
from rledit.audits.rounding import round_, rounded
from rledit.audits.unlearning import AGAINST_RETRAINED, AUDITS, THOROUGH
from rledit.objectives.metric_names import METRIC_DISPLAYS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_leaks_into_one_class_and_into_all() -> None:
    model = masked()
    with torch.no_grad():
        model[2].bias[0] = 1e3
    figures = Leakage()(model, audit_data())
    assert figures == {"leak_rate": 1, "leak_entropy": 0}
    unedited = Leakage()(network(), audit_data())
    assert unedited["leak_rate"] < 0.05
    even = entropy(torch.tensor([50, 50, 0, 50]))
    assert even == pytest.approx(math.log(3))
    assert entropy(torch.tensor([50, 25])).interval is not None


def test_agreement_with_itself_and_with_another() -> None:
    data = audit_data(retrained=network())
    figures = Agreement()(network(), data)
    assert figures == {
        "forget_agreement_rate": 1, "forget_divergence": 0,
        "retain_agreement_rate": 1, "retain_divergence": 0,
    }  # fmt: skip
    other = Agreement()(masked(), data)
    assert other["forget_agreement_rate"] < 0.05
    assert 0.1 < other["forget_divergence"] < math.log(2)
    assert other["retain_agreement_rate"] > 0.95
    assert all(math.isnan(figure) for figure in Agreement()(network(), audit_data()).values())
    with pytest.raises(ValueError, match="a model with 3 logits, got 2"):
        Agreement()(network(), audit_data(retrained=nn.Sequential(nn.Linear(3, 2))))


def test_the_divergence_of_two_certainties_is_log_2() -> None:
    first, second = torch.tensor([[0.0, -torch.inf], [1.0, 2]]), torch.tensor([[-torch.inf, 0.0], [2.0, 3]])
    assert jensen_shannon(first, second).tolist() == pytest.approx([math.log(2), 0.0])


def test_the_worst_retained_class_is_found() -> None:
    data, model = audit_data(), network()
    with torch.no_grad():
        model[2].bias[0] = 1e3  # nothing is called 1 any more
    figures = RetainedClasses()(model, data)
    assert figures["worst_retained_accuracy"] == 0
    assert figures["worst_retained_change"] < -0.95
    assert RetainedClasses()(network(), data)["worst_retained_change"] == 0


def test_a_calibrated_model_has_no_error() -> None:
    right = torch.tensor([True, True, True, False, True, False])
    confidence = torch.tensor([0.75, 0.75, 0.75, 0.75, 0.5, 0.5])
    assert calibration_error(confidence, right) == pytest.approx(0)
    too_sure = torch.full((10,), 0.9)
    assert calibration_error(too_sure, torch.arange(10) % 2 == 0) == pytest.approx(0.4)
    # one bin nets what several do not
    mixed = torch.tensor([0.2, 0.8]), torch.tensor([True, False])
    assert calibration_error(*mixed, bins=1) == pytest.approx(0, abs=1e-6)
    assert calibration_error(*mixed, bins=2) == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        calibration_error(torch.tensor([1.5]), torch.tensor([True]))


def test_calibration_as_an_audit() -> None:
    model = network()
    error = Calibration()(model, audit_data())["retain_calibration_error"]
    with torch.no_grad():
        model[2].weight.mul_(0.01)  # as right as before, and never sure
    assert Calibration()(model, audit_data())["retain_calibration_error"] > 0.5 > error
    with pytest.raises(ValueError, match="at least 1 and 2"):
        Calibration(bins=0)


def test_rounding_keeps_what_the_levels_hold() -> None:
    whole = torch.randint(-127, 128, (4, 9)).float()
    whole[:, 0] = 127
    steps = torch.tensor([[0.5], [1.0], [2.0], [0.25]])
    torch.testing.assert_close(rounded(whole * steps, 8), whole * steps, rtol=0, atol=0)
    few = torch.tensor([[7.0, -3, 0, 0.4]])
    assert rounded(few, 4).tolist() == [[7, -3, 0, 0]]
    assert rounded(torch.zeros(2, 3), 4).tolist() == [[0, 0, 0]] * 2
    image = torch.randn(3, 2, 5, 5)
    assert float((rounded(image, 8) - image).abs().max()) <= float(image.abs().max()) / 127 / 2 + 1e-6
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1 + 2**-12]]))
    round_(model, "bfloat16")
    assert model.weight.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="expected some of bfloat16, int8, int4, got 'int2'"):
        Rounding(precisions=("int2",))  # type: ignore[arg-type]


def test_an_edit_below_the_rounding_step_is_undone() -> None:
    model = network()
    with torch.no_grad():
        # both classes read one feature, and the forgotten one a hair less of it
        model[2].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]))
        model[2].weight[1] = torch.tensor([0.0, 1, 1 - 2**-12])
        model[2].weight[2] = torch.tensor([0.0, 1, 1 - 2**-11])
        model[2].bias[2] = 0.005
    before = Leakage()(model, audit_data())["leak_rate"]
    figures = Rounding()(model, audit_data())
    assert len(figures) == 6
    assert figures["bfloat16_forget_accuracy"] > 0.95
    assert before < 0.95


def test_pruning_takes_the_smallest() -> None:
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -4, 2, 3]]))
    prune_(model, 0.5)
    assert model.weight.tolist() == [[0, -4, 0, 3]]
    figures = Pruning()(network(), audit_data())
    assert set(figures) == {
        f"pruned_{percentage}_{group}_accuracy" for percentage in (30, 50) for group in ("forget", "retain")
    }
    assert min(figures.values()) > 0.95  # of 9 weights of each layer 6 are zero already
    with pytest.raises(ValueError, match="got 100"):
        Pruning(percentages=(100,))


@pytest.mark.parametrize("audits", [AUDITS, THOROUGH, AGAINST_RETRAINED])
def test_the_lists_run_and_leave_the_models_alone(audits: tuple[object, ...]) -> None:
    model, retrained = masked(), blind()
    before = deepcopy(model.state_dict())
    figures = run_audits(audits, model, audit_data(retrained=retrained))  # type: ignore[arg-type]
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not any(math.isnan(figure) for figure in figures.values())
    assert {key for key in figures if not key.startswith("0_")} <= set(METRIC_DISPLAYS)
    known = intervals(figures)
    assert len(known) >= len(figures) - 1  # all but one draw of relearning
    for key, (low, high) in known.items():
        assert low <= figures[key] + 1e-12
        assert figures[key] <= high + 1e-12
