"""Levels of a binary classifier, on whole sets and by group, against scikit-learn and fairlearn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor

from rledit.objectives import METRICS, PER_GROUP, GroupMetrics
from rledit.objectives.fairness import NEEDS
from rledit.objectives.rates import lacking
from rledit.ops import tally_logits
from rledit.tally import LabelCount, Tally

NAMES = ("a", "b", "c", "harmless", "toxic")


def tally_of(margins: Tensor, labels: Tensor, groups: dict[str, Tensor]) -> Tally:
    """Of margins [N, S]."""
    logits = torch.stack([torch.zeros_like(margins), margins], -1)
    counts = tally_logits(logits, labels, torch.stack(list(groups.values())), sorted(NEEDS), 256, 8.0)
    return Tally(counts, list(groups), LabelCount(labels, groups, 2))


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """Four classifiers of 900 samples, the last of which calls nothing positive."""
    random = torch.Generator().manual_seed(5)
    labels = torch.randint(2, (900,), generator=random)
    margins = torch.randn(4, 900, generator=random) + 1.2 * (labels - 0.4)
    margins[3] = -1.0
    in_bias = torch.arange(900) >= 300
    groups = {"utility": ~in_bias, "bias": in_bias}
    groups |= {name: in_bias & (torch.rand(900, generator=random) < 0.3) for name in "abc"}
    groups |= {"harmless": groups["a"] & (labels == 0), "toxic": groups["a"] & (labels == 1)}
    return {
        "labels": labels,
        "predicted": (margins > 0).long(),
        "groups": groups,
        "metrics": GroupMetrics(tally_of(margins, labels, groups), NAMES),
    }


SCORES = {
    "accuracy": sklearn.accuracy_score,
    "precision": lambda y, p: sklearn.precision_score(y, p, zero_division=0),
    "recall": sklearn.recall_score,
    "f1": lambda y, p: sklearn.f1_score(y, p, zero_division=0),
    "balanced_accuracy": sklearn.balanced_accuracy_score,
}


@pytest.mark.parametrize("metric", [name for name in METRICS if name.partition("_")[2] in SCORES])
def test_levels_of_a_set_are_scikit_learns(known: dict[str, Any], metric: str) -> None:
    group, _, name = metric.partition("_")
    own = known["groups"][group]
    expected = [SCORES[name](known["labels"][own], predicted[own]) for predicted in known["predicted"]]
    assert known["metrics"][metric].tolist() == pytest.approx(expected)


def test_error_rates_of_the_bias_set_are_fairlearns(known: dict[str, Any]) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    own = known["groups"]["bias"]
    for name in ("false_positive_rate", "false_negative_rate"):
        expected = [getattr(fairlearn, name)(known["labels"][own], p[own]) for p in known["predicted"]]
        assert known["metrics"][name].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1"])
def test_levels_of_groups_are_scikit_learns(known: dict[str, Any], name: str) -> None:
    found = known["metrics"].per_group(name)
    without = {"harmless"} if name != "accuracy" else set()  # it has no positives
    assert set(found) == set(NAMES) - without
    for group, values in found.items():
        own = known["groups"][group]
        expected = [SCORES[name](known["labels"][own], predicted[own]) for predicted in known["predicted"]]
        assert values.tolist() == pytest.approx(expected), group


def test_a_sample_without_a_margin_is_an_error_of_either_kind() -> None:
    labels = torch.tensor([0, 1] * 4)
    margins = torch.full((1, 8), float("nan"))
    everyone = torch.ones(8, dtype=torch.bool)
    metrics = GroupMetrics(
        tally_of(margins, labels, {"bias": everyone, "a": everyone.clone()}), ["a"], utility="bias"
    )
    for name in ("bias_accuracy", "bias_precision", "bias_recall", "bias_f1", "bias_balanced_accuracy"):
        assert float(metrics[name][0]) == 0, name
    assert float(metrics["false_positive_rate"][0]) == float(metrics["false_negative_rate"][0]) == 1


def test_a_set_without_a_label_lacks_what_it_is_needed_for() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    bias = labels == 0
    metrics = GroupMetrics(
        tally_of(torch.randn(2, 8), labels, {"utility": ~bias, "bias": bias, "a": bias}), ["a"]
    )
    assert float(metrics["bias_f1"][0]) == float(metrics["bias_precision"][0]) == 0
    for name in ("false_negative_rate", "bias_recall", "bias_balanced_accuracy"):
        with pytest.raises(ValueError, match=r"groups\['bias'\]: expected positives, there are none"):
            _ = metrics[name]
    assert metrics.per_group("recall") == {}


def test_a_least_size_is_of_the_samples_that_a_figure_is_made_of(known: dict[str, Any]) -> None:
    tally = known["metrics"].tally
    sizes = {name: tally.labels_of(name) for name in ("bias", *NAMES)}
    least = min(sizes["b"])
    metrics = GroupMetrics(tally, NAMES, least=least)
    few = GroupMetrics(tally, NAMES, least=least + 1)
    assert "b" in metrics.identities
    assert "b" not in few.identities
    assert few.per_group("accuracy").keys() == metrics.per_group("accuracy").keys()
    harmless = GroupMetrics(tally, NAMES, least=sizes["harmless"][0])
    assert "harmless" in harmless.per_group("false_positive_rate")
    assert "harmless" not in harmless.identities
    with pytest.raises(ValueError, match=r"with positives and negatives.*, 500 of each at least, got none"):
        _ = GroupMetrics(tally, NAMES, least=500)["bpsn_auc"]
    # whole sizes stand in for those of a resample
    kept = GroupMetrics(tally, NAMES, least=500, sizes=dict.fromkeys(sizes, (600, 700)) | {"a": (1, 9)})
    assert kept.groups_with("false_positive_rate") == ("b", "c", "harmless")


@pytest.mark.parametrize(
    ("own", "figure", "least", "expected"),
    [
        ((3, 0), "auc", 1, "no positives"),
        ((3, 1), "auc", 2, "1 positive"),
        ((3, 5), "auc", 20, "5 positives and 3 negatives"),
        ((3, 9), "auc", 1, "no positives outside it"),
        ((3, 9), "false_negative_rate", 9, ""),
        ((3, 9), "false_positive_rate", 4, "3 negatives"),
        ((3, 9), "selection_rate", 12, ""),
        ((3, 9), "selection_rate", 13, "12 samples"),
    ],
)
def test_what_a_group_lacks(own: Any, figure: Any, least: int, expected: str) -> None:
    assert lacking(own, (9, 9), figure, least) == expected


def test_every_figure_of_a_group_has_a_name_and_a_range(known: dict[str, Any]) -> None:
    for name in PER_GROUP:
        groups, values = known["metrics"].table(name)
        assert values.shape == (4, len(groups))
        assert bool(((values >= 0) & (values <= 1)).all()), name
