"""A whole debiasing run: data, classifier, task, training, evaluation, report."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from ...edits.edit import Edit
from ...experiments.folder import RunFolder
from ...experiments.history import History
from ...experiments.plots import curve, heat_map, write_figures
from ...experiments.report import write_report
from ...experiments.training import CHECKPOINT_SECONDS, seconds_of, supervised_bar, train
from ...storage.files import Json, write_json
from ...task import Task
from .classifier import Classifier, train_or_load
from .config import DebiasConfig
from .data import DebiasData
from .evaluation import evaluate, margins_of
from .figures import RATES, error_rates, front
from .layers import choose_layers, with_trials
from .report import HEADLINE, LIMITS, other_sets, per_group_table, trials_table
from .task import editing_samples, make_task, make_trainer


def run(
    config: DebiasConfig,
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    console: Console | None = None,
) -> dict[str, Any]:
    """Carry a run out in a folder and return its metrics (metrics.json).

    Args:
        checkpoint_seconds: time between checkpoints.

    Raises:
        ValueError, OSError: see :class:`RunFolder`, :func:`rledit.zoo.data.load_comments` and
            :class:`rledit.Task`.
    """
    console = console or Console(stderr=True)
    data = DebiasData(config, data_root)
    asked: dict[str, Json] = asdict(config)
    with RunFolder(out, asked, resume=resume, overwrite=overwrite) as folder:
        bar = partial(supervised_bar, "training the classifier", console)
        classifier, seconds = train_or_load(config, data, folder.model, bar)
        started = time.perf_counter()
        samples = editing_samples(classifier, data)
        config, trials = choose_layers(config, classifier, samples, folder.layers, console)
        task = make_task(config, classifier, samples)
        ppo = make_trainer(config, task)
        config = replace(config, rank=ppo.env.rank)
        console.print(
            f"Editing {', '.join(config.layer)}, scored on {len(task.samples):,} texts and "
            f"{len(data.identities)} identity groups ({ppo.env.episodes.scorer.way})",
            highlight=False,
        )
        result, history = train(
            ppo,
            folder,
            config.candidates,
            tensorboard=tensorboard,
            console=console,
            checkpoint_seconds=checkpoint_seconds,
        )
        result = with_trials(result, trials)
        edited = deepcopy(classifier.model)
        result.edit.apply_(edited)
        metrics: dict[str, Any] = {
            "test": measure(classifier, edited, data, config.seed),
            "validation": result.edit.metrics["validation"],
            "candidates": result.candidates,
            "origin": result.origin,
            "stopped": result.stopped,
            "seconds": seconds_of(result, seconds, started),
            "layer": list(config.layer),
            "layers_tried": trials,
            "front": result.choices,
        }
        result.edit.metrics["test"] = {
            when: {k: v for k, v in metrics["test"][when].items() if isinstance(v, float)}
            for when in ("before", "after")
        }
        result.edit.save(folder.edit)
        _report(config, folder, metrics, history, result.edit, task)
        history.close()
        ppo.env.close()
    return metrics


def measure(classifier: Classifier, edited: nn.Module, data: DebiasData, seed: int) -> dict[str, Any]:
    """Test figures before and after, also on unseen templates and on the transfer sets."""
    figures = {
        name: {
            when: evaluate(margins_of(model, classifier.encode, texts), samples, identities, seed)
            for when, model in (("before", classifier.model), ("after", edited))
        }
        for name, (texts, samples, identities) in data.test_sets().items()
    }
    return {**figures.pop("test"), "other": figures}


def _report(
    config: DebiasConfig, folder: RunFolder, metrics: dict[str, Any], history: History, edit: Edit, task: Task
) -> None:
    write_json(folder.metrics, metrics)
    test = metrics["test"]
    weights = {name: weight.cpu() for name, weight in task.weights().items()}
    drawn = [
        *[error_rates(test, name) for name in RATES],
        front(metrics["front"], metrics["validation"], config.objective().spendable),
        curve(history, "reward"),
        curve(history, "AUC"),
        *[heat_map(name, delta) for name, delta in edit.deltas(weights).items()],
    ]
    figures = [plot for plot in drawn if plot is not None]
    write_figures(folder.plots, figures)
    names = ", ".join(config.layer)
    write_report(
        folder.report,
        title=f"Debiasing {names} on {' and '.join(config.dataset)}: {config.world}, rank {config.rank}",
        config=config.resolved(),
        metrics=metrics,
        history=history,
        edit=edit,
        weights=weights,
        classes=[],
        figures=figures,
        limits=LIMITS,
        headline=HEADLINE,
        sections=[
            trials_table(metrics["layers_tried"], config.layer),
            other_sets(test["other"]),
            per_group_table("Per group", test["before"], test["after"]),
        ],
    )
