"""Forget classes of a data set one after another, and see whether earlier ones stay forgotten.

Each edit is learned on top of those before; classes that were asked for earlier stay in the group that is to
be forgotten. Prints recall of every class on the test split after each edit, then says of each edit which
later ones were learned on weights that included it.

    python benchmarks/several_requests.py --dataset mnist --data-root DIR
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rledit.edits import Edit, InTurn, forget_in_turn
from rledit.recipes.unlearning import UnlearningConfig, UnlearningData, make_task, make_trainer
from rledit.recipes.unlearning.run import load_weights, pretrain
from rledit.samples import Samples
from rledit.storage import write_json
from rledit.zoo import models
from rledit.zoo.data import load


def in_turn(config: UnlearningConfig, model: nn.Module, data: UnlearningData) -> InTurn:
    """Forget the config's classes one after another."""

    def make_edit(edited: nn.Module, classes: tuple[int, ...]) -> Edit:
        asked = replace(config, forget=classes)
        started = time.perf_counter()
        edit = make_trainer(asked, make_task(asked, edited, data)).train(asked.candidates).edit
        print(f"forget {classes[-1]}: {time.perf_counter() - started:.1f} s", flush=True)
        return edit

    everyone = {"all": torch.ones(len(data.test), dtype=torch.bool)}
    test = Samples(data.inputs(data.test), data.test.labels, everyone)
    return forget_in_turn(model, config.forget, make_edit, test)


def figures(done: InTurn) -> dict[str, Any]:
    return {
        "requests": list(done.requests),
        "recall": done.recall.tolist(),
        "retained": done.retained(),
        "not_forgotten": done.not_forgotten(),
        "came_back": done.came_back(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--dataset", choices=("mnist", "mnist5k", "cifar10"), default="mnist5k")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--weights", type=Path, help="of the network; by default it is trained first")
    parser.add_argument("--requests", type=int, nargs="+", default=[7, 3, 1, 0, 2, 4, 5, 6, 8])
    parser.add_argument("--world", choices=("mask", "shift"), default="mask")
    parser.add_argument("--layer", nargs="+", default=[])
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=12_800)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    asked = parser.parse_args()
    runs = []
    for seed in range(asked.seeds):
        config = UnlearningConfig(
            dataset=asked.dataset,
            forget=tuple(asked.requests),
            layer=tuple(asked.layer),
            world=asked.world,
            rank=asked.rank,
            candidates=asked.candidates,
            seed=seed,
        )
        data = UnlearningData(load(config.dataset, asked.data_root), seed)
        if asked.weights:
            model = load_weights(models.build(config.model_name), asked.weights)
        else:
            model = pretrain(config, data, lambda *_: None)
        done = in_turn(config, model, data)
        print(f"seed {seed}\n{done}")
        for name in done.ledger.names:
            displaced = done.ledger.removal(name, model).displaced
            print(f"without {name}: learned on it were {', '.join(displaced) or 'none'}")
        runs.append({"seed": seed, **figures(done)})
    if asked.out:
        settings = {
            key: value for key, value in vars(asked).items() if key not in ("out", "data_root", "weights")
        }
        write_json(asked.out, {"settings": settings, "runs": runs})


if __name__ == "__main__":
    main()
