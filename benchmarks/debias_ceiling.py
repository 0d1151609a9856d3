"""What AUCs any classifier of these words could reach at best.

    python -m benchmarks.debias_ceiling --data-root DIR

Sentences that differ only in words that the vocabulary lacks are one input to the classifier, toxic and
harmless ones alike. Here each input is scored by its share of toxic sentences, which only the test labels
tell. No ranking of inputs has a higher subgroup AUC; a higher BPSN AUC takes ranking some groups above
others.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch
import tyro
from rich.table import Table

from rledit.objectives import GroupMetrics
from rledit.objectives.paired import ranks_of, tally_margins
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.debiasing.classifier import BagOfWords
from rledit.recipes.debiasing.data import DebiasData, load_sets

from .record import write


def main(
    data_root: Path | None = None, dataset: tuple[str, ...] = ("jigsaw", "civil"), seeds: int = 5
) -> None:
    """Run the table.

    Args:
        data_root: folder with the comments.
        dataset: what the vocabulary is made of.
        seeds: how many.
    """
    rows = [{"seed": seed, **ceiling(DebiasConfig(dataset, seed=seed), data_root)} for seed in range(seeds)]
    table = Table(title="The words' bound, test split")
    for header in ("seed", "sentences", "different inputs", "BPSN AUC", "subgroup AUC"):
        table.add_column(header, justify="right")
    for row in rows:
        figures = (f"{row[name]:.4f}" for name in ("bpsn_auc", "subgroup_auc"))
        table.add_row(str(row["seed"]), str(row["sentences"]), str(row["inputs"]), *figures)
    mean = statistics.mean(row["bpsn_auc"] for row in rows)
    command = f"python -m benchmarks.debias_ceiling --data-root DIR --seeds {seeds}"
    note = (
        f"Each input scored by its share of toxic sentences: no subgroup AUC can be higher, and no BPSN AUC "
        f"unless some groups are ranked above others. Mean BPSN AUC: {mean:.4f}."
    )
    write("debias-ceiling", command, table, {"rows": rows}, note)


def ceiling(config: DebiasConfig, data_root: Path | None) -> dict[str, float]:
    """The power means of the best score of each input."""
    data = DebiasData(load_sets(config, data_root), config.seed)
    vocabulary = BagOfWords.fit_vocabulary(config, data)
    bias = data.splits["test"].bias
    _, which = torch.unique(vocabulary.encode(bias.texts), dim=0, return_inverse=True)
    sizes = torch.bincount(which).double()
    toxic = torch.bincount(which, weights=bias.labels.double())
    _, samples, identities = data.test_sets()["test"]
    margins = torch.zeros(len(samples))
    margins[samples.groups["bias"]] = (toxic / sizes - 0.5)[which].float()
    present = [name for name in identities if name in samples.groups]
    metrics = GroupMetrics(tally_margins(ranks_of(margins)[None], samples), present)
    return {
        "sentences": len(bias),
        "inputs": len(sizes),
        "bpsn_auc": float(metrics.bpsn_auc[0]),
        "subgroup_auc": float(metrics.subgroup_auc[0]),
    }


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
