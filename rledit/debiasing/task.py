"""From a config, a classifier and data to what PPO trains on."""

from __future__ import annotations

from dataclasses import replace

from ..ppo import PPO
from ..runs import config as runs_config
from ..task import Task
from .classifier import Classifier
from .config import DebiasConfig
from .data import DebiasData


def make_task(config: DebiasConfig, classifier: Classifier, data: DebiasData) -> Task:
    """With the config's layers as targets; there must be some (see :func:`choose_layers`)."""
    splits = {
        name: data.splits[name].samples(classifier.encode, data.identities)
        for name in ("reward", "validation")
    }
    return Task(
        classifier.model,
        targets=config.layer,
        samples=splits["reward"],
        objective=config.objective(),
        validation=splits["validation"],
    )


def with_fitting_rank(config: DebiasConfig, task: Task) -> DebiasConfig:
    """With as much of the rank as the smallest target has."""
    smallest = min(min(weight.shape) for weight in task.weights().values())
    return replace(config, rank=min(config.rank, smallest))


def make_trainer(config: DebiasConfig, task: Task) -> PPO:
    """Of a rank that fits."""
    return runs_config.make_trainer(with_fitting_rank(config, task), task)
