"""What is counted in bootstrap resamples is what the op counts where every sample really comes that often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rledit.objectives import METRICS, PER_GROUP, GroupMetrics, paired
from rledit.objectives.fairness import NEEDS
from rledit.objectives.paired import ranks_of
from rledit.objectives.resampling import WeightedCounter, resample
from rledit.ops import tally_logits
from rledit.ops.tally_logits import bins_of
from rledit.recipes.debiasing.evaluation import evaluate
from rledit.samples import Samples
from rledit.tally import LabelCount, Tally

NAMES = ("a", "b", "rare", "harmless")
BINS, LIMIT = 64, 3.0


def make_samples(seed: int, size: int = 300, invalid: float = 0.0) -> tuple[Tensor, Samples]:
    """Margins with many ties, a share of them NaN, and groups that overlap."""
    random = torch.Generator().manual_seed(seed)

    def share(of: float) -> Tensor:
        return torch.rand(size, generator=random) < of

    labels = share(0.4).long()
    margins = torch.randn(size, generator=random) + labels
    margins[share(invalid)] = float("nan")
    in_bias = share(0.7)
    in_bias[:4] = True
    labels[:4] = torch.tensor([0, 1, 0, 1])
    groups = {"utility": ~in_bias, "bias": in_bias, "a": in_bias & share(0.4), "b": in_bias & share(0.3)}
    groups["rare"] = torch.arange(size) < 2
    groups["harmless"] = in_bias & (labels == 0) & share(0.5)
    return margins, Samples(torch.zeros(size, 1), labels, groups)


def tally_of(margins: Tensor, samples: Samples, rows: Tensor) -> Tally:
    """Of samples that come several times or not at all, one after the other."""
    labels, groups = samples.labels[rows], {name: mask[rows] for name, mask in samples.groups.items()}
    logits = torch.stack([torch.zeros(len(rows)), margins[rows]], -1)[None]
    counts = tally_logits(logits, labels, torch.stack(list(groups.values())), sorted(NEEDS), BINS, LIMIT)
    return Tally(counts, tuple(groups), LabelCount(labels, groups, 2))


def counter_of(margins: Tensor, samples: Samples) -> WeightedCounter:
    return WeightedCounter(margins, bins_of(margins, BINS, LIMIT), BINS, samples, "bias")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("invalid", [0.0, 0.1, 1.0])
def test_weights_count_as_samples_that_come_several_times(seed: int, invalid: float) -> None:
    margins, samples = make_samples(seed, invalid=invalid)
    rows = torch.randint(len(samples), (2, 400), generator=torch.Generator().manual_seed(seed))
    tally = counter_of(margins, samples).tally(rows)
    bias = samples.group_names.index("bias")
    for n, row in enumerate(rows):
        expected = tally_of(margins, samples, row)
        assert torch.equal(tally.counts.correct[n], expected.counts.correct[0])
        assert torch.equal(tally.counts.confusion[n], expected.counts.confusion[0])
        pairs, right = tally.counts.concordant[n], expected.counts.concordant[0]
        assert torch.equal(pairs.diagonal(), right.diagonal())
        assert torch.equal(pairs[bias], right[bias])
        assert torch.equal(pairs[:, bias], right[:, bias])
        assert torch.equal(tally.label_table(NAMES)[n], expected.label_table(NAMES))


def test_metrics_are_those_of_each_resample_alone() -> None:
    """In some resamples "rare" has no positives, or none at all: these are counted in parts."""
    margins, samples = make_samples(1)
    rows = list(resample(samples, 12, seed=2))
    parts = counter_of(margins, samples).tally(rows).alike(NAMES, "bias")
    assert 1 < len(parts) < 12
    assert sum(part.candidates for part in parts) == 12
    found: dict[Any, list[float]] = {}
    expected: dict[Any, list[float]] = {}
    tallies = [tally_of(margins, samples, row) for row in rows]
    for into, some in ((found, parts), (expected, tallies)):
        for tally in some:
            metrics = GroupMetrics(tally, NAMES)
            for name in METRICS:
                into.setdefault(name, []).extend(metrics[name].tolist())
            for name in PER_GROUP:
                for group, values in metrics.per_group(name).items():
                    into.setdefault((name, group), []).extend(values.tolist())
    assert set(found) == set(expected)
    for key, values in expected.items():
        assert sorted(found[key]) == pytest.approx(sorted(values), abs=1e-12), key


def test_resamples_of_an_evaluation_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laying out samples anew for each resample once took most of an evaluation's time."""
    margins, samples = make_samples(0)
    calls = []

    def counting(*arguments: Any) -> Any:
        calls.append(arguments)
        return tally_logits(*arguments)

    monkeypatch.setattr(paired, "tally_logits", counting)
    figures: Any = evaluate(margins, samples, ("a", "b"), seed=5)
    assert len(calls) == 1
    assert evaluate(margins, samples, ("a", "b"), seed=5) == figures
    assert evaluate(margins, samples, ("a", "b"), seed=6)["interval"] != figures["interval"]


def test_intervals_are_quantiles_of_resamples_counted_one_by_one() -> None:
    margins, samples = make_samples(3, invalid=0.02)
    interval: Any = evaluate(margins, samples, NAMES, seed=4)["interval"]
    ranks = ranks_of(margins)
    aucs = []
    for row in resample(samples, paired.RESAMPLES, seed=4):
        part = Samples(torch.zeros(len(row), 1), samples.labels[row], {"bias": samples.groups["bias"][row]})
        aucs.append(float(paired.tally_margins(ranks[row][None], part).auc("bias")[0]))
    assert interval["bias_auc"] == pytest.approx(np.quantile(aucs, [0.025, 0.975]).tolist(), abs=1e-12)
