"""A whole unlearning run: data, model, task, training, evaluation, report."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ...edits.edit import Edit
from ...experiments.config import make_trainer, placed
from ...experiments.folder import RunFolder
from ...experiments.history import History
from ...experiments.plots import plots, write_figures
from ...experiments.report import write_report
from ...experiments.training import CHECKPOINT_SECONDS, seconds_of, supervised_bar, train
from ...methods.retrain import retrain
from ...objectives import Unlearning
from ...ppo import Result
from ...runtime import seeded
from ...storage.files import Json, read_tensors, write_json, write_tensors
from ...targets import check_rank, find_targets
from ...task import Task
from ...zoo import models
from ...zoo.data import load
from ...zoo.training import RECIPES, train_classifier
from .config import UnlearningConfig
from .data import UnlearningData, evaluate

logger = logging.getLogger("rledit")


def pretrain(config: UnlearningConfig, data: UnlearningData, progress: Callable[..., None]) -> nn.Module:
    """Train the network that is to be edited, from the config's seed."""
    if config.dataset not in RECIPES:
        raise ValueError(
            f"weights: {config.dataset} has no training recipe here; give --weights with a safetensors file"
        )
    with seeded(config.seed, torch.device("cpu")):
        model = models.build(config.model_name)
    train_classifier(
        model,
        data.inputs(data.train),
        data.train.labels,
        seed=config.seed,
        progress=progress,
        **asdict(RECIPES[config.dataset]),
    )
    return model.eval()


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load a safetensors state dict. Raises ValueError where it does not fit the model."""
    tensors, _ = read_tensors(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"weights: {path} does not fit the model: {error}") from error
    return model.eval()


def make_task(config: UnlearningConfig, model: nn.Module, data: UnlearningData) -> Task:
    return Task(
        placed(config, model),
        targets=config.layers,
        samples=data.samples(data.reward, config.forget),
        objective=Unlearning(),
        validation=data.samples(data.validation, config.forget),
    )


def run(
    config: UnlearningConfig,
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    with_retrain: bool = True,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    baselines: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Carry a run out in a folder and return its metrics (metrics.json).

    Args:
        with_retrain: also train the same network without the forgotten classes, to compare with.
        checkpoint_seconds: time between checkpoints.
        baselines: figures of baselines that are known already, by name.

    Raises:
        ValueError, OSError: see :class:`RunFolder`, :func:`rledit.zoo.data.load`, :class:`rledit.Task`.
    """
    console = console or Console(stderr=True)
    data = UnlearningData(load(config.dataset, data_root), config.seed)
    data.check(config.forget)
    _check(config, with_weights=not resume)  # before the folder is touched
    asked: dict[str, Json] = asdict(config)
    with RunFolder(out, asked, resume=resume, overwrite=overwrite) as folder:
        model, pretrain_seconds = _model(config, data, folder, console)
        task = make_task(config, model, data)
        ppo = make_trainer(config, task)
        console.print(
            f"Editing {', '.join(config.layers)} of {config.model_name}, scored on {len(task.samples):,} "
            f"samples ({ppo.env.episodes.scorer.way})",
            highlight=False,
        )
        started = time.perf_counter()
        result, history = train(
            ppo,
            folder,
            config.candidates,
            tensorboard=tensorboard,
            console=console,
            checkpoint_seconds=checkpoint_seconds,
        )
        metrics = _metrics(config, model, data, result)
        metrics["seconds"] = seconds_of(result, pretrain_seconds, started)
        metrics["baselines"] = {**_known_baselines(folder), **(baselines or {})}
        result.edit.metrics["test"] = metrics["test"]
        result.edit.save(folder.edit)
        _report(config, folder, metrics, history, result.edit, task, data)
        if with_retrain and not result.stopped and "retrain" not in metrics["baselines"]:
            metrics["baselines"]["retrain"] = retrain_baseline(config, data, console)
            _report(config, folder, metrics, history, result.edit, task, data)
        history.close()
        ppo.env.close()
    return metrics


def _check(config: UnlearningConfig, with_weights: bool) -> None:
    """Refuse what can be refused without data or training."""
    with seeded(config.seed, torch.device("cpu")):
        model = models.build(config.model_name)
    for name, target in find_targets(model, config.layers).items():
        outputs, *inputs = target.weight.shape
        check_rank(config.rank, name, outputs, math.prod(inputs))
    if config.weights and with_weights:
        load_weights(model, config.weights)


def _known_baselines(folder: RunFolder) -> dict[str, Any]:
    """Those of a finished run that is resumed: nothing about them has changed."""
    if not folder.metrics.exists():
        return {}
    known: dict[str, Any] = json.loads(folder.metrics.read_text()).get("baselines", {})
    return known


def _model(
    config: UnlearningConfig, data: UnlearningData, folder: RunFolder, console: Console
) -> tuple[nn.Module, float]:
    """The network before the edit, from the folder, from given weights, or trained here and kept."""
    if folder.model.exists():
        _, metadata = read_tensors(folder.model)
        seconds = float(metadata.get("pretrain_seconds", 0.0))
        return load_weights(models.build(config.model_name), folder.model), seconds
    if config.weights:
        model, seconds = load_weights(models.build(config.model_name), config.weights), 0.0
    else:
        started = time.perf_counter()
        with supervised_bar("training the network", console) as progress:
            model = pretrain(config, data, progress)
        seconds = time.perf_counter() - started
    write_tensors(folder.model, model.state_dict(), {"pretrain_seconds": repr(seconds)})
    return model, seconds


def retrain_baseline(config: UnlearningConfig, data: UnlearningData, console: Console) -> dict[str, Any]:
    """Test figures of the same network trained from scratch without the forgotten classes."""
    if config.dataset not in RECIPES:
        logger.warning("No retrain row: %s has no training recipe here.", config.dataset)
        return {}
    started = time.perf_counter()
    with supervised_bar("retraining without the class", console) as progress:
        model = retrain(
            lambda: models.build(config.model_name),
            data.inputs(data.train),
            data.train.labels,
            config.forget,
            seed=config.seed,
            progress=progress,
            **asdict(RECIPES[config.dataset]),
        )
    return {"test": evaluate(model, data, config.forget), "seconds": time.perf_counter() - started}


def _metrics(
    config: UnlearningConfig, model: nn.Module, data: UnlearningData, result: Result
) -> dict[str, Any]:
    edited = deepcopy(model)
    result.edit.apply_(edited)
    return {
        "test": {
            "before": evaluate(model, data, config.forget),
            "after": evaluate(edited, data, config.forget),
        },
        "validation": result.edit.metrics["validation"],
        "candidates": result.candidates,
        "origin": result.origin,
        "stopped": result.stopped,
    }


def _report(
    config: UnlearningConfig,
    folder: RunFolder,
    metrics: dict[str, Any],
    history: History,
    edit: Edit,
    task: Task,
    data: UnlearningData,
) -> None:
    write_json(folder.metrics, metrics)
    weights = {name: weight.cpu() for name, weight in task.weights().items()}
    figures = plots(
        metrics=metrics,
        history=history,
        edit=edit,
        weights=weights,
        classes=data.classes,
        baselines=metrics["baselines"],
    )
    write_figures(folder.plots, figures)
    forgotten = ", ".join(data.classes[label] for label in config.forget)
    write_report(
        folder.report,
        title=f"Forgetting {forgotten} of {config.dataset}: {config.world}, rank {config.rank}",
        config=config.resolved(),
        metrics=metrics,
        history=history,
        edit=edit,
        weights=weights,
        classes=data.classes,
        figures=figures,
    )
