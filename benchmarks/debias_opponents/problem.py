"""One seed's classifier and splits, and how classifiers are judged on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from rledit.objectives import Debias, GroupMetrics
from rledit.objectives.metric_names import label
from rledit.objectives.paired import ranks_of, tally_margins
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.debiasing.changes import RATES
from rledit.recipes.debiasing.classifier import BagOfWords
from rledit.recipes.debiasing.data import DebiasData, load_sets
from rledit.samples import Samples

from ..debias import trained

SHARES = tuple(k / 10 for k in range(10, 0, -1))
"""How much of a method is mixed into the unedited classifier."""

TEST = (
    *("utility_auc", "utility_accuracy", "bpsn_auc", "subgroup_auc", "bnsp_auc", "fped", "fned"),
    *RATES,
)
RISES = {f"worst rise, {label(rate)}": rate for rate in RATES}
"""Of the group whose rate rose most, in points."""
UNSEEN = "unseen_bpsn_auc"
FIGURES = (*TEST, *RISES, UNSEEN)

Weights = Mapping[str, Tensor]
Hidden = Callable[[Tensor], Tensor]
Margins = Callable[[str], Tensor]
"""A function from the name of a split to margins [S]."""


@dataclass(frozen=True)
class Setting:
    """One setting of a method."""

    name: str
    margins: Margins


class Problem:
    """The classifier that is to be debiased, as sparse products: 10,000 comments in a moment."""

    def __init__(self, config: DebiasConfig, data_root: Path | None, console: Console) -> None:
        self.config = config
        self.data = DebiasData(load_sets(config, data_root), config.seed)
        classifier = trained(config, self.data, console)
        assert isinstance(classifier, BagOfWords)
        self.classifier = classifier
        self.model = classifier.model
        self.weights: Weights = {name: w.clone() for name, w in self.model.state_dict().items()}
        self.samples: dict[str, Samples] = {}
        self._words: dict[str, Tensor] = {}
        for name, (texts, samples, _) in self.data.test_sets().items():
            self._add(name, list(texts), samples)
        for name in ("reward", "validation"):
            split = self.data.splits[name]
            samples = split.samples(lambda texts: torch.zeros(len(texts), 1), self.data.identities)
            self._add(name, list(split.both.texts), samples)
        self.unedited = self.of_weights("unedited", self.weights)
        self.objective: Debias = config.objective().relative_to(self._tally(self.unedited, "validation"))

    def _add(self, name: str, texts: list[str], samples: Samples) -> None:
        step = 2048
        parts = [
            self.classifier.encode(texts[start : start + step]).to_sparse()
            for start in range(0, len(texts), step)
        ]
        self._words[name] = torch.cat(parts).coalesce().to_sparse_csr()
        self.samples[name] = samples

    # ---------------------------------------------------------------------------------- classifiers

    @torch.no_grad()
    def hidden(self, weights: Weights, split: str) -> Tensor:
        """The first layer's features [S, 64]."""
        return F.relu(self._words[split] @ weights["fc1.weight"].T.contiguous() + weights["fc1.bias"])

    @torch.no_grad()
    def head(self, weights: Weights, hidden: Tensor) -> Tensor:
        """Margins [S] of these features of the first layer."""
        second = F.relu(F.linear(hidden, weights["fc2.weight"], weights["fc2.bias"]))
        logits = F.linear(second, weights["fc3.weight"], weights["fc3.bias"])
        return logits[:, 1] - logits[:, 0]

    def of_weights(self, name: str, weights: Weights) -> Setting:
        return Setting(name, lambda split: self.head(weights, self.hidden(weights, split)))

    def of_hidden(self, name: str, change: Hidden) -> Setting:
        """The classifier with something done to the first layer's features."""
        return Setting(name, lambda split: self.head(self.weights, change(self.hidden(self.weights, split))))

    def mixed(self, weights: Weights, share: float) -> Weights:
        return {name: torch.lerp(self.weights[name], weight, share) for name, weight in weights.items()}

    # -------------------------------------------------------------------------------------- judging

    def _tally(self, setting: Setting, split: str):  # type: ignore[no-untyped-def]
        return tally_margins(ranks_of(setting.margins(split))[None], self.samples[split])

    def judge(self, setting: Setting) -> tuple[bool, float]:
        """Whether a setting stays within what may be spent on validation, and its objective there."""
        tally = self._tally(setting, "validation")
        return bool(self.objective.admissible(tally)[0]), float(self.objective(tally)[0])

    @cached_property
    def _before(self) -> GroupMetrics:
        """The unedited classifier's on the test split."""
        return self.objective.of(self._tally(self.unedited, "test"))

    def figures(self, setting: Setting) -> dict[str, float]:
        """Metrics on the test split, and the power mean of BPSN AUCs on unseen templates."""
        metrics, before = self.objective.of(self._tally(setting, "test")), self._before
        out = {name: float(metrics[name][0]) for name in TEST}
        for name, rate in RISES.items():
            out[name] = 100 * float((metrics.table(rate)[1] - before.table(rate)[1]).max())
        # Of templates that are held out there are few sentences a group, as in a run's own evaluation.
        fewer = replace(self.objective, least_group=max(1, self.objective.least_group // 2))
        unseen = fewer.of(self._tally(setting, "unseen templates"))
        return out | {UNSEEN: float(unseen["bpsn_auc"][0])}
