"""The report of a run, and how audits are shown: a few in the first table, all with intervals in another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...audits import Audit
from ...audits.unlearning import HEADLINE, limits
from ...experiments.plots import Drawing, curves, heat_maps, per_class
from ...experiments.report import Finished, Page, scalars
from ...experiments.templating import render
from .config import UnlearningConfig

_TEMPLATES = Path(__file__).parent / "templates"
MOST_COLUMNS = 8

Figures = Mapping[str, Any]
"""Figures of one model by key, with "intervals"."""


def drawings(finished: Finished, classes: Sequence[str]) -> list[Drawing]:
    """The figures, not drawn yet."""
    bars = partial(per_class, finished.metrics, finished.metrics["baselines"], classes)
    return [
        *curves(finished.history, "reward", "accuracy"),
        Drawing("accuracy per class", bars),
        *heat_maps(finished.edit, finished.weights),
    ]


def page(
    config: UnlearningConfig,
    classes: Sequence[str],
    audits: Iterable[Audit],
    metrics: Mapping[str, Any],
    said: str = "",
) -> Page:
    """What is specific to this report.

    Args:
        audits: those whose figures the metrics may have; what they do not show is stated on the page.
        metrics: as in metrics.json.
        said: what is said about the audits, a sentence.
    """
    forgotten = ", ".join(classes[label] for label in config.forget)
    title = f"Forgetting {forgotten} of {config.dataset}: {config.world}, rank {config.rank}"
    models = audited_models(metrics)
    return Page(
        title, classes, limits(audits), headline=headline(models), sections=[audit_section(models, said)]
    )


def with_audits(metrics: Mapping[str, Any], audited: Mapping[str, Figures]) -> dict[str, Any]:
    """The metrics of a run with what was measured later in place of what it had measured itself.

    Args:
        metrics: as in metrics.json.
        audited: "unedited", "edited" and perhaps "retrained" -> figures.
    """
    test, baselines = dict(metrics.get("test", {})), dict(metrics.get("baselines", {}))
    for name, later in (("before", "unedited"), ("after", "edited")):
        test[name] = merged(test.get(name, {}), audited[later])
    if "retrained" in audited:  # its agreement is among the figures of the others, and is of this network
        known = baselines.get("retrain", {})
        baselines["retrain"] = {**known, "test": merged(known.get("test", {}), audited["retrained"])}
        baselines["retrain"].pop("agreement", None)
    return {**metrics, "test": test, "baselines": baselines}


def audited_models(metrics: Mapping[str, Any]) -> dict[str, Figures]:
    """The figures of every model in metrics.json, with what the retrained network has to say of them."""
    test, baselines = metrics.get("test", {}), metrics.get("baselines", {})
    models: dict[str, Figures] = {name: test[name] for name in ("before", "after") if test.get(name)}
    for name, figures in baselines.get("retrain", {}).get("agreement", {}).items():
        if name in models:
            models[name] = merged(models[name], figures)
    return models | {name: baseline["test"] for name, baseline in baselines.items() if "test" in baseline}


def merged(first: Figures, second: Figures) -> Figures:
    """The figures of both, with the intervals of both."""
    both = {**first.get("intervals", {}), **second.get("intervals", {})}
    return {**first, **second, "intervals": both}


def headline(models: Mapping[str, Figures]) -> Sequence[str]:
    """The figures of the first table: all, if they are few, else those that matter most."""
    keys = scalars(models)
    return keys if len(keys) <= MOST_COLUMNS else [key for key in HEADLINE if key in keys]


def audit_section(models: Mapping[str, Figures], said: str = "") -> Markup:
    """All figures of all models with their intervals, and a sentence on them; empty without models."""
    keys = scalars(models)
    return render("audits.html.j2", _TEMPLATES, models=models, keys=keys, said=said) if keys else Markup()
