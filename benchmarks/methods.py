"""Methods of unlearning side by side, with the same audits: ``rledit compare``, with its circumstances.

    python -m benchmarks.methods --data-root DIR                   # MNIST class 7, all methods, five seeds
    python -m benchmarks.methods --dataset mnist5k --workers 2     # the same on few images, no download
    python -m benchmarks.methods --dataset cifar10 --weights FILE  # ResNet-20

Cells that are measured already are kept in the folder; the same command goes on.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import tyro

from rledit.storage.files import write_json, write_text

from . import ROOT
from .record import RESULTS, circumstances


def main(
    dataset: Literal["mnist", "mnist5k", "cifar10"] = "mnist",
    data_root: str = "",
    weights: str = "",
    forget: tuple[int, ...] = (7,),
    seeds: int = 5,
    candidates: int = 6_400,
    epochs: int | None = None,
    train_samples: int = 0,
    audits: Literal["standard", "thorough"] = "standard",
    workers: int = 1,
    methods: tuple[str, ...] = ("all",),
    name: str = "",
    folder: Path = ROOT / "runs" / "methods",
) -> None:
    """Measure what is missing, and leave a table and a figure in benchmarks/results.

    Args:
        dataset: what the networks are trained on.
        data_root: folder with the data set.
        weights: the network to edit; by default one is trained from each seed.
        forget: the classes, each a task of its own.
        seeds: how many seeds of networks, splits and methods.
        candidates: candidates of each search.
        epochs: epochs of each method that trains; by default each method's own.
        train_samples: training images that methods are given; by default all.
        audits: list of audits.
        workers: processes.
        methods: names of methods.
        name: name of the files with results; by default methods-DATASET.
        folder: where cells are kept.
    """
    out = folder / (f"{dataset}-{candidates}-{audits}" + (f"-{epochs}" if epochs else ""))
    out = out.with_name(out.name + (f"-of-{train_samples}" if train_samples else ""))
    classes = [str(label) for label in forget]
    asked = ["--task", dataset, "--forget", *classes, "--seeds", str(seeds), "--out", str(out)]
    asked += ["--methods", *methods]
    asked += ["--candidates", str(candidates), "--audits", audits, "--workers", str(workers)]
    for option, path in (("--data-root", data_root), ("--weights", weights)):
        asked += [option, str(Path(path).absolute())] if path else []
    asked += ["--epochs", str(epochs)] if epochs else []
    asked += ["--train-samples", str(train_samples)] if train_samples else []
    # The command itself: workers import the program that has started them, and this one is not installed.
    program = [sys.executable, "-c", "from rledit.cli import main; main()", "compare", *asked]
    if status := subprocess.run(program, cwd=ROOT.parent, check=False).returncode:
        sys.exit(status)
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    options = f"--forget {' '.join(map(str, forget))} --seeds {seeds} --workers {workers}"
    more = f"--candidates {candidates} --audits {audits}" + (f" --epochs {epochs}" if epochs else "")
    more += f" --train-samples {train_samples}" if train_samples else ""
    more += f" --methods {' '.join(methods)}" if methods != ("all",) else ""
    more += f" --name {name}" if name else ""
    command = f"python -m benchmarks.methods --dataset {dataset} {options} {more}"
    where = circumstances(command)
    RESULTS.mkdir(exist_ok=True)
    name = name or f"methods-{dataset}"
    write_json(RESULTS / f"{name}.json", {**where, "rows": rows})
    text = (
        f"# Methods of unlearning on {dataset}\n\n`{command}`, {where['date']}, commit {where['commit']}, "
        f"{where['machine']}, torch {where['versions']['torch']}. Seconds are of {workers} processes side by "
        f"side, each with an equal share of the cores.\n\n![fronts]({name}.png)\n\n"
        + (out / "table.md").read_text()
    )
    text = text.replace(str(out), "OUT")  # paths are this machine's
    if data_root:
        text = text.replace(str(Path(data_root).absolute()), "DIR")
    write_text(RESULTS / f"{name}.md", text)
    shutil.copy(out / "fronts.png", RESULTS / f"{name}.png")


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
