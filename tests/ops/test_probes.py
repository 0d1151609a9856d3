"""What probes of the features count, by hand and by properties, in every backend that can run here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rledit import _native, ops
from rledit.ops import Candidates, EditRule, Layer, Probe, TailProblem, Wanted, backend, halves

BACKENDS = [backend("native"), backend("reference")]
ISAS = _native.available_isas()
BOTH = ["recalled", "nearest"]


@pytest.fixture(autouse=True)
def _restore(keep_native_state: None, one_thread: None) -> None:
    pass


def everyone(samples: int) -> Tensor:
    return torch.ones(1, samples, dtype=torch.bool)


def known(features: Tensor, labels: Tensor, fit: Tensor, ridge: float = 1e-3) -> tuple[int, int]:
    """Of one candidate and one group that holds everybody; native and reference must agree."""
    arguments = (features[None], labels, everyone(len(labels)), fit, ridge, BOTH)
    ours, exact = ops.tally_features(*arguments), ops.tally_features_ref(*arguments)
    assert [part.tolist() for part in ours] == [part.tolist() for part in exact]
    recalled, nearest = (int(part) for part in ours)
    return recalled, nearest


def test_two_points_on_a_line() -> None:
    # Learned: 0 at -1 and 1 at +1; both probes part the line at 0.
    features = torch.tensor([-1.0, 1.0, -0.1, 0.1, 5.0, -5.0, 0.2])[:, None]
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    assert known(features, labels, torch.arange(7) < 2) == (4, 4)


def test_a_ridge_probe_is_no_nearest_mean() -> None:
    # Five of class 0 at 0; class 1 at 1, 1 and 10, whose mean is 4: by means the border is at 2. By least
    # squares p = (5/8, 3/8), the mean m = 1.5 and w = B / A = 7.5 / 84, so that both scores are the same,
    # 1/2, at m + (1/8) / w = 2.9.
    learned = torch.tensor([0.0] * 5 + [1.0, 1.0, 10.0])
    labels = torch.tensor([0] * 5 + [1] * 3 + [1, 1, 0, 0])
    judged = torch.tensor([2.5, 3.0, 2.5, 1.9])
    features = torch.cat([learned, judged])[:, None]
    # Ridge knows 3.0 as 1, and both zeros; the nearest mean 2.5 and 3.0 as 1, and 1.9 as 0.
    assert known(features, labels, torch.arange(12) < 8, ridge=1e-9) == (3, 3)
    # A penalty without bound leaves only how frequent a class is.
    assert known(features, labels, torch.arange(12) < 8, ridge=1e9) == (2, 3)


def test_the_bias_is_not_penalized_and_scale_does_not_matter() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (200,), generator=random)
    features = torch.randn(200, 6, generator=random).double() + torch.randn(3, 6, generator=random)[labels]
    arguments = (labels, everyone(200), halves(labels), 0.5, BOTH)
    base = ops.tally_features_ref(features[None], *arguments)
    assert 50 < int(base[0]) < 100
    for other in (features + 37, features * 1e-5, features * 1e5 - 1e4):
        moved = ops.tally_features_ref(other[None], *arguments)
        assert [part.tolist() for part in moved] == [part.tolist() for part in base]


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_features_that_are_all_the_same_tell_how_frequent_a_class_is(value: float) -> None:
    labels = torch.tensor([2, 2, 1, 0, 1, 2, 2])
    recalled, nearest = known(torch.full((7, 4), value), labels, torch.arange(7) < 3)
    assert recalled == 2  # everybody is a 2
    assert nearest == 1  # all means are the same: the first class with one wins, 1


def test_classes_that_are_not_learned_are_never_known() -> None:
    features = torch.tensor([[-1.0], [1.0], [0.0], [-1.0], [1.0]])
    labels = torch.tensor([0, 3, 1, 0, 3])
    assert known(features, labels, torch.arange(5) < 2) == (2, 2)
    # One class alone: everybody is taken for it.
    assert known(features, labels, torch.arange(5) == 1) == (1, 1)


def test_nobody_to_judge_and_nobody_to_learn_from() -> None:
    features, labels = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])
    assert known(features, labels, torch.ones(5, dtype=torch.bool)) == (0, 0)
    for function in (ops.tally_features, ops.tally_features_ref):
        with pytest.raises(ValueError, match="fit: expected at least one of 5 samples to learn from"):
            function(features[None], labels, everyone(5), torch.zeros(5, dtype=torch.bool), 1e-3, BOTH)
        none = function(torch.zeros(3, 0, 2), labels[:0], everyone(0), everyone(0)[0], 1e-3, BOTH)
        assert [part.tolist() for part in none] == [[[0]] * 3] * 2


BROKEN = {
    "nan": torch.nan,
    "infinite": -torch.inf,
    "too large": 2.0**41,
}


@pytest.mark.parametrize("where", ["learned", "judged"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_candidate_that_has_blown_up_has_not_forgotten(kind: str, where: str) -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (300,), generator=random)
    features = torch.randn(3, 300, 5, generator=random)
    fit, groups = halves(labels), torch.stack([labels == 1, labels != 1])
    sound = ops.tally_features(features, labels, groups, fit, 1e-3, BOTH)
    sample = int((fit if where == "learned" else ~fit).nonzero()[-1])
    features[1, sample, 3] = BROKEN[kind]
    for function in (ops.tally_features, ops.tally_features_ref):
        for part, before in zip(function(features, labels, groups, fit, 1e-3, BOTH), sound, strict=True):
            assert part[1].tolist() == Probe(fit).judged(groups).tolist()
            assert torch.equal(part[[0, 2]], before[[0, 2]])


def test_features_too_small_to_be_told_apart_count_as_known() -> None:
    labels = torch.tensor([0, 0, 1, 1] * 5)
    features = torch.full((20, 2), 1e-20)
    features[:10] *= 2
    assert known(features, labels, halves(labels)) == (10, 10)


def test_halves_alternate_within_each_label() -> None:
    labels = torch.tensor([5, 5, 0, 5, 0, 0, 5, 2])
    assert halves(labels).tolist() == [True, False, True, True, False, True, False, True]
    groups = torch.tensor([[1, 0, 1, 1, 0, 0, 0, 1]]) > 0
    # Of label 5 within the group 0 and 3, outside it 1 and 6; of label 0 within it 2, outside it 4 and 5.
    assert halves(labels, groups).tolist() == [True, True, True, False, True, False, False, True]
    assert halves(labels[:0]).tolist() == []


def test_a_probe_is_checked() -> None:
    with pytest.raises(ValueError, match="ridge: expected a positive number, got 0"):
        Probe(torch.ones(3) > 0, 0)
    with pytest.raises(ValueError, match=r"fit: expected bool \[S\], got torch.float32 \[3\]"):
        Probe(torch.ones(3))
    layers = (Layer(torch.ones(2, 4)),)
    labels, groups = torch.zeros(3, dtype=torch.int64), everyone(3)
    with pytest.raises(ValueError, match=r"fit: expected bool \[3\], got torch.bool \[4\]"):
        TailProblem(torch.ones(3, 4), layers, labels, groups, probe=Probe(torch.ones(4) > 0))
    for each in BACKENDS:
        with pytest.raises(ValueError, match="fit: expected at least one of 3 samples to learn from"):
            each.prepare_tail(
                TailProblem(torch.ones(3, 4), layers, labels, groups, probe=Probe(torch.ones(3) < 0))
            )
        tail = each.prepare_tail(TailProblem(torch.ones(3, 4), layers, labels, groups))
        with pytest.raises(ValueError, match="wanted: nearest needs a probe"):
            tail.score(Candidates(1, EditRule(), [None], [None], [None]), Wanted(["nearest"]))


# --------------------------------------------------------------------------------- losses by rank


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("each", BACKENDS, ids=lambda each: each.name)
def test_losses_by_hand(each: ops.Backend, isa: str) -> None:
    _native.select_isa(isa)
    # Odds against the label: e^-3, e^-1, e^2, e^-3 again, and a sample that is not finite.
    logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 3.0], [torch.nan, 0.0]]])
    labels = torch.tensor([0, 0, 0, 1, 0])
    groups = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]) > 0
    lower = (
        each.prepare_tally(labels, groups, 2).count(logits, slice(None), Wanted(["lower_loss"])).lower_loss
    )
    # First against second: 0 is below 2 and level with 3, 1 is below 2 alone: 2 + 1 + 2 = 5 of 8.
    assert lower.tolist() == [[[4, 5, 4], [3, 4, 4], [0, 0, 1]]]


@pytest.mark.parametrize("isa", ISAS)
def test_losses_of_sure_samples_are_still_told_apart(isa: str) -> None:
    _native.select_isa(isa)
    margins = torch.arange(-30.0, 20.0)  # losses of 1e-13 to 20, far below float32's rounding of 1
    logits = torch.stack([torch.zeros(50), margins], -1)[None]
    labels = torch.zeros(50, dtype=torch.int64)
    groups = torch.eye(50, dtype=torch.bool)
    lower = ops.tally_logits(logits, labels, groups, ["lower_loss"]).lower_loss[0]
    inner = slice(3, 46)  # between the outermost bins, 2^-40 and 2^24
    expected = (2 * torch.ones(50, 50).triu(1) + torch.eye(50)).long()
    assert torch.equal(lower[inner, inner], expected[inner, inner])
    assert (lower + lower.T == 2).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 33])
def test_bins_of_losses_are_the_references(classes: int, isa: str) -> None:
    _native.select_isa(isa)
    random = torch.Generator().manual_seed(classes)
    # On a grid that float32 holds exactly; still, exp rounds, so that a sample may be one bin off.
    logits = (torch.randn(4, 500, classes, generator=random) * 320).round() / 64
    labels = torch.randint(classes, (500,), generator=random)
    groups = torch.rand(3, 500, generator=random) < 0.5
    ours = ops.tally_logits(logits, labels, groups, ["lower_loss"]).lower_loss
    exact = ops.tally_logits_ref(logits.double(), labels, groups, ["lower_loss"]).lower_loss
    assert torch.equal(ours.diagonal(dim1=1, dim2=2), exact.diagonal(dim1=1, dim2=2))  # squares of sizes
    assert ((ours - exact).abs() <= 8 + exact // 1000).all()
