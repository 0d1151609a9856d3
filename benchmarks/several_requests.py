"""Nine classes in turn: forget one class after another, and see whether earlier ones stay forgotten.

    python -m benchmarks.several_requests --data-root DIR                    # MNIST, both worlds, five seeds
    python -m benchmarks.several_requests --dataset mnist5k --seeds 1        # on few images

Each edit is learned on top of those before; classes that were asked for earlier stay in the group to forget.
Recall of every class is read on the test split after each edit, and plays no part in any choice.

What is done lies in a folder, a file for each world and seed, and is not done again.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from rledit.edits import Edit, InTurn, forget_in_turn
from rledit.edits.requests import MOST
from rledit.recipes.unlearning import UnlearningConfig, UnlearningData, make_task, make_trainer
from rledit.samples import Samples
from rledit.storage.files import write_json
from rledit.zoo.data import load

from . import ROOT
from .record import write
from .search_league import network_of

WorldName = Literal["mask", "shift"]

_NOTE = (
    "Each row is an edit on top of those above it. Accuracies in percent on the test split, mean over the "
    "networks and the least favorable one: of the class that the edit was to forget, of the earlier ones "
    "(the one with the highest recall), and the mean over the classes that nobody has asked for, with the "
    f"figure of the unedited network beside it. Came back: classes that were at most {MOST:.0%} after their "
    f"own edit and are above {MOST:.0%} now, over all networks."
)


def main(
    dataset: Literal["mnist", "mnist5k"] = "mnist",
    data_root: Path | None = None,
    requests: tuple[int, ...] = (7, 3, 1, 0, 2, 4, 5, 6, 8),
    worlds: tuple[WorldName, ...] = ("mask", "shift"),
    layer: tuple[str, ...] = (),
    rank: int = 4,
    candidates: int = 12_800,
    seeds: int = 5,
    folder: Path = ROOT / "runs" / "several-requests",
) -> None:
    """Carry out what is missing, and leave a table.

    Args:
        dataset: mnist needs --data-root (or RLEDIT_DATA, or a download).
        data_root: folder with the data set.
        requests: classes in the order in which they are to be forgotten.
        worlds: edit rules.
        layer: modules to edit; by default the data set's.
        rank: of each edit.
        candidates: budget of each edit.
        seeds: how many networks and searches.
        folder: where what is done is kept.
    """
    loaded = load(dataset, data_root)
    console = Console(stderr=True)
    runs = []
    for seed in range(seeds):
        data = UnlearningData(loaded, seed)
        for world in worlds:
            config = UnlearningConfig(
                dataset, requests, layer, world=world, rank=rank, candidates=candidates, seed=seed
            )
            kind = f"{dataset}-{'-'.join(map(str, requests))}-{','.join(config.layers)}-{rank}-{candidates}"
            path = folder / kind / f"{world}-{seed}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                started = time.perf_counter()
                done = _in_turn(config, network_of(config, data, folder), data)
                seconds = time.perf_counter() - started
                write_json(path, {"world": world, "seed": seed, "seconds": seconds, **_figures(done)})
                console.print(f"{path.stem}\n{done}", highlight=False)
            runs.append(json.loads(path.read_text()))
    whole = dataset == "mnist" and seeds >= 5 and set(worlds) == {"mask", "shift"} and len(requests) == 9
    command = f"python -m benchmarks.several_requests --dataset {dataset} --seeds {seeds} --rank {rank}"
    command += f" --candidates {candidates} --requests {' '.join(map(str, requests))}"
    command += f" --worlds {' '.join(worlds)}" + (f" --layer {' '.join(layer)}" if layer else "")
    tables = [_table(world, [run for run in runs if run["world"] == world]) for world in worlds]
    name = f"several-requests-{dataset}" + ("" if whole else "-partial")
    write(name, command, tables[0], {"runs": runs}, _NOTE, *tables[1:])


def _in_turn(config: UnlearningConfig, model: nn.Module, data: UnlearningData) -> InTurn:
    """The config's classes, one after another."""

    def make_edit(edited: nn.Module, classes: tuple[int, ...]) -> Edit:
        asked = replace(config, forget=classes)
        return make_trainer(asked, make_task(asked, edited, data)).train(asked.candidates).edit

    everyone = {"all": torch.ones(len(data.test), dtype=torch.bool)}
    test = Samples(data.inputs(data.test), data.test.labels, everyone)
    return forget_in_turn(model, config.forget, make_edit, test)


def _figures(done: InTurn) -> dict[str, Any]:
    return {
        "requests": list(done.requests),
        "classes": list(done.classes),
        "recall": done.recall.tolist(),
        "retained": done.retained(),
        "not_forgotten": done.not_forgotten(),
        "came_back": done.came_back(),
    }


def _table(world: str, runs: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Classes forgotten one after another: {world}, {len(runs)} networks")
    for column in (
        "edit",
        "its class",
        "worst",
        "earlier",
        "worst",
        "others",
        "worst",
        "unedited",
        "came back",
    ):
        table.add_column(column, justify="left" if column in ("edit", "came back") else "right")
    requests, classes = runs[0]["requests"], runs[0]["classes"]
    for place, label in enumerate(requests, 1):
        own, earlier, others, unedited = [], [], [], []
        for run in runs:
            recall = dict(zip(classes, run["recall"][place], strict=True))
            before = dict(zip(classes, run["recall"][0], strict=True))
            left = [c for c in classes if c not in requests[:place]]
            own.append(recall[label])
            earlier.append(max((recall[c] for c in requests[: place - 1]), default=0.0))
            others.append(run["retained"][place])
            unedited.append(sum(before[c] for c in left) / len(left))
        back = sorted({label for run in runs for done, label, _ in run["came_back"] if done == place})
        table.add_row(
            f"forget {label}",
            *(_percent(own), f"{max(own):.2%}", _percent(earlier), f"{max(earlier):.2%}"),
            *(_percent(others), f"{min(others):.2%}", _percent(unedited)),
            ", ".join(map(str, back)) or "none",
        )
    return table


def _percent(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2%}"


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
