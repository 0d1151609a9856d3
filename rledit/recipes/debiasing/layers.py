"""Which layers to edit where the user does not say: a short try of each set, judged on validation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...engine.relaxation import has_soft
from ...experiments.console import Console, say
from ...experiments.quiet import quiet
from ...objectives.metric_names import label
from ...samples import Samples
from ...search import Result
from ...storage.files import write_json
from .classifier import Classifier
from .config import DebiasConfig
from .task import completed, make_task, make_trainer

SHARE = 0.1
"""Share of a run's candidates for each set that is tried."""
SLOPES = 1_100
"""At most so many where gradients try: half as many steps, after which it shows what a set is good for."""

Trial = Mapping[str, Any]
"""``layer``: the names; ``candidates``; ``seconds``, as :class:`rledit.Result` has them; ``before`` and
``after``: validation metrics."""


def choose_layers(
    config: DebiasConfig,
    classifier: Classifier,
    samples: Mapping[str, Samples],
    path: Path,
    console: Console,
) -> tuple[DebiasConfig, list[Trial]]:
    """The config with the layers of the best trial, and all trials, which are kept in a file.

    The same config gives the same trials, so those of an interrupted run are simply made again. A run that is
    extended keeps its trials, which were as long as a tenth of what it was asked for at first.

    Raises:
        ValueError: if the file holds anything else than trials.
        KeyboardInterrupt: for Ctrl-C.
    """
    if config.layer:
        return config, []
    if path.exists():
        trials = _read(path)
    else:
        trials = [_try(config, layer, classifier, samples, console) for layer in config.layer_sets]
        write_json(path, trials)
    best = max(trials, key=lambda trial: trial["after"]["value"])
    return replace(config, layer=tuple(best["layer"])), trials


def _read(path: Path) -> list[Trial]:
    try:
        trials = json.loads(path.read_text(encoding="utf-8"))
        best = max(float(trial["after"]["value"]) for trial in trials)
        for trial in trials:
            for figure in (
                trial["candidates"],
                *(trial["seconds"][part] for part in ("score", "policy")),
                *(trial[when][name] for when in ("before", "after") for name in ("bpsn_auc", "utility_auc")),
            ):
                float(figure)
        layers = [tuple(str(name) for name in trial["layer"]) for trial in trials]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of trials: {error!r}") from error
    if not (math.isfinite(best) and all(layers)):
        raise ValueError(f"{path}: not a list of trials: a value or a name is missing")
    return list(trials)


def _try(
    config: DebiasConfig,
    layer: tuple[str, ...],
    classifier: Classifier,
    samples: Mapping[str, Samples],
    console: Console,
) -> Trial:
    config = replace(config, layer=layer, **_effort(config))
    with quiet():  # the run itself says what is to be said about its layers
        trainer = make_trainer(config, make_task(config, classifier, samples))
    result = completed(trainer, config.candidates, f"trying {', '.join(layer)}", console)
    validation = result.edit.metrics["validation"]
    assert isinstance(validation, dict)
    before, after = validation["before"], validation["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    say(
        console,
        f"{', '.join(layer)}: {label('bpsn_auc')} {before['bpsn_auc']:.3f} -> {after['bpsn_auc']:.3f} in "
        f"{result.candidates:,} candidates, value {after['value']:+.3f}",
    )
    return {"layer": list(layer), "candidates": result.candidates, "seconds": result.seconds,
            "before": before, "after": after}  # fmt: skip


def _effort(config: DebiasConfig) -> dict[str, Any]:
    """What a trial spends, and how. A tenth of its candidates tells little of where a search that counts
    would get; the slope tells more, and under shift it costs little more."""
    candidates = max(config.num_envs, round(SHARE * config.candidates))
    if config.world != "shift" or config.episode_length != 1 or not has_soft(config.objective()):
        return {"candidates": candidates}
    return {"candidates": min(candidates, SLOPES), "search": "gradient"}


def with_trials(result: Result, trials: Sequence[Trial]) -> Result:
    """The result with what the trials took added to its costs."""
    seconds = {
        part: taken + sum(trial["seconds"][part] for trial in trials)
        for part, taken in result.seconds.items()
    }
    candidates = result.candidates + sum(trial["candidates"] for trial in trials)
    return replace(result, candidates=candidates, seconds=seconds)
