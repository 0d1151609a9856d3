"""How far any edit of the last layer could go: the best one by the test split itself.

    python -m benchmarks.debias_limit --data-root DIR

The two logits of the bag-of-words network differ by one vector of 16 weights, so every edit of its last
layer, of either world and any rank, comes down to a change of these 16 numbers. The cross-entropy method (R.
Y. Rubinstein, 1999) searches them with the test split as the objective: BPSN AUC, as long as utility AUC and
accuracy lose no more than the whole budget there. That is not the result of an edit but a bound on all of
them, as far as the search finds it."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

import rledit
from rledit.objectives import Debias
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.debiasing.data import DebiasData, Split, load_sets

from .debias import trained
from .record import write

SENTENCES = 12_000
POPULATION, ELITE = 512, 51


def main(
    data_root: Path | None = None,
    dataset: tuple[str, ...] = ("jigsaw", "civil"),
    seeds: int = 5,
    generations: int = 150,
) -> None:
    """Run the table.

    Args:
        data_root: folder with the comments.
        dataset: what the classifier is trained on.
        seeds: how many seeds of splits and classifier.
        generations: how many generations the search has.
    """
    console = Console(stderr=True)
    table = Table(title="The last layer's bound, by the test split itself")
    table.add_column("seed")
    for header in ("BPSN before", "best", "relative", "change of utility AUC", "of accuracy"):
        table.add_column(header, justify="right")
    rows = []
    for seed in range(seeds):
        row = _search(DebiasConfig(dataset, seed=seed, layer=("fc3",)), data_root, generations, console)
        rows.append({"seed": seed, **row})
        table.add_row(
            str(seed), f"{row['before']:.4f}", f"{row['best']:.4f}",
            f"{row['best'] / row['before'] - 1:+.1%}", f"{row['auc']:+.4f}", f"{row['accuracy']:+.4f}",
        )  # fmt: skip
    mean = statistics.mean(row["best"] for row in rows) / statistics.mean(row["before"] for row in rows) - 1
    note = f"Relative change of the mean over seeds: {mean:+.1%}."
    write("debias-limit", f"python -m benchmarks.debias_limit --data-root DIR --seeds {seeds}", table,
          {"rows": rows, "relative": mean}, note)  # fmt: skip
    print(note)


def _search(
    config: DebiasConfig, data_root: Path | None, generations: int, console: Console
) -> dict[str, float]:
    data = DebiasData(load_sets(config, data_root), config.seed)
    classifier = trained(config, data, console)
    random = torch.Generator().manual_seed(config.seed)
    test = data.splits["test"]
    some = torch.randperm(len(test.bias), generator=random)[:SENTENCES].sort().values
    samples = Split(test.utility, test.bias.subset(some)).samples(classifier.encode, data.identities)
    objective = Debias(bias={"bpsn_auc": 1.0}, budget=config.objective().budget, reserve=0.0, penalty=1000.0)
    scorer = rledit.Task(classifier.model, ["fc3"], samples, objective).scorer()
    weight = classifier.model.get_submodule("fc3").weight.detach()
    mean, deviation = torch.zeros(16), torch.full((16,), 0.3 * float((weight[1] - weight[0]).norm()) / 4)
    left = torch.tensor([[-0.5], [0.5]]).expand(POPULATION, 2, 1).contiguous()
    best = {"value": 0.0}
    for _ in range(generations):
        right = mean + deviation * torch.randn(POPULATION, 16, generator=random)
        right[0] = mean
        tally = scorer.score({"fc3": (left, right[:, None].contiguous())}, "shift")
        values = scorer.objective(tally)
        order = values.argsort(descending=True)
        if float(values[order[0]]) > best["value"]:
            metrics = scorer.objective.metrics(tally)
            best = {name: float(metric[order[0]]) for name, metric in metrics.items()}
            best["value"] = float(values[order[0]])
        elite = right[order[:ELITE]]
        mean, deviation = 0.7 * elite.mean(0) + 0.3 * mean, 0.7 * elite.std(0) + 0.3 * deviation
    before = {name: float(metric[0]) for name, metric in scorer.objective.metrics(scorer.score({})).items()}
    best = before | best
    return {
        "before": before["bpsn_auc"],
        "best": best["bpsn_auc"],
        "auc": best["utility_auc"] - before["utility_auc"],
        "accuracy": best["utility_accuracy"] - before["utility_accuracy"],
    }


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
