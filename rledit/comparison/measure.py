"""What a worker does: make a network and its retrained twin, run a method, run the audits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..audits import Audit, run_audits
from ..audits.base import AuditData, intervals
from ..audits.mlp_probe import MLPProbe
from ..audits.unlearning import AGAINST_RETRAINED, AUDITS, THOROUGH
from ..experiments.record import own_version
from ..methods import METHODS, Budget
from ..recipes.unlearning.run import load_weights
from ..storage.files import Json, write_tensors
from .cells import UNEDITED, VERSION, Cell
from .task import MODELS, ComparisonTask, TaskSource

AUDIT_LISTS: Mapping[str, tuple[Audit, ...]] = {
    "standard": (*AUDITS, *AGAINST_RETRAINED, MLPProbe()),
    "thorough": THOROUGH,
}
"""Lists of audits by name. No reward uses the MLP probe, so no method can have been optimized against it."""

RETRAIN = "retrain"
"""The method whose network is the reference of all others."""


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    Attributes:
        source: where the task comes from.
        cell: what to measure; with :data:`RETRAIN` as its method the network is also kept for the others.
        folder: folder of the comparison.
        budget: budget of every method.
        audits: a name of :data:`AUDIT_LISTS`.
    """

    source: TaskSource
    cell: Cell
    folder: Path
    budget: Budget
    audits: str


def retrained_path(folder: Path, cell: Cell) -> Path:
    """Where the network that never saw what is to be forgotten is kept."""
    return folder / MODELS / f"{cell.task}-retrained-{cell.seed}.safetensors"


def compared_with_retrained(row: Mapping[str, Any]) -> bool:
    """Whether a cell was measured when there was a retrained network to compare with."""
    return "forget_agreement_rate" in row


def measure(job: Job) -> dict[str, Json]:
    """The row of one cell: its cost, accuracies on the test split and all audits' figures, NaN as None; and
    which rledit has measured it, as the record of a run names it.

    Raises:
        ValueError, OSError, FloatingPointError: see :class:`TaskSource`, the method and the audits.
    """
    task = _task(job.source, job.cell.seed, job.folder)
    model, cost = _run(job, task)
    audit = replace(task.audit, retrained=_retrained(job, task), unedited=task.problem.model)
    started = time.perf_counter()
    figures: dict[str, float] = {**accuracies(model, audit), **run_audits(_audits(job, audit), model, audit)}
    return {
        **cost,
        "audit_seconds": time.perf_counter() - started,
        **{key: float(value) if math.isfinite(value) else None for key, value in figures.items()},
        "intervals": {key: list(interval) for key, interval in intervals(figures).items()},
        **{f"{VERSION}_{key}": value for key, value in own_version().items()},
    }


def accuracies(model: nn.Module, data: AuditData) -> dict[str, float]:
    """Accuracies of the test samples' groups, and of both together."""
    hits = (data.read(model, data.test).predicted == data.test.labels.cpu()).double()
    return {
        **{f"{group}_accuracy": float(hits[data.group(group)].mean()) for group in ("forget", "retain")},
        "accuracy": float(hits.mean()),
    }


def _run(job: Job, task: ComparisonTask) -> tuple[nn.Module, dict[str, Json]]:
    """The model after the method, and what it took."""
    method, seed = job.cell.method, job.cell.seed
    if method == UNEDITED:
        return task.problem.model, {"seconds": 0.0, "evaluations": 0, "steps": 0}
    started, cpu = time.perf_counter(), time.process_time()
    result = METHODS[method](task.problem, job.budget, seed)
    cost: dict[str, Json] = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "evaluations": result.evaluations,
        "steps": result.steps,
        "settings": dict(result.settings),
    }
    if method == RETRAIN:
        path = retrained_path(job.folder, job.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, result.model.state_dict())
    return result.model, cost


@lru_cache(maxsize=1)
def _task(source: TaskSource, seed: int, folder: Path) -> ComparisonTask:
    """The task of one seed, kept for the next cell, which is likely to use it too."""
    return source.make(seed, folder)


def _retrained(job: Job, task: ComparisonTask) -> nn.Module | None:
    path = retrained_path(job.folder, job.cell)
    if task.problem.build is None or not path.is_file():
        return None
    with torch.random.fork_rng(devices=[]):
        model = task.problem.build()
    return load_weights(model, path)


def _audits(job: Job, data: AuditData) -> list[Audit]:
    """The audits of the list that can be run: some need a retrained network."""
    audits: list[Any] = list(AUDIT_LISTS[job.audits])
    if data.retrained is None:
        against = {type(audit) for audit in AGAINST_RETRAINED}
        audits = [audit for audit in audits if type(audit) not in against]
    return audits
