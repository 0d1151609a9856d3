"""The levels of a reference network are what the counts of candidates would say of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rledit
from rledit.audits import levels_of
from rledit.ops import CLASSIFIERS, Classifier

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = torch.Generator().manual_seed(0)
LABELS = torch.arange(120) % 3
INPUTS = torch.randn(3, 10, generator=RANDOM)[LABELS] + torch.randn(120, 10, generator=RANDOM)
GROUPS = {**rledit.forget_groups(LABELS, 1), "unseen": torch.arange(120) % 4 == 0}
SAMPLES = rledit.Samples(INPUTS, LABELS, GROUPS)


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, classes))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_they_are_those_that_a_scorer_finds(classifier: Classifier) -> None:
    model = network()
    levels = levels_of(model, SAMPLES, unseen="unseen", classifier=classifier)
    objective = rledit.Unlearning(probe=1.0, nearest=1.0, membership=1.0, classifier=classifier)
    tally = rledit.Task(model, ["0"], SAMPLES, objective).scorer().score({})
    auc = float(tally.membership_auc("forget", "unseen")[0])
    assert levels == {
        "probe": float(tally.probe_recall("forget")[0]),
        "nearest": float(tally.nearest_recall("forget")[0]),
        "membership": pytest.approx(max(auc, 1 - auc)),
    }
    kept = rledit.Unlearning(**levels, classifier=classifier).admissible(tally)
    assert kept is not None
    assert bool(kept)


def test_a_margin_is_added_and_membership_is_asked_for() -> None:
    levels = levels_of(network(), SAMPLES)
    assert set(levels) == {"probe", "nearest"}
    wider = levels_of(network(), SAMPLES, margin=0.01)
    assert wider["probe"] == pytest.approx(min(1.0, levels["probe"] + 0.01))
    assert levels_of(network(), SAMPLES, margin=5.0)["probe"] == 1.0


def test_wrong_references_and_groups_are_named() -> None:
    with pytest.raises(ValueError, match=r"reference: expected at least 3 classes, .* it has 2"):
        levels_of(network(2), SAMPLES)
    with pytest.raises(ValueError, match="samples: expected a group 'gone', got forget, retain, unseen"):
        levels_of(network(), SAMPLES, forget="gone")
    with pytest.raises(ValueError, match=r"an nn\.Linear"):
        levels_of(nn.Sequential(nn.Flatten(), nn.Softmax(1)), SAMPLES)
