"""A whole unlearning run: data, model, task, training, evaluation, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from .. import models
from ..baselines import retrain
from ..data import Dataset, LabelledImages, load, split
from ..edit import Edit
from ..files import Json, read_tensors, write_json, write_tensors
from ..objectives import Unlearning
from ..ppo import PPO, PPOConfig, Result
from ..samples import Samples, forget_groups
from ..task import Task
from ..training import RECIPES, per_class_accuracy, seeded, train_classifier
from ..worlds import MaskWorld, ShiftWorld, World
from .folder import RunFolder
from .history import History
from .plots import plots, write_figures
from .report import write_report
from .training import CHECKPOINT_SECONDS, train

logger = logging.getLogger("rledit")

WORLDS: dict[str, type[World]] = {"mask": MaskWorld, "shift": ShiftWorld}


@dataclass(frozen=True)
class Defaults:
    """What a data set's run takes where the user does not say.

    ``validation`` images are held out of the model's own training and pick the edit; ``reward`` images are
    those that the agent's candidates are scored on.
    """

    model: str
    layers: tuple[str, ...]
    reward: int
    validation: int


DEFAULTS = {
    "mnist": Defaults("mnist_cnn", ("fc1",), reward=6000, validation=6000),
    "mnist5k": Defaults("mnist_cnn", ("fc1",), reward=3200, validation=800),
    "cifar10": Defaults("resnet20", ("layer3.2.conv2",), reward=1000, validation=2000),
}


@dataclass(frozen=True)
class UnlearningConfig:
    """What a run is asked to do. Two runs with equal configs give the same edit.

    Raises:
        ValueError: for a name or number that cannot be meant.
    """

    dataset: Literal["mnist", "mnist5k", "cifar10"]
    """Data set to train and edit on."""
    forget: tuple[int, ...]
    """Class or classes to forget."""
    world: Literal["mask", "shift"] = "mask"
    """How factors change a weight: multiplied (mask) or added (shift)."""
    rank: int = 4
    """Rank R of the factors."""
    seed: int = 0
    """Of everything random: splits, pretraining, policy."""
    candidates: int = 12_800
    """Edits to score."""
    num_envs: int = 128
    """Edits scored together, one batch of PPO."""
    episode_length: int = 1
    """Edits that compose in an episode."""
    layer: tuple[str, ...] = ()
    """Modules to edit; by default the data set's (fc1, or layer3.2.conv2 of the ResNet)."""
    model: str = ""
    """mnist_cnn, resnet20, resnet32 or resnet44; by default the data set's."""
    weights: str = ""
    """A safetensors state dict to start from, instead of training one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the scoring."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The numbers of PPO."""

    def __post_init__(self) -> None:
        if self.dataset not in DEFAULTS:
            raise ValueError(f"dataset: expected one of {', '.join(DEFAULTS)}; got {self.dataset!r}")
        if self.world not in WORLDS:
            raise ValueError(f"world: expected one of {', '.join(WORLDS)}; got {self.world!r}")
        if not self.forget or len(set(self.forget)) != len(self.forget):
            raise ValueError(f"forget: expected one class or several different ones, got {list(self.forget)}")
        if self.candidates < 1:
            raise ValueError(f"candidates: expected at least 1, got {self.candidates}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")
        if self.model and self.model not in models.NAMES:
            raise ValueError(f"model: expected one of {', '.join(models.NAMES)}; got {self.model!r}")

    @property
    def model_name(self) -> str:
        return self.model or DEFAULTS[self.dataset].model

    @property
    def layers(self) -> tuple[str, ...]:
        return self.layer or DEFAULTS[self.dataset].layers


