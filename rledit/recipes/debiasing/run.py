"""A whole debiasing run: what it brings beside that which all runs have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ...experiments.console import Console, PlainConsole, supervised_bar
from ...experiments.folder import RunFolder
from ...experiments.plots import Drawing, curves, heat_maps
from ...experiments.record import Population
from ...experiments.report import Finished, Page
from ...experiments.result import RunResult
from ...experiments.run import Options, Prepared, Recipe, carry_out
from ...experiments.training import CHECKPOINT_SECONDS
from ...objectives.paired import Comparison, Resamples
from .classifier import Classifier, train_or_load
from .config import DebiasConfig
from .data import DebiasData, load_sets, no_inputs
from .evaluation import compare, margins_of, resamples_of, spending
from .figures import RATES, error_rates, front
from .layers import choose_layers, with_trials
from .record import populations
from .report import HEADLINE, LIMITS, other_sets, per_group_table, trials_table
from .task import editing_samples, make_task, make_trainer

logger = logging.getLogger("rledit")


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
) -> RunResult:
    """Carry a debiasing run out in a folder.

    Args:
        config: what to do.
        out: the run folder.
        data_root: folder with the comments; else RLEDIT_DATA, else the cache.
        resume: go on with the run in the folder. With a larger ``config.candidates`` a finished run is
            extended; it keeps the layers that it chose.
        overwrite: delete the run in the folder and start anew.
        tensorboard: also write TensorBoard events.
        checkpoint_seconds: least time between two checkpoints.
        console: for progress, such as ``rich.console.Console``; by default standard error.

    Raises:
        ValueError, OSError: see :class:`RunFolder`, :func:`rledit.zoo.data.load_comments` and
            :class:`rledit.Task`.
        KeyboardInterrupt: see :func:`rledit.experiments.run.carry_out`.
    """
    recipe = DebiasRecipe(config, data_root)
    return carry_out(recipe, out, Options(resume, overwrite, tensorboard, checkpoint_seconds, console))


class DebiasRecipe(Recipe):
    """A toxicity classifier becomes fairer across identity groups."""

    def __init__(self, config: DebiasConfig, data_root: str | Path | None = None) -> None:
        self.config: DebiasConfig = config
        self._data = DebiasData(load_sets(config, data_root), config.seed)
        self._classifier: Classifier | None = None
        self._on_test: Comparison | None = None

    kind = "debiasing"

    def unedited(self, path: Path) -> nn.Module:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        bar = partial(supervised_bar, "training the classifier", PlainConsole(quiet=True))
        self._classifier, _ = train_or_load(self.config, self._data, path, bar)
        return self._classifier.model

    def populations(self) -> Mapping[str, Population]:
        assert self._classifier is not None
        return populations(self._classifier, self._data)

    def prepare(self, folder: RunFolder, console: Console) -> Prepared:
        bar = partial(supervised_bar, "training the classifier", console)
        classifier, seconds = train_or_load(self.config, self._data, folder.model, bar)
        self._classifier = classifier
        samples = editing_samples(classifier, self._data)
        config, trials = choose_layers(self.config, classifier, samples, folder.layers, console)
        task = make_task(config, classifier, samples)
        search = make_trainer(config, task)
        return Prepared(
            config=replace(config, rank=search.engine.rank),
            model=classifier.model,
            task=task,
            search=search,
            what=(
                f"{', '.join(config.layer)}, scored on {len(task.samples):,} texts and "
                f"{len(self._data.identities)} identity groups"
            ),
            pretrain_seconds=seconds,
            metrics={"layer": list(config.layer), "layers_tried": trials},
            add_costs=partial(with_trials, trials=trials),
        )

    def evaluate(self, edited: nn.Module) -> dict[str, Any]:
        assert self._classifier is not None
        figures, self._on_test = measured(
            self._classifier, edited, self._data, self.config.seed, self.config.chosen_least
        )
        return figures

    def told(self, edited: nn.Module, test: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked of each budget, and what was spent."""
        assert self._classifier is not None
        assert self._on_test is not None
        objective = self.config.objective()
        split, identities = self._data.splits["validation"], self._data.identities
        samples = split.samples(no_inputs, identities)
        resamples = resamples_of(samples, identities, least=objective.least_group)
        validation = _compared(self._classifier, edited, split.both.texts, resamples)[1]
        return {"budgets": spending(objective.held, validation, self._on_test, objective.confidence)}

    def kept_with_edit(self, test: Mapping[str, Any]) -> dict[str, Any]:
        return {
            when: {key: value for key, value in test[when].items() if isinstance(value, float)}
            for when in ("before", "after")
        }

    def drawings(self, finished: Finished) -> list[Drawing]:
        metrics = finished.metrics
        spendable = self.config.objective().spendable
        return [
            *[Drawing(name, partial(error_rates, metrics["test"], name)) for name in RATES],
            Drawing("front", partial(front, metrics["front"], metrics["validation"], spendable)),
            *curves(finished.history, "reward", "AUC"),
            *heat_maps(finished.edit, finished.weights),
        ]

    def page(self, finished: Finished) -> Page:
        config, metrics = self.config, finished.metrics
        test, layers = metrics["test"], metrics["layer"]
        data = " and ".join(config.dataset)
        return Page(
            title=f"Debiasing {', '.join(layers)} on {data}: {config.world}, rank {finished.edit.rank}",
            limits=LIMITS,
            headline=HEADLINE,
            sections=[
                trials_table(metrics["layers_tried"], layers),
                other_sets(test["other"]),
                per_group_table("Per group", test["before"], test["after"]),
            ],
        )


def measure(
    classifier: Classifier, edited: nn.Module, data: DebiasData, seed: int, least: int = 1
) -> dict[str, Any]:
    """Test figures before and after, and what changed; under "other" those of unseen templates and of the
    transfer sets. Of these, one that cannot be evaluated is left out, with a warning."""
    return measured(classifier, edited, data, seed, least)[0]


def measured(
    classifier: Classifier, edited: nn.Module, data: DebiasData, seed: int, least: int = 1
) -> tuple[dict[str, Any], Comparison]:
    """:func:`measure`, and the comparison on the test split."""

    def figures(name: str) -> tuple[dict[str, Any], Comparison]:
        texts, samples, identities = sets[name]
        return _compared(classifier, edited, texts, resamples_of(samples, identities, seed, least))

    sets = data.test_sets()
    other = {}
    for name in sets:
        if name == "test":
            continue
        try:
            other[name] = figures(name)[0]
        except Exception as error:
            logger.warning("%s: left out of the evaluation: %s: %s", name, type(error).__name__, error)
    test, comparison = figures("test")
    return {**test, "other": other}, comparison


def _compared(
    classifier: Classifier, edited: nn.Module, texts: Sequence[str], resamples: Resamples
) -> tuple[dict[str, Any], Comparison]:
    before, after = (margins_of(model, classifier.encode, texts) for model in (classifier.model, edited))
    return compare(before, after, resamples)
