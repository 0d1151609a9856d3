"""Probes of features and ranks of losses are counted the same in every way of running a network."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rledit
from rledit.heads import Head, find_head, last_features
from rledit.objectives import Unlearning
from rledit.ops import halves, tally_features_ref

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = torch.Generator().manual_seed(0)
LABELS = torch.arange(200) % 5
INPUTS = torch.randn(5, 24, generator=RANDOM)[LABELS] + torch.randn(200, 24, generator=RANDOM)
GROUPS = {**rledit.forget_groups(LABELS, 3), "unseen": torch.arange(200) % 7 == 0}
SAMPLES = rledit.Samples(INPUTS, LABELS, GROUPS)
FACTORS = {"first": (0.3 * torch.randn(4, 16, 2, generator=RANDOM), torch.randn(4, 2, 24, generator=RANDOM))}
WAYS = ("tail", "suffix", "whole")


class Net(nn.Module):
    """The same function, which must be run in the given way, but for a residual sum in the suffix."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first = nn.Linear(24, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        if self.way == "whole" and bool(hidden.sum() > 1e9):
            hidden = 2 * hidden
        if self.way == "suffix":
            hidden = torch.relu(hidden + 0.1 * x[:, :16])
        return self.head(hidden)


def make_task(way: str, **levels: float) -> rledit.Task:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that whole networks are slow
        return rledit.Task(Net(way).eval(), ["first"], SAMPLES, Unlearning(**levels))


@pytest.mark.parametrize("way", WAYS)
def test_the_head_is_looked_for_once(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Tensor] = []

    def find(model: nn.Module, inputs: Tensor) -> Head:
        looked.append(inputs)
        return find_head(model, inputs)

    monkeypatch.setattr("rledit.scoring.editable_model.find_head", find)
    make_task(way, probe=0.5).scorer()
    assert len(looked) == 1
    make_task(way).scorer()
    assert len(looked) == 1


@pytest.mark.parametrize("rule", ["shift", "mask"])
@pytest.mark.parametrize("way", WAYS)
def test_they_are_those_of_the_edited_model(way: str, rule: str) -> None:
    task = make_task(way, probe=0.5, nearest=0.5, membership=0.6)
    scorer = task.scorer()
    assert scorer.way == way
    tally = scorer.score(FACTORS, rule)
    parts = ["recalled", "nearest"]
    fit = halves(LABELS, SAMPLES.masks)
    for n in range(4):
        left, right = (factor[n] for factor in FACTORS["first"])
        model = copy.deepcopy(task.editable.model)
        weight = model.first.weight.data  # type: ignore[union-attr]
        weight += left @ right if rule == "shift" else weight * (left @ right)
        features = last_features(model, INPUTS)[None]
        recalled, nearest = tally_features_ref(features, LABELS, SAMPLES.masks, fit, 1e-3, parts)
        assert torch.equal(tally.recalled.counts[n], recalled[0])
        assert torch.equal(tally.nearest.counts[n], nearest[0])
        losses = F.cross_entropy(model(INPUTS).double(), LABELS, reduction="none")
        ours, theirs = losses[GROUPS["forget"]], losses[GROUPS["unseen"]]
        auc = (ours[:, None] < theirs).double().mean() + (ours[:, None] == theirs).double().mean() / 2
        assert float(tally.membership_auc("forget", "unseen")[n]) == pytest.approx(float(auc), abs=5e-3)
    judged = int((GROUPS["forget"] & ~fit).sum())
    assert torch.equal(tally.probe_recall("forget"), tally.recalled["forget"].double() / judged)


@pytest.mark.parametrize("way", WAYS)
def test_other_counts_do_not_change(way: str) -> None:
    wanted = ["correct", "confusion", "loss"]
    plain = make_task(way).scorer().score(FACTORS, wanted=wanted)
    both = make_task(way, probe=0.5).scorer().score(FACTORS, wanted=[*wanted, "recalled", "lower_loss"])
    assert torch.equal(plain.counts.correct, both.counts.correct)
    assert torch.equal(plain.counts.confusion, both.counts.confusion)
    torch.testing.assert_close(plain.counts.loss, both.counts.loss)


def test_a_candidate_that_blows_up_has_forgotten_nothing() -> None:
    scorer = make_task("tail", probe=0.5).scorer()
    left, right = (factor.clone() for factor in FACTORS["first"])
    left[1] *= 1e30
    right[1] *= 1e30
    assert scorer.count({"first": (left, right)}, rledit.ops.EditRule("shift")).probe_recall("forget")[1] == 1


def test_a_head_alone_has_no_features_to_edit() -> None:
    with pytest.raises(ValueError, match="the head 'head' is the only target"):
        rledit.Task(Net("tail").eval(), ["head"], SAMPLES, Unlearning(probe=0.5)).scorer()


def test_parts_that_nothing_was_prepared_for_are_named() -> None:
    for way in WAYS:
        with pytest.raises(ValueError, match=r"wanted: recalled needs"):
            make_task(way).scorer().score(FACTORS, wanted=["recalled"])
