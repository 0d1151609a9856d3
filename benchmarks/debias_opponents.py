"""Other ways to debias the same classifier, with the same data: what they cost and what they bring.

    python -m benchmarks.debias_opponents --data-root DIR

Each opponent sees what rledit sees: the training comments, and the reward split with its labels and groups.
Where it has settings, all of a small grid are tried and the validation split picks by the same objective.
Then the test split is read once.

last layer        the last layer fine-tuned on the reward split, the only baseline of Malik 2026
counterfactuals   fine-tuning on the training comments, and on copies in which identity terms are swapped
reweighing        fine-tuning on the reward split with every group and label equally heavy (F. Kamiran and
                  T. Calders, KAIS 2012)
thresholds        fairlearn's ThresholdOptimizer, equalized odds, on the classifier's scores; its answers are
                  drawn by chance, so that its AUCs are those of their probabilities
LEACE             the identity erased from the first layer's features (N. Belrose et al., arXiv:2306.03819)
rledit            the edit of the command's default
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from rledit.data import IDENTITY_TERMS
from rledit.debiasing import DebiasConfig
from rledit.debiasing.classifier import BagOfWords, train_or_load
from rledit.debiasing.data import DebiasData
from rledit.debiasing.evaluation import evaluate, margins_of, ranks_of, tally_margins
from rledit.debiasing.task import make_task, make_trainer
from rledit.fairness import Debias
from rledit.runs.training import supervised_bar
from rledit.samples import Samples

from .debias import FIGURES
from .record import write

RATES = (3e-4, 1e-3, 3e-3)
EPOCHS = (1, 3, 10)

Margins = Callable[[str], Tensor]
"""From the name of a split."""


class Problem:
    """One classifier and the splits, encoded."""

    def __init__(self, config: DebiasConfig, data_root: Path | None, console: Console) -> None:
        self.config = config
        self.data = DebiasData(config, data_root)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.safetensors"
            classifier, _ = train_or_load(
                config, self.data, path, lambda: supervised_bar("training", console)
            )
        assert isinstance(classifier, BagOfWords)
        self.classifier = classifier
        self.model = classifier.model
        self.splits = {
            name: split.samples(classifier.encode, self.data.identities)
            for name, split in self.data.splits.items()
            if name != "test"
        }
        self.inputs = {name: torch.cat(list(s.batches(4096))) for name, s in self.splits.items()}
        texts, samples, _ = self.data.test_sets()["test"]
        self.sets = {
            "reward": (self.data.splits["reward"].both.texts, self.splits["reward"]),
            "validation": (self.data.splits["validation"].both.texts, self.splits["validation"]),
            "test": (texts, samples),
        }
        ranks = ranks_of(self.margins(self.model, "validation"))
        unedited = tally_margins(ranks[None], self.splits["validation"])
        self.objective: Debias = config.objective().relative_to(unedited)

    def margins(self, model: nn.Module, split: str) -> Tensor:
        return margins_of(model.eval(), self.classifier.encode, self.sets[split][0])

    def value(self, margins: Margins) -> float:
        """The objective on the validation split."""
        ranks = ranks_of(margins("validation"))
        return float(self.objective(tally_margins(ranks[None], self.splits["validation"]))[0])


def of_model(problem: Problem, model: nn.Module) -> Margins:
    return lambda split: problem.margins(model, split)


def fine_tune(
    problem: Problem, inputs: Tensor, labels: Tensor, weights: Tensor, layers: tuple[str, ...]
) -> Iterator[tuple[str, Margins]]:
    """Every setting of the grid."""
    for rate, epochs in product(RATES, EPOCHS):
        torch.manual_seed(problem.config.seed)
        model = deepcopy(problem.model).train()
        parameters = [p for name, p in model.named_parameters() if name.split(".")[0] in layers]
        optimizer = torch.optim.AdamW(parameters, lr=rate)
        for _ in range(epochs):
            for index in torch.randperm(len(labels)).split(128):
                loss = F.cross_entropy(model(inputs[index]), labels[index], reduction="none")
                optimizer.zero_grad()
                (loss * weights[index]).mean().backward()
                optimizer.step()
        yield f"rate {rate:g}, {epochs} epochs", of_model(problem, model)


def last_layer(problem: Problem) -> Iterator[tuple[str, Margins]]:
    labels = problem.splits["reward"].labels
    yield from fine_tune(problem, problem.inputs["reward"], labels, torch.ones(len(labels)), ("fc3",))


def reweighing(problem: Problem) -> Iterator[tuple[str, Margins]]:
    samples = problem.splits["reward"]
    weights = torch.zeros(len(samples))
    for name in ("utility", *problem.data.identities):
        for label in (0, 1):
            cell = samples.groups[name] & (samples.labels == label)
            share = 1.0 if name == "utility" else 1.0 / len(problem.data.identities)
            weights[cell] += share / max(1, int(cell.sum()))
    weights *= len(weights) / weights.sum()
    yield from fine_tune(problem, problem.inputs["reward"], samples.labels, weights, ("fc1", "fc2", "fc3"))


def counterfactuals(problem: Problem) -> Iterator[tuple[str, Margins]]:
    terms = [term for names in IDENTITY_TERMS.values() for term in names]
    chance = random.Random(problem.config.seed)
    texts, labels = [], []
    for text, label in zip(problem.data.train.texts, problem.data.train.labels.tolist(), strict=True):
        words = text.lower()
        found = [term for term in terms if f" {term} " in f" {words} "]
        for term in found:
            other = chance.choice(terms)
            texts.append(f" {words} ".replace(f" {term} ", f" {other} "))
            labels.append(label)
    inputs = problem.classifier.encode([*problem.data.train.texts, *texts])
    together = torch.cat([problem.data.train.labels, torch.tensor(labels, dtype=torch.int64)])
    yield from fine_tune(problem, inputs, together, torch.ones(len(together)), ("fc1", "fc2", "fc3"))


def thresholds(problem: Problem) -> Iterator[tuple[str, Margins]]:
    from fairlearn.postprocessing import ThresholdOptimizer

    def feature(samples: Samples) -> np.ndarray[Any, Any]:
        """The first identity group of each sample, -1 for none."""
        out = torch.full((len(samples),), -1)
        for k, name in enumerate(problem.data.identities):
            if name in samples.groups:
                out[samples.groups[name] & (out == -1)] = k
        return out.numpy()

    from sklearn.base import BaseEstimator

    class Scores(BaseEstimator):  # type: ignore[misc]
        """What fairlearn takes for an estimator."""

        fitted_ = True

        def fit(self, *_: Any) -> Scores:
            return self

        def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return x[:, 0]

    reward = problem.splits["reward"]
    optimizer = ThresholdOptimizer(
        estimator=Scores(), constraints="equalized_odds", prefit=True, predict_method="predict"
    )
    scores = problem.margins(problem.model, "reward").double().sigmoid().numpy()
    optimizer.fit(scores[:, None], reward.labels.numpy(), sensitive_features=feature(reward))

    def margins(split: str) -> Tensor:
        x = problem.margins(problem.model, split).double().sigmoid().numpy()
        pmf = optimizer._pmf_predict(x[:, None], sensitive_features=feature(problem.sets[split][1]))
        return torch.from_numpy(pmf[:, 1] - 0.5).float()

    yield "equalized odds", margins


def leace(problem: Problem) -> Iterator[tuple[str, Margins]]:
    from concept_erasure import LeaceEraser

    model = problem.model
    reward = problem.splits["reward"]
    concept = torch.stack([reward.groups[name] for name in problem.data.identities], 1).float()
    with torch.no_grad():
        features = model.relu1(model.fc1(problem.inputs["reward"]))  # type: ignore[operator, union-attr]
        eraser = LeaceEraser.fit(features, concept)

    class Erased(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            hidden = eraser(model.relu1(model.fc1(x)))  # type: ignore[operator, union-attr]
            logits: Tensor = model.fc3(model.relu2(model.fc2(hidden)))  # type: ignore[operator, union-attr]
            return logits

    yield "features of fc1", of_model(problem, Erased())


def rledit_edit(problem: Problem) -> Iterator[tuple[str, Margins]]:
    task = make_task(problem.config, problem.classifier, problem.data)
    trainer = make_trainer(problem.config, task)
    result = trainer.train(candidates=problem.config.candidates)
    edited = deepcopy(problem.model)
    result.edit.apply_(edited)
    trainer.env.close()
    yield f"{', '.join(problem.config.layers)}, {problem.config.world}", of_model(problem, edited)


def untouched(problem: Problem) -> Iterator[tuple[str, Margins]]:
    yield "", of_model(problem, problem.model)


METHODS = {
    "unedited": untouched,
    "rledit": rledit_edit,
    "last layer": last_layer,
    "counterfactuals": counterfactuals,
    "reweighing": reweighing,
    "thresholds": thresholds,
    "LEACE": leace,
}


def main(
    data_root: Path | None = None,
    dataset: tuple[str, ...] = ("jigsaw", "civil"),
    seeds: int = 5,
    candidates: int = 51_200,
    methods: tuple[str, ...] = (),
) -> None:
    """Run the table.

    Args:
        data_root: folder with the comments.
        dataset: what the classifier is trained on.
        seeds: of splits, classifier and method.
        candidates: of rledit.
        methods: some of them; printed, not written.
    """
    console = Console(stderr=True)
    rows = []
    for seed in range(seeds):
        problem = Problem(DebiasConfig(dataset, seed=seed, candidates=candidates), data_root, console)
        for name in methods or METHODS:
            started = time.perf_counter()
            known = [
                (problem.value(margins), setting, margins) for setting, margins in METHODS[name](problem)
            ]
            value, setting, margins = max(known, key=lambda each: each[0])
            test = evaluate(margins("test"), problem.sets["test"][1], problem.data.identities, seed)
            rows.append(
                {"method": name, "seed": seed, "setting": setting, "value": value,
                 "seconds": time.perf_counter() - started, "test": {f: test[f] for f in FIGURES}}
            )  # fmt: skip
            figures = ", ".join(f"{f} {test[f]:.4f}" for f in FIGURES)
            console.print(f"{name} ({setting}), seed {seed}: value {value:.3f}; {figures}", highlight=False)
    table = Table(title="Debiasing, test split, mean over seeds")
    for header in ("method", "value on validation", *FIGURES):
        table.add_column(header)
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        cells = [f"{np.mean([row['test'][f] for row in own]):.4f}" for f in FIGURES]
        table.add_row(name, f"{np.mean([row['value'] for row in own]):.3f}", *cells)
    if methods:
        Console().print(table)
    else:
        note = "The value is that of the objective that rledit maximises, with its budget of half a point."
        write(
            "debias-opponents",
            f"python -m benchmarks.debias_opponents --seeds {seeds}",
            table,
            {"rows": rows},
            note,
        )


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
