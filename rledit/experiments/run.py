"""A whole run in a folder: what the recipes have in common.

A recipe brings the model, the task and what is specific to its evaluation and report. :func:`carry_out`
does the rest, in an order in which nothing that goes wrong costs what has been reached before: training,
saving the edit, its evaluation, figures, the report, the record, and last the baselines that the edit is
compared with.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..edits.edit import Edit
from ..search import Result, Search
from ..storage.files import Json, write_json
from ..task import Task
from .config import EditingConfig
from .console import Console, say, standard_console
from .folder import RunFolder
from .plots import Drawing, draw_all, write_figures
from .record import Population, Recorder, facts
from .report import Finished, Page, write_page
from .result import Change, RunResult
from .training import CHECKPOINT_SECONDS, seconds_of, train

logger = logging.getLogger("rledit")

FURTHER = "further files"
"""What recipes leave beside that which every run leaves, where it is named as missing."""

Baseline = Callable[[], dict[str, Any]]
"""Makes the figures of something that the edit is compared with; {} where it cannot be had."""


@dataclass(frozen=True)
class Options:
    """How a run is carried out, whatever it edits for. None of this changes the edit.

    Attributes:
        resume, overwrite: see :class:`RunFolder`.
        tensorboard: also write TensorBoard events.
        checkpoint_seconds: least time between two checkpoints.
        console: for progress; by default standard error.
    """

    resume: bool = False
    overwrite: bool = False
    tensorboard: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    console: Console | None = None


@dataclass(frozen=True)
class Prepared:
    """What training needs.

    Attributes:
        config: the recipe's, with what was left open decided.
        model: the unedited network, on the CPU.
        task, search: what is edited, and what spends the candidates.
        what: what is edited and what it is scored on, a sentence without its end.
        pretrain_seconds: what training the unedited network took, in whichever session.
        metrics: more entries for metrics.json.
        add_costs: adds what was spent before training, such as trials of layers.
    """

    config: EditingConfig
    model: nn.Module
    task: Task
    search: Search
    what: str
    pretrain_seconds: float
    metrics: Mapping[str, Json] = field(default_factory=dict)
    add_costs: Callable[[Result], Result] = lambda result: result


class Recipe(ABC):
    """What a kind of run brings. Whatever can be refused is refused in ``__init__``, before a folder is
    touched."""

    config: EditingConfig
    kind = ""
    """The kind of the run, for its record."""

    @abstractmethod
    def prepare(self, folder: RunFolder, console: Console) -> Prepared:
        """The model, from the folder if it is there, and the search on it."""

    @abstractmethod
    def evaluate(self, edited: nn.Module) -> dict[str, Any]:
        """The entry "test" of metrics.json: figures "before" and "after"."""

    @abstractmethod
    def drawings(self, finished: Finished) -> list[Drawing]:
        """The figures of the report, not drawn yet."""

    @abstractmethod
    def page(self, finished: Finished) -> Page:
        """The rest of the report."""

    def about_edit(self, edited: nn.Module, test: Mapping[str, Any]) -> Mapping[str, Any]:
        """More entries for metrics.json, from the edited model and its test figures."""
        return {}

    def leave(self, folder: RunFolder, edit: Edit) -> Sequence[Path]:
        """Leave further files of a finished run in its folder; returns which."""
        return ()

    def kept_with_edit(self, test: Mapping[str, Any]) -> dict[str, Any]:
        """What of the test figures goes into the edit's file."""
        return dict(test)

    def baselines(self, console: Console) -> Mapping[str, Baseline]:
        """What is still to be made to compare the edit with, by name."""
        return {}

    def known_baselines(self) -> Mapping[str, Any]:
        """Figures of baselines that need not be made."""
        return {}

    def unedited(self, path: Path) -> nn.Module:
        """The model before the edit, from the run's own file, to check its record; ValueError or
        OSError for a file that does not fit, or cannot be read."""
        raise ValueError("runs of this kind cannot be checked: their recipe does not say how to read a model")

    def populations(self) -> Mapping[str, Population]:
        """The splits for the record, by name, once the model is there."""
        return {}


