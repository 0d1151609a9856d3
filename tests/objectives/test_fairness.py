"""Metrics across identity groups against scikit-learn and fairlearn, and the objective that weighs them."""

from __future__ import annotations

import functools
import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor, nn

import rledit
from rledit.objectives import METRICS, PER_GROUP, Debias, GroupMetrics, SoftTally, power_mean
from rledit.objectives.budgets import LEVELS
from rledit.objectives.fairness import NEEDS
from rledit.ops import concordant_pairs, tally_logits
from rledit.tally import LabelCount, Tally

IDENTITIES = ("a", "b", "c")


def make_tally(
    candidates: int = 4, samples: int = 900, seed: int = 0, bins: int = 8192
) -> tuple[Tally, dict[str, Any]]:
    """Margins that know something of the labels; groups a, b, c overlap inside "bias"."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (samples,), generator=random)
    margins = torch.randn(candidates, samples, generator=random) + 1.2 * (labels - 0.4)
    in_bias = torch.arange(samples) >= samples // 3
    groups = {"utility": ~in_bias, "bias": in_bias}
    for name in IDENTITIES:
        groups[name] = in_bias & (torch.rand(samples, generator=random) < 0.3)
    logits = torch.stack([torch.zeros_like(margins), margins], -1)
    masks = torch.stack(list(groups.values()))
    counts = tally_logits(logits, labels, masks, sorted(NEEDS), bins, 16.0)
    tally = Tally(counts, list(groups), LabelCount(labels, groups, 2))
    return tally, {"labels": labels, "margins": margins, "groups": groups}


def exact_auc(labels: Tensor, margins: Tensor, mask: Tensor) -> float:
    return float(roc_auc_score(labels[mask], margins[mask]))


def test_aucs_are_scikit_learns() -> None:
    tally, known = make_tally()
    labels, groups = known["labels"], known["groups"]
    metrics = GroupMetrics(tally, IDENTITIES)
    for n, margins in enumerate(known["margins"]):
        assert float(metrics.utility_auc[n]) == pytest.approx(
            exact_auc(labels, margins, groups["utility"]), abs=1e-3
        )
        for k, name in enumerate(IDENTITIES):
            own, background = groups[name], groups["bias"] & ~groups[name]
            negative, positive = labels == 0, labels == 1
            expected = {
                "subgroup_aucs": own,
                "bpsn_aucs": (background & positive) | (own & negative),
                "bnsp_aucs": (background & negative) | (own & positive),
            }
            for figure, mask in expected.items():
                assert float(getattr(metrics, figure)[n, k]) == pytest.approx(
                    exact_auc(labels, margins, mask), abs=1e-3
                ), figure


def test_rates_are_scikit_learns_and_fairlearns() -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    tally, known = make_tally()
    labels, groups = known["labels"].numpy(), known["groups"]
    metrics = GroupMetrics(tally, IDENTITIES)
    everyone = groups["bias"].numpy()
    for n, margins in enumerate(known["margins"]):
        predicted = (margins > 0).long().numpy()
        utility = groups["utility"].numpy()
        assert float(metrics.utility_accuracy[n]) == pytest.approx(
            accuracy_score(labels[utility], predicted[utility])
        )
        assert float(metrics.utility_f1[n]) == pytest.approx(f1_score(labels[utility], predicted[utility]))
        rates = {"fped": 0.0, "fned": 0.0}
        for k, name in enumerate(IDENTITIES):
            own = groups[name].numpy()
            false_positives = fairlearn.false_positive_rate(labels[own], predicted[own])
            false_negatives = fairlearn.false_negative_rate(labels[own], predicted[own])
            assert float(metrics.false_positive_rates[n, k]) == pytest.approx(false_positives)
            assert float(metrics.false_negative_rates[n, k]) == pytest.approx(false_negatives)
            assert float(metrics.selection_rates[n, k]) == pytest.approx(
                fairlearn.selection_rate(labels[own], predicted[own])
            )
            overall = fairlearn.false_positive_rate(labels[everyone], predicted[everyone])
            rates["fped"] += abs(overall - false_positives)
            overall = fairlearn.false_negative_rate(labels[everyone], predicted[everyone])
            rates["fned"] += abs(overall - false_negatives)
        for name, value in rates.items():
            assert float(metrics[name][n]) == pytest.approx(value)


def test_differences_of_a_partition_are_fairlearns() -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (600,), generator=random)
    margins = torch.randn(1, 600, generator=random) + labels
    feature = torch.randint(3, (600,), generator=random)
    groups = {"bias": torch.ones(600, dtype=torch.bool)}
    groups |= {name: feature == k for k, name in enumerate(IDENTITIES)}
    logits = torch.stack([torch.zeros_like(margins), margins], -1)
    counts = tally_logits(logits, labels, torch.stack(list(groups.values())), sorted(NEEDS), 64, 8.0)
    metrics = GroupMetrics(Tally(counts, list(groups), LabelCount(labels, groups, 2)), IDENTITIES)
    predicted = (margins[0] > 0).long()
    for name in ("demographic_parity_difference", "equalized_odds_difference"):
        expected = getattr(fairlearn, name)(labels, predicted, sensitive_features=feature)
        assert float(metrics[name][0]) == pytest.approx(expected)


def partition(seed: int) -> tuple[Tensor, Tensor, Tensor, Tally]:
    """Labels, predictions, group of each sample, and the tally: "only positives" has no negatives, "only
    negatives" no positives, and both have samples that are called positive."""
    random = torch.Generator().manual_seed(seed)
    feature = torch.randint(4, (300,), generator=random)
    labels = torch.randint(2, (300,), generator=random)
    labels[feature == 2], labels[feature == 3] = 1, 0
    margins = torch.randn(1, 300, generator=random) + (feature - 1.5) * labels
    names = ("a", "b", "only positives", "only negatives")
    groups = {"bias": torch.ones(300, dtype=torch.bool)} | {n: feature == k for k, n in enumerate(names)}
    logits = torch.stack([torch.zeros_like(margins), margins], -1)
    counts = tally_logits(logits, labels, torch.stack(list(groups.values())), sorted(NEEDS), 64, 8.0)
    return (
        labels,
        (margins[0] > 0).long(),
        feature,
        Tally(counts, list(groups), LabelCount(labels, groups, 2)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_each_metric_is_over_the_groups_that_have_it(seed: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    labels, predicted, feature, tally = partition(seed)
    metrics = GroupMetrics(tally, tally.groups[1:])
    assert metrics.identities == ("a", "b")
    assert metrics.groups_with("false_positive_rate") == ("a", "b", "only negatives")
    assert metrics.groups_with("false_negative_rate") == ("a", "b", "only positives")
    assert metrics.groups_with("selection_rate") == tally.groups[1:]
    expected = fairlearn.demographic_parity_difference(labels, predicted, sensitive_features=feature)
    assert float(metrics["demographic_parity_difference"][0]) == pytest.approx(expected)
    spreads, sums = [], []
    for rate, without, overall in (
        (fairlearn.false_positive_rate, 2, metrics.false_positive_rate),
        (fairlearn.false_negative_rate, 3, metrics.false_negative_rate),
    ):
        # fairlearn calls a rate of no samples 0, which would be a group without errors
        own = feature != without
        frame = fairlearn.MetricFrame(
            metrics=rate, y_true=labels[own], y_pred=predicted[own], sensitive_features=feature[own]
        )
        spreads.append(frame.difference())
        sums.append(float((frame.by_group - float(overall[0])).abs().sum()))
    assert float(metrics["equalized_odds_difference"][0]) == pytest.approx(max(spreads))
    assert [float(metrics[name][0]) for name in ("fped", "fned")] == pytest.approx(sums)
    aucs = metrics.per_group("bpsn_auc")
    assert set(aucs) == {"a", "b"}
    assert set(metrics.per_group("selection_rate")) == set(tally.groups[1:])
    for name in PER_GROUP:
        for value in metrics.per_group(name).values():
            assert value.shape == (1,)
            assert bool(value.isfinite().all())


def test_metrics_without_a_group_are_named() -> None:
    tally = partition(0)[-1]
    metrics = GroupMetrics(tally, ("only positives",))
    assert metrics.identities == ()
    assert metrics.per_group("subgroup_auc") == {}
    assert metrics["fned"].shape == (1,)
    for name, what in (("bpsn_auc", "positives and negatives"), ("fped", "negatives")):
        with pytest.raises(ValueError, match=f"identities: expected at least one with {what}"):
            _ = metrics[name]
    with pytest.raises(ValueError, match="identities: expected at least one group, got none"):
        GroupMetrics(tally, ())
    with pytest.raises(KeyError, match=r"group: expected one of bias, .*; got 'x'"):
        GroupMetrics(tally, ("a", "x"))
    with pytest.raises(KeyError, match=r"expected one of subgroup_auc, .*; got 'auc'"):
        metrics.per_group("auc")


def test_power_mean_and_jigsaw_score() -> None:
    values = torch.tensor([[0.9, 0.8, 0.5], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    expected = np.mean(values[0].numpy() ** -5.0) ** (-1 / 5)
    assert power_mean(values).tolist() == pytest.approx([expected, 1.0, 0.0])
    metrics = GroupMetrics(make_tally()[0], IDENTITIES)
    parts = [metrics.bias_auc, metrics.subgroup_auc, metrics.bpsn_auc, metrics.bnsp_auc]
    torch.testing.assert_close(metrics["jigsaw_score"], torch.stack(parts).mean(0))


def test_concordant_pairs_by_hand() -> None:
    histogram = torch.tensor([[[[2, 1, 0], [0, 1, 3]], [[0, 0, 4], [1, 0, 0]]]])  # one candidate, two groups
    # positives of the first (bins 1, 2, 2, 2) against its negatives (0, 0, 1): 2*2+1 for the first, 3*6
    assert concordant_pairs(histogram).tolist() == [[[2 * 2 + 1 + 3 * 6, 3 * 4], [2, 0]]]


def test_a_metric_by_a_wrong_name() -> None:
    with pytest.raises(KeyError, match="expected one of utility_auc"):
        GroupMetrics(make_tally()[0], IDENTITIES)["auc"]


# ------------------------------------------------------------------------------------------ objective


def make_task(objective: Any, seed: int = 0, samples: int = 1500) -> rledit.Task:
    """A classifier that reads a toxicity feature, and an identity feature that it should not read."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (samples,), generator=random)
    inputs = torch.randn(samples, 6, generator=random)
    inputs[:, 0] += 2.0 * labels
    in_bias = torch.arange(samples) >= samples // 2
    identity = in_bias & (torch.rand(samples, generator=random) < 0.4)
    inputs[:, 1] = identity.float()
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[0, 0] = 1.0
        model[0].weight[1, 1] = 2.5  # the bias
        model[2].weight[1, :2] = 1.0
        model[2].bias[0] = 1.0
    groups = {"utility": ~in_bias, "bias": in_bias, "people": identity}
    return rledit.Task(model, ["0"], rledit.Samples(inputs, labels, groups), objective)


FREE = dict.fromkeys(LEVELS, math.inf)
"""Only utility has a budget."""


def test_doing_nothing_is_worth_nothing_and_less_bias_is_worth_more() -> None:
    task = make_task(Debias(budgets=FREE))  # without the identity feature, more insults of people are missed
    scorer = task.scorer()
    assert float(scorer.objective(scorer.score({}))[0]) == pytest.approx(0.0, abs=1e-12)
    left, right = torch.zeros(2, 8, 1), torch.zeros(2, 1, 6)
    left[0, 1, 0], right[0, 0, 1] = 1.0, -2.5  # takes the bias away
    left[1, 1, 0], right[1, 0, 1] = 1.0, 2.5  # doubles it
    better, worse = scorer.objective(scorer.score({"0": (left, right)})).tolist()
    assert better > 0.1
    assert worse < 0


@pytest.mark.parametrize("constant", [-50.0, 50.0])
def test_calling_everything_one_class_loses_against_doing_nothing(constant: float) -> None:
    """FPED and FNED are zero then, which a reward of them alone would call perfect."""
    task = make_task(Debias())
    scorer = task.scorer()
    weights = {"0": torch.zeros(1, 8, 6)}
    tally = scorer.score({}, weights=weights)
    figures = scorer.objective.metrics(tally)
    assert float(figures["fped"][0]) == 0
    assert float(scorer.objective(tally)[0]) < -0.5
    biased = scorer.score({"0": (torch.full((1, 8, 1), constant), torch.ones(1, 1, 6))})
    assert float(scorer.objective(biased)[0]) < 0


def test_the_budget_is_free_and_what_is_beyond_is_dear() -> None:
    tally, _ = make_tally(candidates=3)
    objective = Debias(utility=("utility_auc",), bias={"fped": 1e-9}, budget=0.01, penalty=10.0, budgets=FREE)
    metrics = objective.of(tally)
    for lost in (0.0, 0.007, 0.03):
        before = {"utility_auc": float(metrics.utility_auc[0]) + lost, "fped": float(metrics.fped[0])}
        anchored = Debias(
            utility=("utility_auc",),
            bias={"fped": 1e-9},
            budget=0.01,
            penalty=10.0,
            reserve=0.2,
            budgets=FREE,
            before=before,
        )
        assert float(anchored(tally)[0]) == pytest.approx(-10.0 * max(0.0, lost - 0.008), abs=1e-6)


def test_the_soft_objective_knows_which_groups_pay() -> None:
    counted, made = make_tally(candidates=1)
    labels, groups = made["labels"], made["groups"]
    before = 1000 * made["margins"].double()  # so sure that soft rates are the counted ones
    after = torch.where(groups["a"] & (labels == 1), -before.abs(), before)

    def soft(objective: rledit.Debias, margins: Tensor) -> float:
        logits = torch.stack([torch.zeros_like(margins), margins], -1)
        return objective.soft(SoftTally(logits, None, labels, groups)).item()

    held = rledit.Debias(identities=IDENTITIES).relative_to(counted)
    free = rledit.Debias(identities=IDENTITIES, budgets=FREE).relative_to(counted)
    assert soft(held, before) == pytest.approx(soft(free, before), abs=0.01)
    rises = 0.0
    for name in IDENTITIES:
        positives = groups[name] & (labels == 1)
        rises += float(((after <= 0) & positives).sum() - ((before <= 0) & positives).sum()) / int(
            positives.sum()
        )
    assert rises > 0.5
    assert soft(free, after) - soft(held, after) == pytest.approx(rises, abs=0.01)


def test_a_group_of_one_class_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    task = make_task(Debias())
    samples = task.samples
    masks = dict(samples.groups)
    harmless = samples.groups["bias"] & (samples.labels == 0)
    masks["harmless"] = harmless & (torch.arange(len(samples)) % 2 == 0)
    with_one = rledit.Samples(torch.cat(list(samples.batches())), samples.labels, masks)
    with caplog.at_level(logging.WARNING, logger="rledit"):
        task = rledit.Task(task.editable.model, ["0"], with_one, Debias())
    assert "Left out of BPSN AUC, subgroup AUC, BNSP AUC: harmless (no positives)." in caplog.text
    assert "Left out of FNED, largest rise of a group's false negative rate: harmless" in caplog.text
    assert "FPED" not in caplog.text  # it has a false positive rate
    scorer = task.scorer()
    assert scorer.objective.of(scorer.score({})).identities == ("people",)
    assert bool(scorer.objective(scorer.score({})).isfinite().all())


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"utility": "u", "people": "p"}, "needs a group 'bias'"),
        ({"utility": "u", "bias": "b"}, "identity groups besides"),
        ({"utility": "u", "bias": "b", "people": "u"}, "expected samples of 'bias' only"),
        ({"utility": "u", "bias": "b", "people": "b"}, "no positives outside it"),
    ],
)
def test_samples_that_cannot_be_debiased_on(groups: dict[str, str], message: str) -> None:
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    kinds = {"u": torch.arange(6) < 2, "b": torch.arange(6) >= 2, "p": torch.arange(6) >= 4}
    samples = rledit.Samples(torch.randn(6, 3), labels, {name: kinds[kind] for name, kind in groups.items()})
    with pytest.raises(ValueError, match=message):
        Debias(least_group=1).check(samples)


def test_only_what_is_weighed_must_be_there(caplog: pytest.LogCaptureFixture) -> None:
    debias = functools.partial(Debias, budgets=FREE, least_group=1)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0])
    place = torch.arange(8)
    groups = {"utility": place < 2, "bias": place >= 2, "a": place >= 6, "b": (place == 2) | (place == 4)}
    samples = rledit.Samples(torch.randn(8, 3), labels, groups)  # no identity group has a positive
    with caplog.at_level(logging.WARNING, logger="rledit"):
        debias(bias={"demographic_parity_difference": 1.0, "fped": 1.0}).check(samples)
    assert caplog.text == ""
    with pytest.raises(ValueError, match="group with positives for FNED; a has no positives; b has no"):
        debias(bias={"fned": 1.0, "fped": 1.0}).check(samples)
    groups["utility"] = place == 0
    samples = rledit.Samples(torch.randn(8, 3), labels, groups)
    with pytest.raises(ValueError, match=r"groups\['utility'\]: expected both labels for the utility AUC"):
        debias(bias={"fped": 1.0}).check(samples)
    debias(utility=("utility_accuracy",), bias={"fped": 1.0}).check(samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"utility": ("auc",)}, "utility: expected some of"),
        ({"bias": {"x": 1.0}}, "bias: expected some of"),
        ({"bias": {}}, "bias: expected at least one"),
        ({"bias": {"fped": -1.0}}, "expected a positive weight"),
        ({"budget": float("nan")}, "budget: expected a number"),
        ({"penalty": -1.0}, "penalty: expected a number"),
        ({"reserve": 1.5}, "reserve: expected a share"),
        ({"confidence": 1.0}, "confidence: expected a share"),
        ({"least_group": 0}, "least_group: expected at least 1"),
        ({"budgets": {"x": 0.1}}, "budgets: expected the name of a metric"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Debias(**arguments)


def test_every_metric_is_finite_and_has_one_value_per_candidate() -> None:
    metrics = GroupMetrics(make_tally()[0], IDENTITIES)
    for name in METRICS:
        assert metrics[name].shape == (4,), name
        assert bool(metrics[name].isfinite().all()), name


def test_the_suffix_counts_pairs_across_its_passes() -> None:
    """A network that is no plain tail is run in passes over the samples; pairs of two passes count, too."""
    task = make_task(Debias())
    model = nn.Sequential(*task.editable.model, nn.Softplus())  # not a function that the tail op knows
    suffix = rledit.Task(model, ["0"], task.samples, Debias()).scorer()
    assert suffix.way != "tail"
    tally = suffix.score({})
    inputs = torch.cat(list(task.samples.batches()))
    with torch.no_grad():
        logits = model(inputs)
    margins = logits[:, 1] - logits[:, 0]
    for group, mask in task.samples.groups.items():
        assert float(tally.auc(group)[0]) == pytest.approx(
            exact_auc(task.samples.labels, margins, mask), abs=1e-3
        )


def test_more_negatives_than_sixteen_bits_count() -> None:
    """The core counts negatives in columns of 16 bits."""
    random = torch.Generator().manual_seed(0)
    samples = 90_000
    labels = (torch.rand(samples, generator=random) < 0.1).long()
    groups = torch.stack([torch.ones(samples, dtype=torch.bool), torch.rand(samples, generator=random) < 0.5])
    logits = torch.zeros(2, samples, 2)
    logits[..., 1] = torch.randn(2, samples, generator=random) + labels
    counts = tally_logits(logits, labels, groups, ["concordant", "histogram"], 512, 8.0)
    assert torch.equal(counts.concordant, concordant_pairs(counts.histogram))
