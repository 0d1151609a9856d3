"""``rledit compare``: methods side by side, with audits."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.markdown import Markdown

from ..comparison import TaskSource
from ..comparison import compare as run
from ..experiments.console import say, standard_console
from ..methods import Budget


@dataclass(frozen=True)
class CompareConfig:
    """What to compare."""

    task: tuple[str, ...]
    """Data sets (mnist, mnist5k, cifar10), or Python files that define make_task(seed)."""
    out: Path
    """Folder for tables, figures and finished cells. The same command goes on where it was stopped."""
    methods: tuple[str, ...] = ("all",)
    """Methods, or all."""
    seeds: int = 5
    """How many seeds: 0, 1, 2 and so on."""
    forget: tuple[int, ...] = (7,)
    """Classes that a data set's network forgets, each in a comparison of its own."""
    model: str = ""
    """Architecture, where a data set has several."""
    weights: str = ""
    """Safetensors file with the network to edit. Default: it is trained first, from each seed."""
    data_root: str = ""
    """Folder with the data set."""
    candidates: int = 6400
    """Evaluations of each search for an edit."""
    epochs: int | None = None
    """Passes over the data of each method that trains. Default: each method's own."""
    training_epochs: int = 0
    """Epochs of training the network itself. Default: the usual number; fewer for trying things out."""
    train_samples: int = 0
    """Training images that methods are given, of all classes alike. Default: all that there are."""
    audits: Literal["standard", "thorough"] = "standard"
    """Which audits are run on every model."""
    workers: int = 1
    """Processes, each with an equal share of the cores."""


def compare(config: tyro.conf.OmitArgPrefixes[CompareConfig]) -> None:
    """Compare methods of unlearning on the same requests, seeds and audits, and leave tables and figures.

    Ends with status 1 if not a single cell could be measured.

    Args:
        config: what to compare.
    """
    methods = [] if config.methods == ("all",) else list(config.methods)
    tasks = [source for name in config.task for source in _sources(name, config)]
    console = standard_console()
    try:
        rows = run(
            tasks,
            methods,
            seeds=range(config.seeds),
            out=config.out,
            budget=Budget(config.candidates, config.epochs),
            audits=config.audits,
            workers=config.workers,
            console=console,
            command=shlex.join(["rledit", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:
        say(console, f"Finished cells are kept in {config.out}; the same command goes on.")
        raise
    if not rows:
        say(console, "Nothing could be measured, so there is no table.", "red")
        sys.exit(1)
    Console().print(Markdown((config.out / "table.md").read_text(encoding="utf-8")))
    say(console, f"Tables and figures: {config.out}")


def _sources(name: str, config: CompareConfig) -> list[TaskSource]:
    if name.endswith(".py"):
        return [TaskSource(name)]
    return [
        TaskSource(
            name,
            (label,),
            model=config.model,
            weights=config.weights,
            data_root=config.data_root,
            epochs=config.training_epochs,
            train_samples=config.train_samples,
        )
        for label in config.forget
    ]
