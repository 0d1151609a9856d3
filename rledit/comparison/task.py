"""What methods are compared on."""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..audits import AuditData
from ..experiments.record import file_hash
from ..methods import UnlearningProblem
from ..recipes.unlearning import DEFAULTS, UnlearningConfig, UnlearningData
from ..recipes.unlearning.run import load_weights, pretrain
from ..storage.files import Json, write_tensors
from ..zoo import models
from ..zoo.data import load
from ..zoo.training import HYPERPARAMETERS, Hyperparameters

NAMED_TASKS = tuple(DEFAULTS)
"""Data sets whose networks forget classes; any other name is that of a Python file."""

MODELS = "models"
"""The folder of trained networks within that of a comparison."""


@dataclass(frozen=True, eq=False)
class ComparisonTask:
    """One request, as methods see it, and what audits read, which methods never see.

    Attributes:
        problem: see :class:`rledit.methods.UnlearningProblem`.
        audit: with the groups "forget" and "retain"; unedited and retrained networks are added.

    Raises:
        ValueError: where the two do not fit together.
    """

    problem: UnlearningProblem
    audit: AuditData

    def __post_init__(self) -> None:
        if self.audit.classes != self.problem.classes:
            raise ValueError(
                f"audit: expected {self.problem.classes} classes, as in the problem; got {self.audit.classes}"
            )
        for name, samples in (("train", self.audit.train), ("test", self.audit.test)):
            if missing := [group for group in ("forget", "retain") if group not in samples.groups]:
                raise ValueError(f"audit: {name} lacks the group {missing[0]!r}")


@dataclass(frozen=True)
class TaskSource:
    """Where a task comes from, so that every process can make it for itself.

    Attributes:
        name: a data set of :data:`NAMED_TASKS`, or a Python file that defines
            ``make_task(seed: int) -> ComparisonTask``. The file is run, as any script would be.
        forget: classes to forget, of a named task.
        model: architecture of a named task; "" for its usual one.
        weights: a safetensors file with the network of a named task; "" for one that is trained from each
            seed.
        data_root: folder with the data set.
        epochs: for training the network, 0 for the usual number; fewer make a table for trying things out.
        train_samples: how many training images of a named task methods are given, of all classes alike; 0
            for all.

    Raises:
        ValueError: for a name that is neither, or a named task without classes to forget.
        FileNotFoundError: for weights that are not there.
    """

    name: str
    forget: tuple[int, ...] = ()
    model: str = ""
    weights: str = ""
    data_root: str = ""
    epochs: int = 0
    train_samples: int = 0

    def __post_init__(self) -> None:
        if self.name not in NAMED_TASKS and not Path(self.name).is_file():
            raise ValueError(
                f"task: expected one of {', '.join(NAMED_TASKS)}, or a Python file that defines make_task; "
                f"got {self.name!r}"
            )
        if self.name in NAMED_TASKS and not self.forget:
            raise ValueError(f"forget: expected one class of {self.name} or several, got none")
        if self.name not in NAMED_TASKS and (self.forget or self.model or self.weights or self.train_samples):
            raise ValueError(
                "forget, model, weights, train_samples: a task of your own sets them in its file"
            )
        if self.weights and not Path(self.weights).is_file():
            raise FileNotFoundError(f"weights: there is no file {self.weights}")
        for name, value in (("epochs", self.epochs), ("train_samples", self.train_samples)):
            if value < 0:
                raise ValueError(f"{name}: expected at least 0, got {value}")

    @property
    def label(self) -> str:
        """The task's name in tables and file names."""
        if self.name in NAMED_TASKS:
            model = f"-{self.model}" if self.model else ""
            return f"{self.name}{model}-{'-'.join(map(str, self.forget))}"
        return Path(self.name).stem

    def describe(self) -> dict[str, Json]:
        """Everything that the figures depend on, which the location of files is not."""
        found: dict[str, Json] = asdict(self)
        del found["data_root"]
        if not self.train_samples:  # as comparisons were described before there was a choice
            del found["train_samples"]
        if self.weights:
            found["weights"] = file_hash(Path(self.weights))
        if self.name not in NAMED_TASKS:
            found["name"] = self.label
            found["code"] = Path(self.name).read_text(encoding="utf-8")
        return found

    def make(self, seed: int, folder: Path) -> ComparisonTask:
        """The task of one seed. Trained networks are kept in ``folder``, and found there.

        Raises:
            ValueError, OSError: for data or weights that cannot be had, or a file that does not define a
                task; see also :class:`rledit.recipes.unlearning.UnlearningConfig`.
        """
        if self.name in NAMED_TASKS:
            return self._named(seed, folder)
        return _from_file(Path(self.name), seed)

    def _named(self, seed: int, folder: Path) -> ComparisonTask:
        config = UnlearningConfig(
            dataset=self.name,  # type: ignore[arg-type]
            forget=self.forget,
            model=self.model,  # type: ignore[arg-type]
            seed=seed,
        )
        data = UnlearningData(load(self.name, self.data_root or None), seed)
        data.check(self.forget)
        training = HYPERPARAMETERS.get(self.name)
        if training is not None and self.epochs:
            training = replace(training, epochs=self.epochs)
        model = self._network(config, data, training, folder / MODELS / f"{self.trained}-{seed}.safetensors")
        audit = data.audit_data(self.forget)
        train = data.train
        if self.train_samples:  # every prefix is stratified
            if self.train_samples > len(train):
                raise ValueError(
                    f"train_samples: expected at most {len(train)}, the images that {self.name} is "
                    f"trained on; got {self.train_samples}"
                )
            train = train.subset(torch.arange(self.train_samples))
        return ComparisonTask(
            UnlearningProblem(
                model=model,
                train=data.samples(train, self.forget),
                reward=data.samples(data.reward, self.forget),
                validation=data.samples(data.validation, self.forget),
                classes=len(data.classes),
                targets=config.layers,
                forget=self.forget,
                build=lambda: models.build(config.model_name),
                training=training,
            ),
            replace(audit, layers=config.layers, unedited=model, seed=seed),
        )

    @property
    def trained(self) -> str:
        """Which network is edited: the same for every class that it is to forget."""
        return f"{self.name}-{self.model}" if self.model else self.name

    def _network(
        self, config: UnlearningConfig, data: UnlearningData, training: Hyperparameters | None, kept: Path
    ) -> nn.Module:
        path = Path(self.weights) if self.weights else kept
        if not self.weights and not kept.is_file():  # never trained where the user's own weights should be
            if training is None:
                raise ValueError(
                    f"weights: rledit has no hyperparameters to train on {self.name}; give a safetensors file"
                )
            model = pretrain(config, data, lambda *_: None, training)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(path, model.state_dict())
            return model
        return load_weights(models.build(config.model_name), path)


def _from_file(path: Path, seed: int) -> ComparisonTask:
    make = getattr(_module(path), "make_task", None)
    if not callable(make):
        raise ValueError(f"task: expected {path} to define make_task(seed), it does not")
    if not inspect.signature(make).parameters:
        raise ValueError(f"task: expected make_task of {path} to take the seed, it takes nothing")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task: Any = make(seed)
    if not isinstance(task, ComparisonTask):
        raise ValueError(
            f"task: expected make_task of {path} to return a rledit.comparison.ComparisonTask, "
            f"got {type(task).__name__}"
        )
    return task


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"task: expected a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
