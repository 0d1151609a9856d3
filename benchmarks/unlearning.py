"""Forgetting digits: every class, both worlds, five seeds, against retraining from scratch.

    python -m benchmarks.unlearning --data-root DIR            # class 7, seeds 0 to 4; every class, seed 0
    python -m benchmarks.unlearning --dataset mnist5k --seeds 1 --no-all-classes

Every run pretrains its own network from its seed (shared by the runs of that seed), learns an edit from the
reward split, picks it on the validation split and reads the 10,000 test images once.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from rledit.recipes.unlearning import WORLDS, UnlearningConfig, run

from . import ROOT
from .record import write

FIGURES = {"forget": "forget", "retain": "retain", "probe": "forget_probe"}


def main(
    dataset: Literal["mnist", "mnist5k"] = "mnist",
    data_root: Path | None = None,
    forget: int = 7,
    seeds: int = 5,
    all_classes: bool = True,
    name: str = "",
) -> None:
    """Run the table.

    Args:
        dataset: mnist needs --data-root (or RLEDIT_DATA, or a download).
        data_root: folder with the data set.
        forget: the class that gets all seeds and the retrain rows.
        seeds: how many.
        all_classes: every other class too, with seed 0.
        name: name of the results files; by default unlearning-DATASET.
    """
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            weights = ""
            classes = [forget]
            if all_classes and seed == 0:
                classes += [c for c in range(10) if c != forget]
            for label in classes:
                for world in WORLDS:
                    config = UnlearningConfig(dataset, (label,), world=world, seed=seed, weights=weights)  # type: ignore[arg-type]
                    out = Path(scratch) / f"{seed}-{label}-{world}"
                    first = not weights  # trains the seed's network, and retrains it to compare with
                    metrics = run(
                        config, out, data_root=data_root, with_retrain=first, console=console
                    ).metrics
                    rows.append(_row(world, label, seed, metrics))
                    if not first:
                        continue
                    weights = str(out / "model.safetensors")
                    rows.append(_retrain_row(label, seed, metrics["baselines"]["retrain"]))
                    if seed == 0 and seeds == 5 and all_classes:
                        _keep_pictures(out / "plots", dataset)

    table = Table(title=f"Forgetting digits ({dataset}, test split, rank 4, 12,800 candidates)")
    for header in ("method", "class", "seed"):
        table.add_column(header)
    for header in ("forget", "retain", "probe", "before: forget", "retain", "probe", "seconds"):
        table.add_column(header, justify="right")
    for row in sorted(rows, key=lambda r: (r["class"] != forget, r["class"], r["method"], r["seed"])):
        before = [_percent(row["before"][k]) if row["before"] else "" for k in FIGURES]
        table.add_row(
            row["method"], str(row["class"]), str(row["seed"]),
            *(_percent(row[k]) for k in FIGURES), *before, f"{row['seconds']:.1f}",
        )  # fmt: skip
    asked = {"--dataset": dataset, "--forget": forget, "--seeds": seeds}
    command = " ".join(["python -m benchmarks.unlearning", *(f"{k} {v}" for k, v in asked.items())])
    command += " --all-classes" if all_classes else " --no-all-classes"
    whole = seeds == 5 and all_classes and forget == 7
    edits = [row for row in rows if row["method"] != "retrain"]
    main_edits = [row for row in edits if row["class"] == forget]
    worst = {
        "main": _worst(main_edits),
        "all": _worst(edits),
    }
    note = (
        f"Worst of the {len(main_edits)} runs of class {forget}: forget {_percent(worst['main'][0])}, retain "
        f"{_percent(worst['main'][1])}. Worst of all {len(edits)} edits: forget {_percent(worst['all'][0])}, "
        f"retain {_percent(worst['all'][1])}. Probe: what a linear classifier on "
        "the last features still recalls of the class. Seconds are those of editing, or of retraining."
    )
    write(
        name or f"unlearning-{dataset}{'' if whole else '-partial'}",
        command,
        table,
        {"rows": rows, "worst": worst},
        note,
    )
    print(note)


def _keep_pictures(plots: Path, dataset: str) -> None:
    """The README's pictures: those of the first run."""
    target = ROOT / "docs" / "images"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("learning_accuracy", "per_class_accuracy"):
        shutil.copy(plots / f"{name}.png", target / f"{dataset}_{name}.png")


def _worst(rows: list[dict[str, Any]]) -> tuple[float, float]:
    return max(row["forget"] for row in rows), min(row["retain"] for row in rows)


def _row(world: str, label: int, seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    before, after = metrics["test"]["before"], metrics["test"]["after"]
    return {
        "method": world,
        "class": label,
        "seed": seed,
        **_figures(after),
        "before": _figures(before),
        "seconds": metrics["seconds"]["edit"],
        "origin": metrics["origin"],
        "stopped": metrics["stopped"],
    }


def _retrain_row(label: int, seed: int, baseline: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": "retrain",
        "class": label,
        "seed": seed,
        **_figures(baseline["test"]),
        "before": {},
        "seconds": baseline["seconds"],
    }


def _figures(test: dict[str, Any]) -> dict[str, float]:
    return {name: test[f"{key}_accuracy"] for name, key in FIGURES.items()}


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
