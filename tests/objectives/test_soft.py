"""Soft counterparts of counts: what they are worth where the counts are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import rledit
from rledit.objectives import SoftTally, Unlearning

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.arange(120) % 3
GROUPS = rledit.forget_groups(LABELS, 1)


def tally(logits: Tensor, features: Tensor | None = None) -> SoftTally:
    return SoftTally(logits[None], None if features is None else features[None], LABELS, GROUPS)


def sure_of(labels: Tensor, margin: float = 20.0) -> Tensor:
    return margin * torch.nn.functional.one_hot(labels, 3).double()


def clouds(forget_is_seen: bool) -> Tensor:
    """Features of which class 1 has a place of its own, or lies all over the others'."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0]], dtype=torch.float64)
    there = LABELS if forget_is_seen else torch.where(LABELS == 1, 2 * (torch.arange(120) % 2), LABELS)
    return centers[there] + 0.3 * torch.randn(120, 2, generator=generator, dtype=torch.float64)


def test_losses_have_their_formulas() -> None:
    even = tally(torch.zeros(120, 3, dtype=torch.float64))
    assert even.cross_entropy("retain").item() == pytest.approx(math.log(3))
    assert even.unlikelihood("forget").item() == pytest.approx(-math.log(2 / 3))
    sure = tally(sure_of(LABELS))
    assert sure.cross_entropy("retain").item() == pytest.approx(0, abs=1e-8)
    assert sure.unlikelihood("forget").item() == pytest.approx(20 - math.log(2), rel=1e-6)


def test_labels_and_groups_weigh_alike_whatever_their_sizes() -> None:
    logits = torch.randn(120, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    groups = {"a": torch.arange(120) < 30, "b": torch.arange(120) > 20, "c": torch.arange(120) == 6}
    losses = torch.nn.functional.cross_entropy(logits, LABELS, reduction="none")
    strata = [losses[mask & (label == LABELS)] for mask in groups.values() for label in range(3)]
    means = [float(stratum.mean()) for stratum in strata if len(stratum)]
    assert len(means) == 7
    found = SoftTally(logits[None], None, LABELS, groups).stratified_cross_entropy(["a", "b", "c"])
    assert found.item() == pytest.approx(sum(means) / 7)


@pytest.mark.parametrize("kind", ["probe_recall", "nearest_recall"])
def test_probes_find_what_can_be_found(kind: str) -> None:
    logits = sure_of(LABELS)
    seen = getattr(tally(logits, clouds(True)), kind)("forget").item()
    hidden = getattr(tally(logits, clouds(False)), kind)("forget").item()
    assert seen > 0.95
    assert hidden < 0.6


def test_the_auc_of_losses_is_that_of_the_pairs() -> None:
    logits = sure_of(LABELS)
    logits[LABELS != 1] *= -1  # whose losses are all higher
    assert tally(logits).membership_auc("forget", "retain").item() == pytest.approx(1)
    assert tally(logits).membership_auc("retain", "forget").item() == pytest.approx(0)
    assert tally(sure_of(LABELS)).membership_auc("forget", "retain").item() == pytest.approx(0.5)


def test_what_lies_below_a_level_gains_nothing() -> None:
    known, hidden = tally(sure_of(LABELS), clouds(True)), tally(sure_of(LABELS), clouds(False))
    free = Unlearning()
    level = Unlearning(probe=0.7, nearest=0.7, penalty=2.0)
    assert torch.equal(free.soft(known), free.soft(hidden))
    assert torch.equal(level.soft(hidden), free.soft(hidden))
    excess = known.probe_recall("forget") + known.nearest_recall("forget") - 1.4
    assert torch.allclose(level.soft(known), free.soft(known) - 2 * excess)


def test_every_figure_has_a_slope() -> None:
    logits = torch.randn(1, 120, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = clouds(True)[None] + 0
    logits.requires_grad_()
    features.requires_grad_()
    groups = {**GROUPS, "unseen": torch.arange(120) % 4 == 0}
    objective = Unlearning(probe=0.1, nearest=0.1, membership=0.5)
    objective.soft(SoftTally(logits, features, LABELS, groups)).sum().backward()
    for tensor in (logits, features):
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())
        assert float(tensor.grad.abs().max()) > 0


def test_features_are_asked_for_where_they_are_read() -> None:
    with pytest.raises(ValueError, match="soft: it reads features"):
        tally(sure_of(LABELS)).probe_recall("forget")


def test_error_rates_are_shares_of_a_groups_samples_of_a_label() -> None:
    answers = LABELS.clone()
    wrong = (LABELS == 1) & (torch.arange(120) % 4 == 0)
    answers[wrong] = 0
    groups = {
        "all": torch.ones(120, dtype=torch.bool),
        "even": torch.arange(120) % 2 == 0,
        "none": LABELS == 0,
    }
    found = SoftTally(sure_of(answers)[None], None, LABELS, groups).error_rates(["all", "even", "none"], 1)
    assert found.shape == (1, 3)
    shares = [float(wrong[mask & (LABELS == 1)].float().mean()) for mask in (groups["all"], groups["even"])]
    assert found[0].tolist() == pytest.approx([*shares, 0], abs=1e-6)
    assert shares == [0.25, 0.5]


def test_a_small_lead_counts_as_an_error() -> None:
    barely = tally(sure_of(LABELS, 0.1)).error_rates(["forget"], 1).item()
    assert 0.5 < barely < 1
