"""The methods: from a problem to settings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from rledit.recipes.debiasing.task import editing_samples
from rledit.samples import Samples
from rledit.zoo.data import IDENTITY_TERMS
from rledit.zoo.models.bag_of_words import words_of

from ..debias import edit
from .problem import SHARES, Problem, Setting

RATES = (3e-4, 1e-3, 3e-3)
EPOCHS = (1, 3, 10)
BUDGETS = (0.0025, 0.005, 0.01, 0.02)
CONSTRAINTS = (
    "equalized_odds",
    "demographic_parity",
    "false_positive_rate_parity",
    "false_negative_rate_parity",
)


def fine_tune(
    problem: Problem, inputs: Tensor, labels: Tensor, weights: Tensor, layers: tuple[str, ...]
) -> Iterator[Setting]:
    """Every rate and number of epochs, mixed with the unedited network."""
    for rate in RATES:
        torch.manual_seed(problem.config.seed)
        model = deepcopy(problem.model).train()
        parameters = [p for name, p in model.named_parameters() if name.split(".")[0] in layers]
        optimizer = torch.optim.AdamW(parameters, lr=rate)
        for epoch in range(1, max(EPOCHS) + 1):
            for index in torch.randperm(len(labels)).split(128):
                loss = F.cross_entropy(model(inputs[index]), labels[index], reduction="none")
                optimizer.zero_grad()
                (loss * weights[index]).mean().backward()
                optimizer.step()
            if epoch in EPOCHS:
                tuned = {name: weight.clone() for name, weight in model.state_dict().items()}
                for share in SHARES:
                    name = f"rate {rate:g}, {epoch} epochs, share {share:g}"
                    yield problem.of_weights(name, problem.mixed(tuned, share))


def _reward_inputs(problem: Problem) -> Tensor:
    return problem.classifier.encode(problem.data.splits["reward"].both.texts)


def last_layer(problem: Problem) -> Iterator[Setting]:
    labels = problem.samples["reward"].labels
    yield from fine_tune(problem, _reward_inputs(problem), labels, torch.ones(len(labels)), ("fc3",))


def reweighing(problem: Problem) -> Iterator[Setting]:
    samples = problem.samples["reward"]
    weights = torch.zeros(len(samples))
    for name in ("utility", *problem.data.identities):
        for label in (0, 1):
            cell = samples.groups[name] & (samples.labels == label)
            share = 1.0 if name == "utility" else 1.0 / len(problem.data.identities)
            weights[cell] += share / max(1, int(cell.sum()))
    weights *= len(weights) / weights.sum()
    yield from fine_tune(problem, _reward_inputs(problem), samples.labels, weights, ("fc1", "fc2", "fc3"))


def counterfactuals(problem: Problem, with_reward: bool) -> Iterator[Setting]:
    terms = [term for names in IDENTITY_TERMS.values() for term in names]
    chance = random.Random(problem.config.seed)
    known, labels = list(problem.data.train.texts), problem.data.train.labels
    if with_reward:
        reward = problem.data.splits["reward"].both
        known, labels = [*known, *reward.texts], torch.cat([labels, reward.labels])
    texts, swapped = [], []
    for text, label in zip(known, labels.tolist(), strict=True):
        words = f" {' '.join(words_of(text))} "
        for term in terms:
            if f" {term} " in words:
                texts.append(words.replace(f" {term} ", f" {chance.choice(terms)} "))
                swapped.append(label)
    inputs = problem.classifier.encode([*known, *texts])
    together = torch.cat([labels, torch.tensor(swapped, dtype=torch.int64)])
    yield from fine_tune(problem, inputs, together, torch.ones(len(together)), ("fc1", "fc2", "fc3"))


def thresholds(problem: Problem) -> Iterator[Setting]:
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator

    def feature(samples: Samples) -> np.ndarray[Any, Any]:
        """The first identity group of each sample, -1 for none."""
        out = torch.full((len(samples),), -1)
        for k, name in enumerate(problem.data.identities):
            if name in samples.groups:
                out[samples.groups[name] & (out == -1)] = k
        return out.numpy()

    class Scores(BaseEstimator):  # type: ignore[misc]
        """What fairlearn takes for an estimator."""

        def fit(self, *_: Any) -> Scores:
            return self

        def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return x[:, 0]

    def scores(split: str) -> np.ndarray[Any, Any]:
        return problem.unedited.margins(split).double().sigmoid().numpy()

    reward = problem.samples["reward"]
    for constraint in CONSTRAINTS:
        optimizer = ThresholdOptimizer(
            estimator=Scores(), constraints=constraint, prefit=True, predict_method="predict"
        )
        optimizer.fit(scores("reward")[:, None], reward.labels.numpy(), sensitive_features=feature(reward))

        def margins(split: str, share: float, optimizer: Any = optimizer) -> Tensor:
            groups = feature(problem.samples[split])
            groups[~np.isin(groups, feature(reward))] = -1  # unknown to the optimizer
            answers = optimizer._pmf_predict(scores(split)[:, None], sensitive_features=groups)[:, 1]
            return torch.from_numpy(share * answers + (1 - share) * scores(split) - 0.5)

        for share in SHARES:
            yield Setting(f"{constraint}, share {share:g}", partial(margins, share=share))


def leace(problem: Problem) -> Iterator[Setting]:
    from concept_erasure import LeaceEraser

    reward = problem.samples["reward"]
    concept = torch.stack([reward.groups[name] for name in problem.data.identities], 1).float()
    eraser = LeaceEraser.fit(problem.hidden(problem.weights, "reward"), concept)
    for share in SHARES:

        def erased(hidden: Tensor, share: float = share) -> Tensor:
            return torch.lerp(hidden, eraser(hidden), share)

        yield problem.of_hidden(f"share {share:g}", erased)


def rledit_edits(
    problem: Problem, layer: tuple[str, ...] = (), budgets: tuple[float, ...] = (0.005,)
) -> Iterator[Setting]:
    for budget in budgets:
        config = replace(problem.config, layer=layer, budget=budget)
        samples = editing_samples(problem.classifier, problem.data)
        _, result = edit(config, problem.classifier, samples, Console(stderr=True))
        edited = deepcopy(problem.model)
        result.edit.apply_(edited)
        # Not the layers: they differ from seed to seed, and settings are averaged by name.
        yield problem.of_weights(f"budget {budget:g}", edited.state_dict())


METHODS = {
    "unedited": lambda problem: iter([problem.unedited]),
    "rledit": rledit_edits,
    "rledit, fc2": partial(rledit_edits, layer=("fc2",), budgets=BUDGETS),
    "last layer": last_layer,
    "counterfactuals": partial(counterfactuals, with_reward=False),
    "counterfactuals, more data": partial(counterfactuals, with_reward=True),
    "reweighing": reweighing,
    "thresholds": thresholds,
    "LEACE": leace,
}
