"""One setting at a time: what the edit of a class depends on, in both worlds.

    python -m benchmarks.ablations --data-root DIR                           # MNIST class 7, five seeds
    python -m benchmarks.ablations --dataset mnist5k --seeds 1 --only rank   # one of them, on few images

Everything else stays at the package's defaults (rank 4, episodes of one step, 128 candidates per update) and
a budget of 6,400 candidates. Each seed has a network of its own. The edit is chosen on the validation split;
the test images are read once per edit and play no part in any choice.

Finished runs are kept in a folder, one file each, and are not repeated.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

import rledit
from rledit.recipes.unlearning.config import UnlearningConfig
from rledit.recipes.unlearning.data import UnlearningData, evaluate
from rledit.storage.files import write_json
from rledit.worlds import WORLDS
from rledit.zoo.data import load

from . import ROOT
from .record import RESULTS, write
from .search_league import network_of


@dataclass(frozen=True)
class Ablation:
    """One setting that is varied.

    Attributes:
        title: title of its figure.
        values: what it takes, the default among them.
        default: which of them is the package's.
        setting: its name, if several ablations vary it.
        besides: what else differs from the package's defaults.
    """

    title: str
    values: tuple[Any, ...]
    default: Any
    setting: str = ""
    besides: Mapping[str, Any] = field(default_factory=dict)


ABLATIONS = {
    "length": Ablation("steps of an episode", (1, 2, 5, 10), 1),
    "rank": Ablation("rank (32: full)", (1, 2, 4, 8, 16, 32), 4),
    "forget_weight": Ablation("weight of forget accuracy", (0.25, 0.5, 1.0, 2.0, 4.0), 1.0),
    "scale": Ablation("scale of the edit", (0.1, 0.3, 1.0, 3.0, 10.0), 1.0),
    "scale_of_ten": Ablation(
        "scale, episodes of 10 steps", (0.1, 0.3, 1.0, 3.0, 10.0), 1.0, "scale", {"length": 10}
    ),
    "samples": Ablation("images of the reward split", (200, 600, 2000, 6000), 6000),
    "population": Ablation("candidates per update", (32, 64, 128, 256, 512), 128),
    "observation": Ablation("what the policy sees", ("weights", "neurons", "none"), "weights"),
}


def main(
    dataset: Literal["mnist", "mnist5k"] = "mnist",
    data_root: Path | None = None,
    label: int = 7,
    seeds: int = 5,
    candidates: int = 6_400,
    only: tuple[str, ...] = tuple(ABLATIONS),
    folder: Path = ROOT / "runs" / "ablations",
) -> None:
    """Run the ablations, or what is missing of them, and leave tables and a figure.

    Args:
        dataset: mnist needs --data-root (or RLEDIT_DATA, or a download).
        data_root: folder with the data set.
        label: the class to forget.
        seeds: how many networks and searches.
        candidates: budget of each search.
        only: settings to vary.
        folder: where what is done is kept.
    """
    if unknown := [each for each in only if each not in ABLATIONS]:
        raise SystemExit(f"only: expected some of {', '.join(ABLATIONS)}; got {', '.join(unknown)}")
    console = Console(stderr=True)
    loaded = load(dataset, data_root)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        data = UnlearningData(loaded, seed)
        config = UnlearningConfig(dataset, (label,), seed=seed)
        network = network_of(config, data, folder)
        for world in ("mask", "shift"):
            for name in only:
                varied = ABLATIONS[name]
                for value in varied.values:
                    path = folder / f"{dataset}-{label}-{candidates}" / f"{world}-{name}-{value}-{seed}.json"
                    if not path.exists():
                        path.parent.mkdir(parents=True, exist_ok=True)
                        settings = {**varied.besides, varied.setting or name: value}
                        row = _run(config, data, network, world, settings, candidates)
                        write_json(path, {"ablation": name, "value": value, "seed": seed, **row})
                        console.print(path.stem, f"{row['seconds']:.1f} s", highlight=False)
                    rows.append(json.loads(path.read_text()))
    whole = dataset == "mnist" and seeds >= 5 and set(only) == set(ABLATIONS)
    name = f"ablations-{dataset}" + ("" if whole else "-partial")
    command = f"python -m benchmarks.ablations --dataset {dataset} --label {label} --seeds {seeds}"
    RESULTS.mkdir(exist_ok=True)
    _draw(rows, only, RESULTS / f"{name}.png")
    _report(rows, only, name, f"{command} --candidates {candidates} --only {' '.join(only)}", candidates)


def _run(
    config: UnlearningConfig,
    data: UnlearningData,
    network: nn.Module,
    world: str,
    setting: Mapping[str, Any],
    candidates: int,
) -> dict[str, Any]:
    """Search with some settings changed; accuracies of the edit on validation and test."""
    samples = data.samples(data.reward, config.forget)
    if "samples" in setting:  # every prefix of the split is stratified
        fewer = data.reward.subset(torch.arange(min(setting["samples"], len(data.reward))))
        samples = data.samples(fewer, config.forget)
    task = rledit.Task(
        network,
        targets=config.layers,
        samples=samples,
        objective=rledit.Unlearning(forget_weight=setting.get("forget_weight", 1.0)),
        validation=data.samples(data.validation, config.forget),
    )
    observation = setting.get("observation", "auto")
    env = WORLDS[world](
        task,
        num_envs=setting.get("population", 128),
        rank=setting.get("rank", 4),
        episode_length=setting.get("length", 1),
        scale=setting.get("scale", 1.0),
        observation="auto" if observation == "none" else observation,
        final_obs=False,
    )
    policy = "parameters" if observation == "none" else "gaussian"
    started, cpu = time.perf_counter(), time.process_time()
    search = rledit.PPO(env, seed=config.seed, policy=policy)
    result = search.train(candidates)
    search.close()
    took = time.perf_counter() - started, time.process_time() - cpu
    edited = deepcopy(network)
    result.edit.apply_(edited)
    test = evaluate(edited, data, config.forget, audits=())
    validation = result.edit.metrics["validation"]
    assert isinstance(validation, dict)
    return {
        "world": world,
        "forget": test["forget_accuracy"],
        "retain": test["retain_accuracy"],
        "validation": validation["after"],
        "candidates": result.candidates,
        "seconds": took[0],
        "cpu_seconds": took[1],
        "curve": [(row["candidates"], row["reward_mean"]) for row in result.history],
    }


def _cells(rows: Sequence[dict[str, Any]], name: str, world: str) -> list[list[dict[str, Any]]]:
    """The runs of each value."""
    return [
        [row for row in rows if (row["ablation"], row["world"], row["value"]) == (name, world, value)]
        for value in ABLATIONS[name].values
    ]


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _draw(rows: Sequence[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    """Retain accuracy and below it forget accuracy over each setting, mean and one standard deviation."""
    columns = min(4, len(names))
    rows_of_figures = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 5.2 * rows_of_figures), layout="constrained")
    grid = figure.subplots(2 * rows_of_figures, columns, squeeze=False)
    for axis in grid[:, len(names) % columns or columns :][-2:].flat:
        axis.set_axis_off()
    for i, name in enumerate(names):
        row, column = 2 * (i // columns), i % columns
        values = [str(value) for value in ABLATIONS[name].values]
        for axis, group in zip(grid[row : row + 2, column], ("retain", "forget"), strict=True):
            for world, color in (("mask", "C0"), ("shift", "C3")):
                cells = _cells(rows, name, world)
                spreads = [_spread([100 * run[group] for run in cell]) for cell in cells]
                axis.errorbar(
                    values,
                    [mean for mean, _ in spreads],
                    yerr=[deviation for _, deviation in spreads],
                    color=color,
                    marker="o",
                    capsize=3,
                    label=world,
                )
            axis.grid(alpha=0.3)
            axis.set_ylabel(f"{group} accuracy (%)" if column == 0 else "")
        grid[row + 1, column].set_xlabel(ABLATIONS[name].title)
    grid[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _report(
    rows: list[dict[str, Any]], names: Sequence[str], name: str, command: str, candidates: int
) -> None:
    table = Table(title=f"Ablations: one setting at a time, test split, {candidates:,} candidates")
    for header in ("setting", "value", "world"):
        table.add_column(header)
    for header in ("forget", "retain", "retain of the worst seed", "CPU seconds"):
        table.add_column(header, justify="right")
    for each in names:
        for world in ("mask", "shift"):
            for value, cell in zip(ABLATIONS[each].values, _cells(rows, each, world), strict=True):
                mark = " (default)" if value == ABLATIONS[each].default else ""
                spreads = [_spread([100 * row[group] for row in cell]) for group in ("forget", "retain")]
                table.add_row(
                    ABLATIONS[each].title, f"{value}{mark}", world,
                    *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in spreads),
                    f"{100 * min(row['retain'] for row in cell):.2f}",
                    f"{statistics.median(row['cpu_seconds'] for row in cell):.1f}",
                )  # fmt: skip
    note = (
        "Accuracies in percent, mean and standard deviation over seeds, each with a network of its own. "
        "Seconds: medians of CPU time, since runs may share the machine."
    )
    write(name, command, table, {"rows": rows}, note)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(tyro.cli(main))
