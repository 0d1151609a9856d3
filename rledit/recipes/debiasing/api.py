"""``rledit.debias``: a classifier of the caller's becomes fairer across groups, in one call."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...edits import Edit
from ...experiments.config import SearchName
from ...experiments.console import Console, PlainConsole
from ...experiments.run import Options, carry_out, finite
from ...experiments.training import seconds_of
from ...heads import HEAD_SAMPLES, eval_mode
from ...objectives import Debias
from ...ops.rules import Kind
from ...worlds import DirectionKind
from .data import SHARES_TRAINED, CommentSets, DebiasData
from .other_labels import sparing_other_labels
from .own import OwnClassifier, OwnConfig, OwnRecipe, check_logits
from .rows import EncodeRows, Given, Rows
from .task import completed, editing_samples, make_task, make_trainer
from .two_logits import seen_as_two

EXAMPLES = 64
"""Rows that show what kind of output a model has."""


@dataclass(frozen=True, eq=False)
class DebiasResult:
    """What :func:`debias` gives.

    Attributes:
        edit: the chosen edit; ``edit.apply_(model)`` edits the caller's own model in place.
        metrics: as in a run folder's metrics.json: "test" holds figures "before" and "after", and those of
            other sets under "other"; "validation" those that the edit was chosen by.
        candidates: how many edits were scored.
        origin: where the edit comes from, see :class:`rledit.Result`; "no edit" where none was better.
        folder: the run folder, or None.
        missing: what a run folder lacks, and why.
    """

    edit: Edit
    metrics: Mapping[str, Any] = field(repr=False)
    candidates: int
    origin: str
    folder: Path | None
    missing: tuple[str, ...]
    model: nn.Module = field(repr=False)

    def apply(self) -> nn.Module:
        """An edited copy of the model; the caller's stays as it is."""
        edited = deepcopy(self.model)
        self.edit.apply_(edited)
        return edited


