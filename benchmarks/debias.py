"""Debiasing a toxicity classifier: layers, worlds and seeds, on Jigsaw and Civil Comments.

    python -m benchmarks.debias --data-root DIR                 # bag of words, every setting, seeds 0 to 4
    python -m benchmarks.debias --data-root DIR --encoder DIR   # also a head on a sentence encoder

Every seed has its own splits and its own classifier, shared by the settings of that seed. The edit is learned
on the reward split, picked on the validation split, and read once on the test split, on sentence templates
that neither has seen, and on ToxiGen.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from rledit.experiments.training import supervised_bar
from rledit.objectives.metric_names import label
from rledit.ppo import Result
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.debiasing.changes import RATES
from rledit.recipes.debiasing.classifier import Classifier, train_or_load
from rledit.recipes.debiasing.data import DebiasData, load_sets
from rledit.recipes.debiasing.layers import choose_layers
from rledit.recipes.debiasing.run import measure
from rledit.recipes.debiasing.task import editing_samples, make_task, make_trainer
from rledit.samples import Samples

from .record import write

SETTINGS: dict[str, dict[str, Any]] = {
    "16x2, mask": {"layer": ("fc3",), "world": "mask"},
    "16x2, shift": {"layer": ("fc3",), "world": "shift"},
    "64x16, mask": {"layer": ("fc2",), "world": "mask"},
    "64x16, shift": {"layer": ("fc2",), "world": "shift"},
    "first layer, shift": {"layer": ("fc1",), "world": "shift"},
    "default": {},
}
ENCODER: dict[str, dict[str, Any]] = {
    "encoder head, mask": {"layer": ("head.fc1",), "world": "mask"},
    "encoder head, shift": {"layer": ("head.fc1",), "world": "shift"},
    "encoder, default": {},
}
FIGURES = (
    *("utility_auc", "accuracy", "bpsn_auc", "subgroup_auc", "bnsp_auc", "fped", "fned"),
    *RATES,
)


def main(
    data_root: Path | None = None,
    dataset: tuple[str, ...] = ("jigsaw", "civil"),
    encoder: str = "",
    seeds: int = 5,
    settings: Sequence[str] = (),
    candidates: int = 51_200,
    search: Literal["ppo", "es", "gradient", "sep-cma", "hill-climbing"] = "ppo",
    vocabulary: int = DebiasConfig.vocabulary,
    name: str = "",
) -> None:
    """Run the table.

    Args:
        data_root: folder with the comments.
        dataset: what the classifier is trained on.
        encoder: a Hugging Face encoder's folder.
        seeds: how many.
        settings: some of them, by name; only printed, unless there is a ``name``.
        candidates: candidates for each edit.
        search: how edits are searched.
        vocabulary: words that the bag of words knows.
        name: of the files with results; by default debias.
    """
    console = Console(stderr=True)
    known = {**SETTINGS, **(ENCODER if encoder else {})}
    chosen = {name: known[name] for name in settings} if settings else known
    rows = []
    for seed in range(seeds):
        for title, setting in chosen.items():
            model = "encoder" if title.startswith("encoder") else "bag-of-words"
            folder = encoder if model == "encoder" else ""
            config = DebiasConfig(
                dataset,
                seed=seed,
                candidates=candidates,
                search=search,
                vocabulary=vocabulary,
                model=model,
                encoder=folder,
                **setting,
            )
            rows.append({"setting": title, "seed": seed, **_run(config, data_root, console)})
            console.print(_line(rows[-1]), highlight=False)
    table = _table(rows)
    note = (
        "Mean and standard deviation over seeds; in brackets before the edit. AUCs of groups are power "
        "means, p = -5, over the identity groups of madlibs' seen templates; unseen: on the templates held "
        "out. ToxiGen gap: largest less smallest AUC within a group. Default: layers are tried first. "
        "Worst rise: of the group whose rate rose most, in points, mean over seeds and the largest. No "
        "edit: seeds on which nothing was found that keeps all budgets by its bound. Seconds: median, of "
        "editing."
    )
    if settings and not name:
        Console().print(table)
    else:
        command = f"python -m benchmarks.debias --data-root DIR --seeds {seeds} --candidates {candidates}"
        command += f" --search {search} --vocabulary {vocabulary}" + (" --encoder DIR" if encoder else "")
        command += f" --settings {' '.join(map(repr, settings))}" if settings else ""
        command += f" --name {name}" if name else ""
        write(name or "debias", command, table, {"rows": rows}, note)
        print(note)


def trained(config: DebiasConfig, data: DebiasData, console: Console) -> Classifier:
    """The classifier of a run, kept nowhere."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.safetensors"
        classifier, _ = train_or_load(config, data, path, lambda: supervised_bar("training", console))
    return classifier


