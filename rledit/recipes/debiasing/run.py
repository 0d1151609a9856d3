"""A whole debiasing run: what it adds to what all runs have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ...edits import Edit
from ...experiments.console import Console, PlainConsole, supervised_bar
from ...experiments.folder import RunFolder
from ...experiments.plots import Drawing, curves, heat_maps
from ...experiments.record import Population
from ...experiments.report import Finished, Page
from ...experiments.result import RunResult
from ...experiments.run import Options, Prepared, Recipe, carry_out
from ...experiments.training import CHECKPOINT_SECONDS
from ...heads import HEAD_SAMPLES
from ...objectives.paired import Comparison, Resamples
from .changes import RATES
from .classifier import Classifier, train_or_load
from .config import DebiasConfig
from .data import UNSEEN, DebiasData, load_sets, no_inputs, shares_of
from .evaluation import compare, margins_of, resamples_of, spending
from .facts import facts, tell
from .figures import error_rates, front
from .layers import choose_layers, with_trials
from .limits import limits
from .other_labels import sparing_other_labels
from .record import populations
from .report import as_typed, page
from .task import editing_samples, make_task, make_trainer
from .transformer import write_edited
from .words import changed_words

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

    def __init__(
        self,
        config: DebiasConfig,
        data_root: str | Path | None = None,
        data: DebiasData | None = None,
    ) -> None:
        """``data``: in place of what the config names."""
        self.config: DebiasConfig = config
        if data is None:
            data = DebiasData(load_sets(config, data_root), config.seed, shares_of(config))
        self._data = data
        self._classifier: Classifier | None = None
        self._folder = Path()
        self._on_test: Comparison | None = None

    kind = "debiasing"

    def unedited(self, path: Path) -> nn.Module:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        self._classifier, _ = self.classifier(path, PlainConsole(quiet=True))
        return self._classifier.model

    def populations(self) -> Mapping[str, Population]:
        assert self._classifier is not None
        return populations(self._classifier, self._data)

    def classifier(self, path: Path, console: Console) -> tuple[Classifier, float]:
        """From its file, or trained and saved there; and the seconds that its training took."""
        bar = partial(supervised_bar, "training the classifier", console)
        return train_or_load(self.config, self._data, path, bar)

    def prepare(self, folder: RunFolder, console: Console) -> Prepared:
        classifier, seconds = self.classifier(folder.model, console)
        self._classifier = classifier
        self._folder = as_typed(folder.path)
        known = facts(classifier, self._data)
        tell(known, console)
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
            metrics={"layer": list(config.layer), "layers_tried": trials, "data": known},
            add_costs=lambda result: sparing_other_labels(
                with_trials(result, trials), classifier.model, samples["validation"].head(HEAD_SAMPLES)
            ),
        )

    def leave(self, folder: RunFolder, edit: Edit) -> Sequence[Path]:
        if not self.config.classifier:
            return ()
        write_edited(edit, self.config.classifier, folder.edited_model)
        return (folder.edited_model,)

    def evaluate(self, edited: nn.Module) -> dict[str, Any]:
        assert self._classifier is not None
        figures, self._on_test = measured(
            self._classifier, edited, self._data, self.config.seed, self.config.chosen_least
        )
        return figures

    def about_edit(self, edited: nn.Module, test: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked of each budget and what was spent, and the words that the edit acts on."""
        assert self._classifier is not None
        assert self._on_test is not None
        objective = self.config.objective()
        split, identities = self._data.splits["validation"], self._data.identities
        samples = split.samples(no_inputs, identities)
        resamples = resamples_of(samples, identities, least=objective.least_group)
        validation = _compared(self._classifier, edited, split.both.texts, resamples)[1]
        spent = spending(objective.held, validation, self._on_test, objective.confidence)
        return {"budgets": spent, **changed_words(self._classifier, edited, self._data)}

    def kept_with_edit(self, test: Mapping[str, Any]) -> dict[str, Any]:
        return {
            when: {key: value for key, value in test[when].items() if isinstance(value, float)}
            for when in ("before", "after")
        }

    def drawings(self, finished: Finished) -> list[Drawing]:
        metrics = finished.metrics
        spendable = self.config.objective().spendable
        sets = {"": metrics["test"], **metrics["test"]["other"]}
        return [
            Drawing("front", partial(front, metrics["front"], metrics["validation"], spendable)),
            *curves(finished.history, "reward", "AUC"),
            *heat_maps(finished.edit, finished.weights),
            *[
                Drawing(f"{name} {where}".strip(), partial(error_rates, test, name, where))
                for where, test in sets.items()
                for name in RATES
            ],
        ]

    def page(self, finished: Finished) -> Page:
        config, metrics = self.config, finished.metrics
        layers = metrics["layer"]
        return page(
            finished,
            f"Debiasing {', '.join(layers)} on {config.data_name}: {config.world}, rank {finished.edit.rank}",
            self._folder,
            limits(config, metrics, bool(self._data.splits["test"].bias.templates)),
            layers,
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
        # Of templates that are held out there are few sentences a group, and nothing is chosen by them.
        enough = max(1, least // 2) if name == UNSEEN else least
        return _compared(classifier, edited, texts, resamples_of(samples, identities, seed, enough))

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