def carry_out(recipe: Recipe, out: str | Path, options: Options) -> RunResult:
    """Carry a run out in a folder.

    The edit is saved as soon as training ends. Whatever fails afterwards leaves it there, and resuming makes
    up for what is missing without training again: Ctrl-C and a failing evaluation end the run, a figure, a
    report or a baseline that fails is logged and named in :attr:`RunResult.missing`.

    Raises:
        ValueError, OSError: see :class:`RunFolder` and what the recipe says.
        KeyboardInterrupt: for Ctrl-C outside training; in training it ends that early, see :func:`train`.
    """
    console = options.console or standard_console()
    asked: dict[str, Json] = recipe.config.asked()
    flags = {"resume": options.resume, "overwrite": options.overwrite}
    with (
        RunFolder(out, asked, **flags, extendable=("candidates",)) as folder,
        contextlib.ExitStack() as closing,
    ):
        started = time.perf_counter()
        try:
            prepared = recipe.prepare(folder, console)
        except Exception:
            folder.leave_unused()
            raise
        closing.callback(prepared.search.close)
        say(console, f"Editing {prepared.what} ({prepared.search.engine.way})")
        result, history = train(
            prepared.search,
            folder,
            recipe.config.candidates,
            tensorboard=options.tensorboard,
            console=console,
            checkpoint_seconds=options.checkpoint_seconds,
        )
        closing.callback(history.close)
        folder.record.unlink(missing_ok=True)  # from here on the files that it vouches for are written anew
        result = prepared.add_costs(result)
        known = _known(folder)
        result.edit.metrics.update(finite(result.edit.metrics))
        metrics: dict[str, Any] = {
            "validation": result.edit.metrics["validation"],
            "candidates": result.candidates,
            "origin": result.origin,
            "stopped": result.stopped,
            "front": finite(result.choices),
            "seconds": seconds_of(result, prepared.pretrain_seconds, started),
            **finite(prepared.metrics),
            "baselines": {**known.get("baselines", {}), **recipe.known_baselines()},
        }
        if "test" not in known or known.get("candidates") != result.candidates:
            folder.report.unlink(missing_ok=True)  # of another edit
            result.edit.save(folder.edit)
            write_json(folder.metrics, metrics)
        missing = []
        with _edit_is_saved(folder, console):
            edited = deepcopy(prepared.model)
            result.edit.apply_(edited)
            test = finite(recipe.evaluate(edited))
            metrics = {"test": test, **finite(recipe.about_edit(edited, test)), **metrics}
            write_json(folder.metrics, metrics)
            result.edit.metrics["test"] = recipe.kept_with_edit(metrics["test"])
            result.edit.save(folder.edit)
            weights = {name: weight.cpu() for name, weight in prepared.task.editable.weights().items()}
            report = _Report(recipe, prepared.config, folder)
            record = _recorder(recipe, prepared, folder, result, edited)
            missing = _leave(recipe, folder, result.edit)
            missing += report.write(Finished(metrics, history, result.edit, weights)) + record.write()
            if not result.stopped:
                wanted = {
                    name: make
                    for name, make in recipe.baselines(console).items()
                    if name not in metrics["baselines"]
                }
                lacking = _make_baselines(wanted, metrics["baselines"])
                if len(lacking) < len(wanted):
                    folder.record.unlink(missing_ok=True)
                    write_json(folder.metrics, metrics)
                    missing = [part for part in missing if part.startswith(FURTHER)]
                    missing += report.write(Finished(metrics, history, result.edit, weights)) + record.write()
                missing += lacking
    return RunResult(
        folder=folder.path,
        edit=result.edit,
        test=Change(metrics["test"]["before"], metrics["test"]["after"]),
        validation=Change(metrics["validation"]["before"], metrics["validation"]["after"]),
        candidates=result.candidates,
        origin=result.origin,
        stopped=result.stopped,
        seconds=metrics["seconds"],
        baselines=metrics["baselines"],
        metrics=metrics,
        missing=tuple(missing),
    )


def _leave(recipe: Recipe, folder: RunFolder, edit: Edit) -> list[str]:
    """Returns what is missing, and why."""
    try:
        recipe.leave(folder, edit)
    except Exception as error:
        logger.error("Further files could not be written; edit and metrics are saved: %s", reason_of(error))
        return [f"{FURTHER}: {reason_of(error)}"]
    return []


def finite(value: Any) -> Any:
    """The same JSON with None, shown as n/a, for numbers that are unknown or infinite: JSON has no others."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _known(folder: RunFolder) -> dict[str, Any]:
    """metrics.json of a resumed run, {} where it cannot be read: everything in it can be made again."""
    try:
        known = json.loads(folder.metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


@contextlib.contextmanager
def _edit_is_saved(folder: RunFolder, console: Console) -> Iterator[None]:
    """Says so to those who see the rest of a run fail."""
    try:
        yield
    except KeyboardInterrupt:
        say(console, f"Training is over and the edit saved: {folder.edit}. --resume completes the report.")
        raise
    except Exception:
        logger.error(
            "The run has failed after training. The edit is saved: %s. --resume goes on from there, without "
            "training again.",
            folder.edit,
        )
        raise


def _make_baselines(wanted: Mapping[str, Baseline], made: dict[str, Any]) -> list[str]:
    """Adds those that can be made; returns what is missing, and why."""
    missing = []
    for name, make in wanted.items():
        try:
            figures = make()
        except Exception as error:
            missing.append(f"baseline {name}: {reason_of(error)}")
            logger.warning("The baseline %s could not be made: %s", name, reason_of(error))
        else:
            if figures:
                made[name] = finite(figures)
    return missing


def _recorder(
    recipe: Recipe, prepared: Prepared, folder: RunFolder, result: Result, edited: nn.Module
) -> Recorder:
    named = {key: getattr(result, key) for key in ("candidates", "origin", "stopped")}
    search = {"way": prepared.search.engine.way, **named}

    def known() -> dict[str, Any]:
        return {**facts(result.edit, prepared.model, edited, recipe.populations()), "search": search}

    return Recorder(folder.record, recipe.kind, recipe.config.asked(), known)


class _Report:
    """Figures and report of a run."""

    def __init__(self, recipe: Recipe, config: EditingConfig, folder: RunFolder) -> None:
        self._recipe = recipe
        self._config = config
        self._folder = folder

    def write(self, finished: Finished) -> list[str]:
        """Returns what is missing, and why: the run has its edit and its metrics anyway."""
        figures, missing = draw_all(self._recipe.drawings(finished))
        try:
            write_figures(self._folder.plots, figures)
        except OSError as error:
            missing.append(f"plots: {reason_of(error)}")
            logger.warning("The figures could not be saved: %s", reason_of(error))
        try:
            settings = self._config.resolved()
            write_page(self._folder.report, self._recipe.page(finished), settings, finished, figures)
        except Exception as error:
            missing.append(f"report.html: {reason_of(error)}")
            logger.error("The report could not be written; edit and metrics are saved: %s", reason_of(error))
        return missing


def reason_of(error: Exception) -> str:
    """An error in words for people; its type is named only where it was not foreseen."""
    return f"{error}" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"
