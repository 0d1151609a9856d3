"""The methods of :mod:`rledit.methods.debiasing`: from a problem to settings."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from rledit.experiments.config import SearchName
from rledit.methods import debiasing
from rledit.recipes.debiasing.config import BUDGET
from rledit.recipes.debiasing.task import editing_samples
from rledit.samples import Samples
from rledit.zoo.data import IDENTITY_TERMS

from ..debias import edit
from .problem import SHARES, Problem, Setting

BUDGETS = (0.0025, 0.005, 0.01, 0.02)


def fine_tune(
    problem: Problem, inputs: Tensor, labels: Tensor, weights: Tensor, layers: tuple[str, ...]
) -> Iterator[Setting]:
    """Every rate and number of epochs, mixed with the unedited network."""
    seed = problem.config.seed
    for tuned in debiasing.fine_tuned(problem.model, inputs, labels, weights, layers, seed):
        for share in SHARES:
            name = f"rate {tuned.rate:g}, {tuned.epochs} epochs, share {share:g}"
            yield problem.of_weights(name, problem.mixed(tuned.weights, share))


def _reward_inputs(problem: Problem) -> Tensor:
    return problem.classifier.encode(problem.data.splits["reward"].both.texts)


def last_layer(problem: Problem) -> Iterator[Setting]:
    labels = problem.samples["reward"].labels
    yield from fine_tune(problem, _reward_inputs(problem), labels, torch.ones(len(labels)), ("fc3",))


def reweighing(problem: Problem) -> Iterator[Setting]:
    samples = problem.samples["reward"]
    weights = debiasing.reweighed(samples, "utility", list(problem.data.identities))
    yield from fine_tune(problem, _reward_inputs(problem), samples.labels, weights, ("fc1", "fc2", "fc3"))


def counterfactuals(problem: Problem, with_reward: bool) -> Iterator[Setting]:
    terms = [term for names in IDENTITY_TERMS.values() for term in names]
    known, labels = list(problem.data.train.texts), problem.data.train.labels
    if with_reward:
        reward = problem.data.splits["reward"].both
        known, labels = [*known, *reward.texts], torch.cat([labels, reward.labels])
    texts, swapped = debiasing.swapped(known, labels, terms, problem.config.seed)
    inputs = problem.classifier.encode([*known, *texts])
    together = torch.cat([labels, swapped])
    yield from fine_tune(problem, inputs, together, torch.ones(len(together)), ("fc1", "fc2", "fc3"))


def thresholds(problem: Problem) -> Iterator[Setting]:
    def groups(samples: Samples) -> np.ndarray[Any, Any]:
        """The first identity group of each sample, -1 for none."""
        out = torch.full((len(samples),), -1)
        for k, name in enumerate(problem.data.identities):
            if name in samples.groups:
                out[samples.groups[name] & (out == -1)] = k
        return out.numpy()

    def scores(split: str) -> np.ndarray[Any, Any]:
        return problem.unedited.margins(split).double().sigmoid().numpy()

    reward = problem.samples["reward"]
    for constraint in debiasing.CONSTRAINTS:
        answer = debiasing.thresholds(scores("reward"), reward.labels.numpy(), groups(reward), constraint)

        def margins(split: str, share: float, answer: debiasing.Thresholds = answer) -> Tensor:
            answers = answer(scores(split), groups(problem.samples[split]))
            return torch.from_numpy(share * answers + (1 - share) * scores(split) - 0.5)

        for share in SHARES:
            yield Setting(f"{constraint}, share {share:g}", partial(margins, share=share))


def leace(problem: Problem) -> Iterator[Setting]:
    reward = problem.samples["reward"]
    concept = torch.stack([reward.groups[name] for name in problem.data.identities], 1).float()
    eraser = debiasing.leace(problem.hidden(problem.weights, "reward"), concept)
    for share in SHARES:

        def erased(hidden: Tensor, share: float = share) -> Tensor:
            return torch.lerp(hidden, eraser(hidden), share)

        yield problem.of_hidden(f"share {share:g}", erased)


def rledit_edits(
    problem: Problem,
    layer: tuple[str, ...] = (),
    budgets: tuple[float, ...] = (BUDGET,),
    search: SearchName = "ppo",
) -> Iterator[Setting]:
    for budget in budgets:
        config = replace(problem.config, layer=layer, budget=(f"{budget}",), search=search)
        samples = editing_samples(problem.classifier, problem.data)
        _, result = edit(config, problem.classifier, samples, Console(stderr=True))
        edited = deepcopy(problem.model)
        result.edit.apply_(edited)
        # Not the layers: they differ from seed to seed, and settings are averaged by name.
        yield problem.of_weights(f"budget {budget:g}", edited.state_dict())


METHODS = {
    "unedited": lambda problem: iter([problem.unedited]),
    "rledit": rledit_edits,
    "rledit, gradients": partial(rledit_edits, search="gradient"),
    "rledit, fc2": partial(rledit_edits, layer=("fc2",), budgets=BUDGETS),
    "last layer": last_layer,
    "counterfactuals": partial(counterfactuals, with_reward=False),
    "counterfactuals, more data": partial(counterfactuals, with_reward=True),
    "reweighing": reweighing,
    "thresholds": thresholds,
    "LEACE": leace,
}