def debias(
    model: nn.Module,
    encode: EncodeRows,
    comments: Given,
    *,
    bias: Given | None = None,
    transfer: Mapping[str, Given] | None = None,
    targets: Sequence[str],
    label: int | None = None,
    multi_label: bool = False,
    threshold: float | None = None,
    objective: Debias | None = None,
    world: Kind = "shift",
    rank: int = 4,
    candidates: int = 51_200,
    num_envs: int = 128,
    search: SearchName = "ppo",
    directions: DirectionKind | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> DebiasResult:
    """Make a classifier fairer across groups by a low-rank edit of some of its layers.

    What is given is cut into three splits: the reward is counted on the first, the second picks the edit, the
    third is read at the end for the figures. So these should be rows that the classifier was not trained on.
    Texts that repeat each other are dropped before; rows of other kinds are taken as they are.

    Args:
        model: a classifier of toxic (1) or not (0), or of any other yes or no, from one tensor to logits: one
            [S] or [S, 1], two [S, 2], or several [S, C]. It is not changed.
        encode: from rows to what the model is called with, a tensor or array [S, ...]. It gets a list of
            texts, or rows of the kind that was given: a frame, an array, a list.
        comments: what the classifier must stay good at: :class:`rledit.zoo.data.Comments`, or (rows, labels,
            groups): S texts, rows of a pandas frame, of an array or of anything else that has a length;
            labels 0 and 1 [S]; and name -> bool mask [S] (see :func:`rledit.intersections`).
        bias: what bias is measured on, given likewise. Default: the comments themselves, by their groups.
        transfer: further sets, likewise, by name, on which bias is measured before and after.
        targets: names of the ``nn.Linear`` and ``nn.Conv2d`` modules that may be edited.
        label: which of several logits is meant, 0..C-1. Edits of the one Linear that makes all labels leave
            the others as they are; edits of layers that several labels share do not.
        multi_label: whether several labels may hold together (a sigmoid each, not one softmax).
        threshold: of a model with one output, what is above it is toxic. Default: 0, as for a logit; 0.5 goes
            with a probability.
        objective: what is better, and what may be lost; default: ``Debias()``.
        world, rank, candidates, num_envs, search, seed: as in ``rledit debias``.
        directions: along what an edit may act; default: "groups", what differs between their inputs.
        out: a run folder to leave, with a report, metrics and the edit, see :func:`rledit.experiments.run`.
            Without it nothing is written.
        resume, overwrite: of that folder.
        console: for progress; by default standard error where there is a folder, else none.

    Raises:
        TypeError, ValueError: arguments of another kind or that do not fit together; outputs that are NaN;
            groups that cannot be measured; and see :class:`rledit.Task`.
        OSError: see :class:`rledit.experiments.RunFolder`.
        KeyboardInterrupt: for Ctrl-C where there is no folder.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    if isinstance(targets, str):
        raise TypeError(f"targets: expected several names, got the text {targets!r}")
    if objective is not None and not isinstance(objective, Debias):
        raise TypeError(f"objective: expected rledit.Debias, got {type(objective).__name__}")
    config = OwnConfig(
        dataset=("comments",),  # type: ignore[arg-type]  # what the report calls them
        layer=tuple(targets),
        goal=objective or Debias(),
        world=world,
        rank=rank,
        candidates=candidates,
        num_envs=num_envs,
        search=search,
        directions=directions or "auto",
        seed=seed,
    )
    rows = Rows(encode)
    utility = rows.comments("comments", comments)
    sets = CommentSets(
        utility,
        utility if bias is None else rows.comments("bias", bias),
        transfer={name: rows.comments(name, given) for name, given in (transfer or {}).items()},
    )
    if not sets.bias.identities:
        name = "comments" if bias is None else "bias"
        raise ValueError(f"{name}: expected groups, between which bias is measured; got none")
    data = DebiasData(sets, seed, SHARES_TRAINED)
    with eval_mode(model):
        copy = deepcopy(model).cpu()
        few = _few(copy, rows, data)
        seen = seen_as_two(copy, few, label=label, multi_label=multi_label, threshold=threshold).eval()
        for name, split in data.splits.items():
            check_logits(seen, rows, split.both.texts, f"the {name} split")
        recipe = OwnRecipe(config, data, OwnClassifier(seen, rows))
        if out is None:
            return _in_memory(recipe, config, model, console or PlainConsole(quiet=True))
        options = Options(resume=resume, overwrite=overwrite, console=console)
        run = carry_out(recipe, os.fspath(out), options)
    return DebiasResult(
        run.edit, run.metrics, run.candidates, run.origin, run.folder, run.missing, model
    )  # fmt: skip


@torch.no_grad()
def _few(model: nn.Module, rows: Rows, data: DebiasData) -> torch.Tensor:
    """The outputs for some rows."""
    outputs = model(rows.encode(data.splits["validation"].both.texts[:EXAMPLES]))
    if not isinstance(outputs, torch.Tensor):
        raise TypeError(f"model: expected it to return a tensor of logits, got {type(outputs).__name__}")
    return outputs


def _in_memory(recipe: OwnRecipe, config: OwnConfig, model: nn.Module, console: Console) -> DebiasResult:
    """The same steps as in a run folder, without one."""
    started = time.perf_counter()
    classifier, data = recipe.parts
    samples = editing_samples(classifier, data)
    task = make_task(config, classifier, samples)
    found = completed(make_trainer(config, task), config.candidates, "editing", console)
    result = sparing_other_labels(found, classifier.model, samples["validation"].head(HEAD_SAMPLES))
    edited = deepcopy(classifier.model)
    result.edit.apply_(edited)
    test = finite(recipe.evaluate(edited))
    metrics = {
        "test": test,
        **finite(recipe.about_edit(edited, test)),
        "validation": finite(result.edit.metrics["validation"]),
        "candidates": result.candidates,
        "origin": result.origin,
        "stopped": result.stopped,
        "front": finite(result.choices),
        "seconds": seconds_of(result, 0.0, started),
        "layer": list(config.layer),
    }
    result.edit.metrics["test"] = recipe.kept_with_edit(metrics["test"])
    return DebiasResult(result.edit, metrics, result.candidates, result.origin, None, (), model)
