"""A whole unlearning run: what it adds to what all runs have in common."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...audits import Audit, AuditData, run_audits
from ...audits.unlearning import AGAINST_RETRAINED, AUDITS
from ...experiments.config import make_trainer, placed
from ...experiments.console import Console, supervised_bar
from ...experiments.folder import RunFolder
from ...experiments.plots import Drawing
from ...experiments.record import Population
from ...experiments.report import Finished, Page
from ...experiments.result import RunResult
from ...experiments.run import Baseline, Options, Prepared, Recipe, carry_out
from ...experiments.training import CHECKPOINT_SECONDS
from ...methods.retrain import retrain
from ...runtime import seeded
from ...storage.files import read_tensors, write_tensors
from ...targets import check_rank, find_targets
from ...task import Task
from ...zoo import models
from ...zoo.data import load
from ...zoo.training import HYPERPARAMETERS, Hyperparameters, train_classifier
from .config import UnlearningConfig
from .data import UnlearningData, evaluate, plain_figures
from .record import populations
from .report import drawings, page

logger = logging.getLogger("rledit")


def pretrain(
    config: UnlearningConfig,
    data: UnlearningData,
    progress: Callable[..., None],
    training: Hyperparameters | None = None,
) -> nn.Module:
    """Train the network that is to be edited, from the config's seed, by the data set's hyperparameters."""
    if config.dataset not in HYPERPARAMETERS:
        raise ValueError(
            f"weights: rledit has no hyperparameters to train on {config.dataset}; give --weights with a "
            "safetensors file"
        )
    with seeded(config.seed, torch.device("cpu")):
        model = models.build(config.model_name)
    train_classifier(
        model,
        data.inputs(data.train),
        data.train.labels,
        seed=config.seed,
        progress=progress,
        **asdict(training or HYPERPARAMETERS[config.dataset]),
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
        objective=config.objective(),
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
) -> RunResult:
    """Carry an unlearning run out in a folder.

    Args:
        config: what to do.
        out: the run folder.
        data_root: folder with the data set; else RLEDIT_DATA, else the cache.
        resume: go on with the run in the folder. With a larger ``config.candidates`` a finished run is
            extended.
        overwrite: delete the run in the folder and start anew.
        tensorboard: also write TensorBoard events.
        with_retrain: also train the same network without the forgotten classes, to compare with.
        checkpoint_seconds: least time between two checkpoints.
        baselines: figures of baselines that are known already, by name.
        console: for progress, such as ``rich.console.Console``; by default standard error.

    Raises:
        ValueError, OSError: see :class:`RunFolder`, :func:`rledit.zoo.data.load`, :class:`rledit.Task`.
        KeyboardInterrupt: see :func:`rledit.experiments.run.carry_out`.
    """
    recipe = UnlearningRecipe(
        config,
        data_root,
        with_weights=not resume,
        with_retrain=with_retrain,
        known=baselines or {},
    )
    return carry_out(recipe, out, Options(resume, overwrite, tensorboard, checkpoint_seconds, console))


class UnlearningRecipe(Recipe):
    """A network of the zoo forgets classes of a known data set.

    Args:
        with_weights: whether ``config.weights`` will be read; a resumed run has its own.
        with_retrain, known: see :func:`run`.
        audits: what is measured besides the models' accuracies.
    """

    def __init__(
        self,
        config: UnlearningConfig,
        data_root: str | Path | None = None,
        *,
        with_weights: bool = True,
        with_retrain: bool = True,
        known: Mapping[str, Any] | None = None,
        audits: Sequence[Audit] = AUDITS,
    ) -> None:
        self.config: UnlearningConfig = config
        self._data = UnlearningData(load(config.dataset, data_root), config.seed)
        self._data.check(config.forget)
        self._with_retrain = with_retrain
        self._known = known or {}
        self._audits = audits
        self._before: nn.Module | None = None
        self._after: nn.Module | None = None
        self._asked: AuditData | None = None
        self._keep: Path | None = None
        _check(config, with_weights)

    kind = "unlearning"

    def unedited(self, path: Path) -> nn.Module:
        return load_weights(models.build(self.config.model_name), path)

    def populations(self) -> Mapping[str, Population]:
        return populations(self._data, self.config.forget)

    def prepare(self, folder: RunFolder, console: Console) -> Prepared:
        config = self.config
        model, seconds = _model(config, self._data, folder, console)
        self._before, self._keep = model, folder.retrained
        task = make_task(config, model, self._data)
        what = f"{', '.join(config.layers)} of {config.model_name}, scored on {len(task.samples):,} samples"
        return Prepared(config, model, task, make_trainer(config, task), what, seconds)

    def evaluate(self, edited: nn.Module) -> dict[str, Any]:
        config = self.config
        assert self._before is not None
        self._after = edited
        asked = self._data.audit_data(config.forget, layers=config.layers, unedited=self._before)
        self._asked = asked.remembering()
        return {
            when: evaluate(model, self._data, config.forget, self._audits, self._asked)
            for when, model in self._evaluated().items()
        }

    def _evaluated(self) -> dict[str, nn.Module]:
        assert self._before is not None
        assert self._after is not None
        return {"before": self._before, "after": self._after}

    def drawings(self, finished: Finished) -> list[Drawing]:
        return drawings(finished, self._data.classes)

    def page(self, finished: Finished) -> Page:
        audits = (*self._audits, *AGAINST_RETRAINED)
        return page(self.config, self._data.classes, audits, finished.metrics)

    def known_baselines(self) -> Mapping[str, Any]:
        # how far the retrained network is from the edit of the run that it comes from says nothing here
        return {
            name: {key: part for key, part in baseline.items() if key != "agreement"}
            for name, baseline in self._known.items()
        }

    def baselines(self, console: Console) -> Mapping[str, Baseline]:
        if not self._with_retrain:
            return {}
        return {"retrain": partial(self._retrained, console)}

    def _retrained(self, console: Console) -> dict[str, Any]:
        """The baseline, and how far the network is from it before and after the edit."""
        made = retrained_network(self.config, self._data, console, self._keep)
        if made is None:
            return {}
        model, seconds = made
        assert self._asked is not None
        asked = replace(self._asked, retrained=model)
        return {
            "test": evaluate(model, self._data, self.config.forget, self._audits, asked),
            "seconds": seconds,
            "agreement": {
                when: plain_figures(run_audits(AGAINST_RETRAINED, other, asked))
                for when, other in self._evaluated().items()
            },
        }


def _check(config: UnlearningConfig, with_weights: bool) -> None:
    """Refuse what can be refused without data or training."""
    with seeded(config.seed, torch.device("cpu")):
        model = models.build(config.model_name)
    for name, target in find_targets(model, config.layers).items():
        outputs, *inputs = target.weight.shape
        check_rank(config.rank, name, outputs, math.prod(inputs))
    if config.weights and with_weights:
        load_weights(model, config.weights)


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


def retrained_network(
    config: UnlearningConfig, data: UnlearningData, console: Console, keep: Path | None = None
) -> tuple[nn.Module, float] | None:
    """The same network trained from scratch without the forgotten classes, and the seconds that took.

    Args:
        keep: file that it is kept in; read if it is there.

    Returns:
        None, with a warning, where rledit has no hyperparameters to train it.

    Raises:
        ValueError, OSError: see :func:`load_weights`.
    """
    if keep is not None and keep.exists():
        _, metadata = read_tensors(keep)
        seconds = float(metadata.get("seconds", 0.0))
        return load_weights(models.build(config.model_name), keep), seconds
    if config.dataset not in HYPERPARAMETERS:
        logger.warning(
            "No retrained network to compare with: rledit has no hyperparameters to train on %s.",
            config.dataset,
        )
        return None
    started = time.perf_counter()
    with supervised_bar("retraining without the class", console) as progress:
        model = retrain(
            lambda: models.build(config.model_name),
            data.inputs(data.train),
            data.train.labels,
            config.forget,
            seed=config.seed,
            progress=progress,
            **asdict(HYPERPARAMETERS[config.dataset]),
        )
    seconds = time.perf_counter() - started
    if keep is not None:
        write_tensors(keep, model.state_dict(), {"seconds": repr(seconds)})
    return model, seconds


def retrain_baseline(
    config: UnlearningConfig, data: UnlearningData, console: Console, audits: Sequence[Audit] = AUDITS
) -> dict[str, Any]:
    """Test figures of the same network trained from scratch without the forgotten classes."""
    made = retrained_network(config, data, console)
    if made is None:
        return {}
    model, seconds = made
    return {"test": evaluate(model, data, config.forget, audits), "seconds": seconds}
