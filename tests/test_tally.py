"""What a tally says, and that it names what it does not have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rledit.ops import TALLY_PARTS
from rledit.ops.counts import Counts
from rledit.tally import LabelCount, Tally


def tally(**parts: Tensor) -> Tally:
    """Nine samples, four of group a and five of b."""
    counts = Counts(**{name: parts.get(name, torch.empty(0, dtype=torch.int64)) for name in TALLY_PARTS})
    labels = torch.tensor([0, 0, 1, 1, 0, 2, 2, 2, 2])
    masks = {"a": torch.arange(9) < 4, "b": torch.arange(9) >= 4}
    return Tally(counts, ["a", "b"], LabelCount(labels, masks, 3))


def full() -> Tally:
    return tally(
        correct=torch.tensor([[4, 0], [1, 5]]),
        loss=torch.ones(2, 2).double(),
        confusion=torch.ones(2, 2, 3, 3, dtype=torch.int64),
        concordant=torch.ones(2, 2, 2, dtype=torch.int64),
    )


def test_weighed_accuracies() -> None:
    counted = full()
    by_hand = 0.5 * counted.accuracy("a") - 2.0 * counted.accuracy("b")
    torch.testing.assert_close(counted.weigh(("a", 0.5), ("b", -2.0)), by_hand, rtol=0, atol=0)
    assert counted.weigh(("a", 1.0), ("a", -1.0)).tolist() == [0.0, 0.0]  # a group may come twice


def test_figures() -> None:
    confusion = torch.zeros(1, 2, 3, 3, dtype=torch.int64)
    confusion[0, 1] = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 0, 3]])
    ours = tally(
        correct=torch.tensor([[1, 4]]), loss=torch.tensor([[8.0, 10.0]]).double(), confusion=confusion
    )
    assert ours.count == {"a": 4, "b": 5}
    assert ours.candidates == 1
    assert ours.correct["b"].tolist() == [4]
    assert list(ours.correct) == ["a", "b"]
    assert ours.accuracy("a").tolist() == [0.25]
    assert ours.mean_loss("b").tolist() == [2.0]
    recall = ours.per_class_accuracy("b")[0]
    assert recall[[0, 2]].tolist() == [1.0, 0.75]
    assert recall[1].isnan()  # no sample of class 1 in b


def test_a_part_that_was_not_counted_says_how_to_get_it() -> None:
    with pytest.raises(AttributeError, match=r"predicted was not counted: add it to the objective's `needs`"):
        _ = full().predicted
    with pytest.raises(AttributeError, match="loss was not counted"):
        tally(correct=torch.ones(1, 2, dtype=torch.int64)).mean_loss("a")


@pytest.mark.parametrize(
    "read",
    [
        lambda t, g: t.accuracy(g),
        lambda t, g: t.weigh(("a", 1.0), (g, 1.0)),
        lambda t, g: t.auc(g),
        lambda t, g: t.auc("a", g),
        lambda t, g: t.mean_loss(g),
        lambda t, g: t.per_class_accuracy(g),
        lambda t, g: t.predicted[g] if t.counts.predicted.dim() > 1 else t.correct[g],
        lambda t, g: t.count[g],
        lambda t, g: t.label_count(g),
        lambda t, g: t.labels_of(g),
        lambda t, g: t.label_table((g,)),
        lambda t, g: t.rows(("a", g)),
        lambda t, g: t.row(g),
    ],
)
@pytest.mark.parametrize("counted", [full(), tally(predicted=torch.ones(1, 2, 3, dtype=torch.int64))])
def test_an_unknown_group_is_named_everywhere(read: Callable[[Tally, str], object], counted: Tally) -> None:
    """Also where the part has not been counted either."""
    with pytest.raises(KeyError, match="group: expected one of a, b; got 'c'"):
        read(counted, "c")


@pytest.mark.parametrize("terms", [(), ("a", 1.0), (("a", 1.0, 2.0),), (["a"],)])
def test_terms_that_are_no_pairs_are_named(terms: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="terms: expected"):
        full().weigh(*terms)  # type: ignore[arg-type]


def test_repr_is_short() -> None:
    assert repr(full()) == "Tally(2 candidates, groups={a: 4, b: 5}, correct, confusion, loss, concordant)"
    masks = {f"group {i}": torch.ones(9) > 0 for i in range(40)}
    counts = Counts(torch.zeros(1, 40, dtype=torch.int64), *full().counts[:0], *([torch.empty(0)] * 5))
    many = Tally(counts, list(masks), LabelCount(torch.zeros(9, dtype=torch.int64), masks, 2))
    assert repr(many).endswith("group 3: 9, 36 more}, correct)")
    assert repr(full().correct) == "Grouped(a, b; [2, 2])"


def probed() -> Tally:
    """The samples of :func:`tally`, of which a probe learned from the first of each label."""
    labels = torch.tensor([0, 0, 1, 1, 0, 2, 2, 2, 2])
    masks = {"a": torch.arange(9) < 4, "b": torch.arange(9) >= 4, "nobody": torch.arange(9) > 9}
    fit = torch.tensor([1, 0, 1, 0, 0, 1, 0, 0, 0]) > 0
    counts = {
        "recalled": torch.tensor([[2, 1, 0], [0, 4, 0]]),
        "nearest": torch.tensor([[1, 2, 0], [1, 3, 0]]),
        "lower_loss": torch.tensor([[[16, 10, 0], [30, 25, 0], [0, 0, 0]]] * 2),
    }
    none = torch.empty(0, dtype=torch.int64)
    made = Counts(**{name: counts.get(name, none) for name in TALLY_PARTS})
    return Tally(made, list(masks), LabelCount(labels, masks, 3, fit))


def test_what_probes_know_is_out_of_the_judged_samples() -> None:
    counted = probed()
    assert [counted.judged(group) for group in counted.groups] == [2, 4, 0]
    assert counted.probe_recall("a").tolist() == [1.0, 0.0]
    assert counted.probe_recall("b").tolist() == [0.25, 1.0]
    assert counted.nearest_recall("b").tolist() == [0.5, 0.75]
    assert counted.probe_recall("nobody").isnan().all()
    assert counted.membership_auc("a", "b").tolist() == [0.25, 0.25]
    assert counted.membership_auc("b", "a").tolist() == [0.75, 0.75]
    assert counted.membership_auc("a", "nobody").isnan().all()
    with pytest.raises(KeyError, match="expected one of a, b, nobody"):
        counted.probe_recall("c")
    with pytest.raises(AttributeError, match="recalled was not counted"):
        full().probe_recall("a")
    unknown = tally(recalled=torch.ones(2, 2, dtype=torch.int64))
    assert unknown.judged("b") == 5
    with pytest.raises(ValueError, match="does not know which samples were judged"):
        unknown.probe_recall("a")