class UnlearningData:
    """The three splits of a data set, as a model takes them.

    The publisher's test set is the test split. The training set is cut by class and seed: ``validation`` is
    held out of pretraining, ``reward`` is a part of what the model was trained on.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        defaults = DEFAULTS[dataset.name]
        rest = len(dataset.train) - defaults.validation
        held_out, trained = split(dataset.train.labels, [defaults.validation, rest], seed)
        self.name = dataset.name
        self.classes = dataset.classes
        self.train = dataset.train.subset(trained)
        self.validation = dataset.train.subset(held_out)
        # Every prefix of a part is stratified too.
        self.reward = dataset.train.subset(trained[: defaults.reward])
        self.test = dataset.test

    def inputs(self, images: LabelledImages) -> Tensor:
        return models.normalize(self.name, images.images)

    def samples(self, images: LabelledImages, forget: tuple[int, ...]) -> Samples:
        return Samples(self.inputs(images), images.labels, forget_groups(images.labels, forget))


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
        model,
        targets=config.layers,
        samples=data.samples(data.reward, config.forget),
        objective=Unlearning(),
        validation=data.samples(data.validation, config.forget),
    )


def make_trainer(config: UnlearningConfig, task: Task) -> PPO:
    env = WORLDS[config.world](
        task,
        num_envs=config.num_envs,
        rank=config.rank,
        episode_length=config.episode_length,
        precision=config.precision,
        final_obs=False,
    )
    return PPO(env, seed=config.seed, config=config.ppo)


def evaluate(model: nn.Module, data: UnlearningData, forget: tuple[int, ...]) -> dict[str, Json]:
    """Accuracies on the test split, from the model itself: fractions, float."""
    recall = per_class_accuracy(model, data.inputs(data.test), data.test.labels, len(data.classes))
    counts = torch.bincount(data.test.labels, minlength=len(data.classes)).double()
    forgotten = torch.zeros(len(data.classes), dtype=torch.bool)
    forgotten[list(forget)] = True

    def over(mask: Tensor) -> float:
        return float((recall * counts)[mask].sum() / counts[mask].sum())

    return {
        "forget_accuracy": over(forgotten),
        "retain_accuracy": over(~forgotten),
        "per_class_accuracy": recall.tolist(),
    }


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
        ValueError, OSError: see :class:`RunFolder`, :func:`rledit.data.load`, :class:`rledit.Task`.
    """
    console = console or Console(stderr=True)
    data = UnlearningData(load(config.dataset, data_root), config.seed)
    _check_forget(config, data)
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
        metrics["seconds"] = {
            "pretrain": pretrain_seconds,
            "edit": sum(result.seconds.values()),
            **result.seconds,
            "this_session": time.perf_counter() - started,
        }
        metrics["baselines"] = dict(baselines or {})
        result.edit.metrics["test"] = metrics["test"]
        result.edit.save(folder.edit)
        _report(config, folder, metrics, history, result.edit, task, data)
        if with_retrain and not result.stopped:
            metrics["baselines"]["retrain"] = retrain_baseline(config, data, console)
            _report(config, folder, metrics, history, result.edit, task, data)
        history.close()
        ppo.env.close()
    return metrics


def _check_forget(config: UnlearningConfig, data: UnlearningData) -> None:
    for label in config.forget:
        if not 0 <= label < len(data.classes):
            raise ValueError(f"forget: {config.dataset} has classes 0..{len(data.classes) - 1}, got {label}")


def _model(
    config: UnlearningConfig, data: UnlearningData, folder: RunFolder, console: Console
) -> tuple[nn.Module, float]:
    """The network before the edit, from the folder, from given weights, or trained here and kept."""
    if folder.model.exists():
        _, metadata = read_tensors(folder.model)
        return load_weights(models.build(config.model_name), folder.model), float(
            metadata["pretrain_seconds"]
        )
    if config.weights:
        model, seconds = load_weights(models.build(config.model_name), config.weights), 0.0
    else:
        started = time.perf_counter()
        with _bar("training the network", console) as progress:
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
    with _bar("retraining without the class", console) as progress:
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


class _bar:
    """A progress bar for :func:`rledit.training.train_classifier`."""

    def __init__(self, label: str, console: Console) -> None:
        self._progress = Progress(console=console)
        self._task = self._progress.add_task(label, total=None)

    def __enter__(self) -> Callable[[int, int, float], None]:
        self._progress.start()
        return lambda step, steps, _: self._progress.update(self._task, completed=step, total=steps)

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


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
    figures = plots(
        metrics=metrics,
        history=history,
        edit=edit,
        weights=task.weights(),
        classes=data.classes,
        baselines=metrics["baselines"],
    )
    write_figures(folder.plots, figures)
    forgotten = ", ".join(data.classes[label] for label in config.forget)
    write_report(
        folder.report,
        title=f"Forgetting {forgotten} of {config.dataset}: {config.world}, rank {config.rank}",
        config=asdict(config),
        metrics=metrics,
        history=history,
        edit=edit,
        weights=task.weights(),
        classes=data.classes,
        figures=figures,
    )
