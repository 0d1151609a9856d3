"""What any classifier of these words could reach at best.

    python -m benchmarks.debias_ceiling --data-root DIR

Sentences that differ only in words that the vocabulary lacks are one input to the classifier, toxic and
harmless ones alike. Two bounds follow from the test labels:

- Each input scored by its share of toxic sentences: no ranking of inputs has a higher subgroup AUC; a higher
  BPSN AUC takes ranking some groups above others.
- The least FPED among all answers to the inputs, answers by chance included, with which no group's false
  positive or false negative rate rises by more than what is budgeted: a linear program. It knows neither
  utility nor what an edit can do.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import linprog

from rledit.objectives import GroupMetrics
from rledit.objectives.budgets import LEVELS
from rledit.objectives.paired import ranks_of, tally_margins
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.debiasing.classifier import BagOfWords
from rledit.recipes.debiasing.data import DebiasData, load_sets
from rledit.recipes.debiasing.evaluation import margins_of
from rledit.samples import Samples

from .debias import trained
from .record import write

Array = NDArray[np.float64]
RISE = LEVELS["false_positive_rate.worst"]


def main(
    data_root: Path | None = None,
    dataset: tuple[str, ...] = ("jigsaw", "civil"),
    seeds: int = 5,
    vocabularies: tuple[int, ...] = (5_000, DebiasConfig.vocabulary),
) -> None:
    """Run the table.

    Args:
        data_root: folder with the comments.
        dataset: what the vocabulary is made of.
        seeds: how many.
        vocabularies: numbers of words.
    """
    console = Console(stderr=True)
    rows = []
    for seed in range(seeds):
        config = DebiasConfig(dataset, seed=seed)
        data = DebiasData(load_sets(config, data_root), seed)
        for words in vocabularies:
            found = ceiling(replace(config, vocabulary=words), data, console)
            rows.append({"words": words, "seed": seed, **found})
            console.print(rows[-1], highlight=False)
    table = Table(title="The words' bound, test split")
    for header in ("words", "seed", "sentences", "different inputs", "BPSN AUC", "subgroup AUC",
                   "FPED, unedited", "least FPED", "least change"):  # fmt: skip
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(
            f"{row['words']:,}", *(str(row[name]) for name in ("seed", "sentences", "inputs")),
            *(f"{row[name]:.4f}" for name in ("bpsn_auc", "subgroup_auc", "fped", "least_fped")),
            f"{row['least_fped'] / row['fped'] - 1:+.1%}",
        )  # fmt: skip
    means = [
        f"{words:,} words: BPSN AUC {_mean(rows, words, 'bpsn_auc'):.4f}, "
        f"FPED {_mean(rows, words, 'fped'):.2f} to {_mean(rows, words, 'least_fped'):.2f}"
        for words in vocabularies
    ]
    command = f"python -m benchmarks.debias_ceiling --data-root DIR --seeds {seeds}"
    command += f" --vocabularies {' '.join(map(str, vocabularies))}"
    note = (
        "Each input scored by its share of toxic sentences: no subgroup AUC can be higher, and no BPSN AUC "
        "unless some groups are ranked above others. Least FPED: of any answers to the inputs with which no "
        f"group's false positive or false negative rate rises by more than {100 * RISE:g} points. Means: "
        f"{'; '.join(means)}."
    )
    write("debias-ceiling", command, table, {"rows": rows}, note)


def _mean(rows: list[dict[str, Any]], words: int, name: str) -> float:
    return statistics.mean(row[name] for row in rows if row["words"] == words)


def ceiling(config: DebiasConfig, data: DebiasData, console: Console) -> dict[str, float]:
    """The power means of the best score of each input, and FPED before and at best."""
    classifier = trained(config, data, console)
    assert isinstance(classifier, BagOfWords)
    bias = data.splits["test"].bias
    parts = [classifier.encode(bias.texts[i : i + 2048]).char() for i in range(0, len(bias), 2048)]
    _, which = torch.unique(torch.cat(parts), dim=0, return_inverse=True)
    sizes = torch.bincount(which).double()
    toxic = torch.bincount(which, weights=bias.labels.double())
    _, samples, identities = data.test_sets()["test"]
    present = [name for name in identities if name in samples.groups]

    def metrics(scores: torch.Tensor) -> GroupMetrics:
        margins = torch.zeros(len(samples))
        margins[samples.groups["bias"]] = scores.float()
        return GroupMetrics(tally_margins(ranks_of(margins)[None], samples), present, least=20)

    best = metrics((toxic / sizes - 0.5)[which])
    unedited = metrics(margins_of(classifier.model, classifier.encode, bias.texts))
    return {
        "sentences": len(bias),
        "inputs": len(sizes),
        "bpsn_auc": float(best.bpsn_auc[0]),
        "subgroup_auc": float(best.subgroup_auc[0]),
        "fped": float(unedited.fped[0]),
        "least_fped": _least_fped(unedited, samples, which),
    }


def _least_fped(unedited: GroupMetrics, samples: Samples, which: torch.Tensor) -> float:
    """Over answers p in 0..1 of n inputs and g gaps: the least sum of gaps, each at least a group's false
    positive rate less the overall one and at least the opposite."""
    inputs = int(which.max()) + 1
    groups, bias = samples.groups, samples.groups["bias"]
    toxic = samples.labels[bias] == 1

    def rates(mask: torch.Tensor, kind: torch.Tensor) -> Array:
        """Of the sentences of a group and label, the share that is each input [n]."""
        counts = torch.bincount(which[mask[bias] & kind], minlength=inputs).double()
        return (counts / counts.sum()).numpy()

    names, positive = unedited.table("false_positive_rate")
    false = np.stack([rates(groups[name], ~toxic) for name in names])
    gaps = false - rates(bias, ~toxic)
    with_negative, negative = unedited.table("false_negative_rate")
    true = np.stack([rates(groups[name], toxic) for name in with_negative])
    each, none = np.eye(len(names)), np.zeros
    constraints = [
        (gaps, -each, none(len(names))),
        (-gaps, -each, none(len(names))),
        (false, none((len(names), len(names))), positive[0].numpy() + RISE),
        (-true, none((len(true), len(names))), negative[0].numpy() + RISE - 1),
    ]
    solved = linprog(
        np.concatenate([none(inputs), np.ones(len(names))]),
        A_ub=np.vstack([np.hstack([left, right]) for left, right, _ in constraints]),
        b_ub=np.concatenate([bound for _, _, bound in constraints]),
        bounds=[(0, 1)] * inputs + [(0, None)] * len(names),
        method="highs",
    )
    if not solved.success:
        raise RuntimeError(f"linear program: {solved.message}")
    return float(solved.fun)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
