"""The task and the search of a run, made from its config, classifier and data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

from ...experiments import config as runs_config
from ...experiments.console import Console, progress_bar
from ...samples import Samples
from ...search import INTERRUPTED, Result, Search
from ...task import Task
from .classifier import Classifier
from .config import DebiasConfig
from .data import DebiasData


def editing_samples(classifier: Classifier, data: DebiasData) -> dict[str, Samples]:
    """The splits "reward" and "validation", encoded."""
    return {
        name: data.splits[name].samples(classifier.encode, data.identities)
        for name in ("reward", "validation")
    }


def make_task(config: DebiasConfig, classifier: Classifier, samples: Mapping[str, Samples]) -> Task:
    """The task, with the config's layers as targets; there must be some (see :func:`choose_layers`)."""
    return Task(
        runs_config.placed(config, classifier.model),
        targets=config.layer,
        samples=samples["reward"],
        objective=config.objective(),
        validation=samples["validation"],
    )


def completed(search: Search, candidates: int, title: str, console: Console) -> Result:
    """The result of a whole search that is kept nowhere, with a progress bar; the search is closed.

    Raises:
        KeyboardInterrupt: for Ctrl-C.
    """
    with closing(search), progress_bar(console, title, candidates) as show:
        result = search.train(candidates, lambda row: show(int(row["candidates"]), candidates, ""))
    if result.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    return result


def make_trainer(config: DebiasConfig, task: Task) -> Search:
    """The search, with the config's rank or, if that is less, the full rank of the smallest target."""
    smallest = min(min(weight.shape) for weight in task.editable.weights().values())
    return runs_config.make_trainer(replace(config, rank=min(config.rank, smallest)), task)