def edit(
    config: DebiasConfig, classifier: Classifier, samples: Mapping[str, Samples], console: Console
) -> tuple[tuple[str, ...], Result]:
    """The layers and the edit of a run, kept nowhere."""
    with tempfile.TemporaryDirectory() as scratch:
        config, _ = choose_layers(config, classifier, samples, Path(scratch) / "layers.json", console)
    trainer = make_trainer(config, make_task(config, classifier, samples))
    result = trainer.train(candidates=config.candidates)
    trainer.env.close()
    return config.layer, result


_CACHE: dict[Any, Any] = {}


def _run(config: DebiasConfig, data_root: Path | None, console: Console) -> dict[str, Any]:
    key = (config.dataset, config.seed, config.model)
    if key not in _CACHE:
        _CACHE.clear()
        data = DebiasData(load_sets(config, data_root), config.seed)
        _CACHE[key] = data, trained(config, data, console)
    data, classifier = _CACHE[key]
    started = time.perf_counter()
    layer, result = edit(config, classifier, editing_samples(classifier, data), console)
    seconds = time.perf_counter() - started
    edited = deepcopy(classifier.model)
    result.edit.apply_(edited)
    test = measure(classifier, edited, data, config.seed)
    return {"seconds": seconds, "layer": list(layer), "origin": result.origin,
            "test": _slim(test), "validation": result.edit.metrics["validation"]}  # fmt: skip


def _slim(test: dict[str, Any]) -> dict[str, Any]:
    """The figures of all test sets without the groups and intervals of single runs."""
    return figures_of(test) | {"other": {name: figures_of(both) for name, both in test["other"].items()}}


def figures_of(both: Mapping[str, Any]) -> dict[str, Any]:
    """Those of one set before and after an edit, with the gap between groups' AUCs and the worst rises."""
    out = {}
    for when in ("before", "after"):
        groups = both[when]["per_group"].values()
        aucs = [group["subgroup_auc"] for group in groups if "subgroup_auc" in group]
        out[when] = {k: v for k, v in both[when].items() if isinstance(v, float)}
        out[when]["gap"] = max(aucs) - min(aucs)
    changes = both["change"]["per_group"].values()
    out["worst_rise"] = {rate: max(c[rate] for c in changes if rate in c) for rate in RATES}
    return out


def cell(values: Sequence[tuple[float, float]]) -> str:
    """Mean and standard deviation after an edit, and the mean before."""
    before, after = zip(*values, strict=True)
    spread = statistics.stdev(after) if len(after) > 1 else 0.0
    return f"{statistics.mean(after):.4f} ± {spread:.4f} ({statistics.mean(before):.4f})"


def _line(row: dict[str, Any]) -> str:
    before, after = row["test"]["before"], row["test"]["after"]
    changes = ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in FIGURES)
    others = ", ".join(
        f"{name} BPSN {both['before']['bpsn_auc']:.3f} -> {both['after']['bpsn_auc']:.3f}"
        for name, both in row["test"]["other"].items()
    )
    return f"{row['setting']}, seed {row['seed']}, {row['seconds']:.0f} s: {changes}; {others}"


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Debiasing, test split")
    table.add_column("setting")
    rises = [f"worst rise, {label(rate)}" for rate in RATES]
    headers = [*FIGURES, *rises, "BPSN, unseen", "ToxiGen gap", "no edit", "seconds"]
    for header in headers:
        table.add_column(header, justify="right")

    for name in dict.fromkeys(row["setting"] for row in rows):
        tests = [row["test"] for row in rows if row["setting"] == name]
        cells = [cell([(t["before"][f], t["after"][f]) for t in tests]) for f in FIGURES]
        for rate in RATES:
            rose = [100 * t["worst_rise"][rate] for t in tests]
            cells.append(f"{statistics.mean(rose):+.1f} (up to {max(rose):+.1f})")
        for other, figure in (("unseen templates", "bpsn_auc"), ("toxigen", "gap")):
            have = [t["other"][other] for t in tests if other in t["other"]]
            cells.append(cell([(t["before"][figure], t["after"][figure]) for t in have]) if have else "")
        seconds = statistics.median(row["seconds"] for row in rows if row["setting"] == name)
        unedited = sum(row["origin"] == "no edit" for row in rows if row["setting"] == name)
        table.add_row(name, *cells, str(unedited), f"{seconds:.0f}")
    return table


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
