"""How the audits of a run are shown: a few in the first table, all with intervals in one of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...audits.unlearning import HEADLINE
from ...experiments.report import scalars
from ...experiments.templating import render

_TEMPLATES = Path(__file__).parent / "templates"
MOST_COLUMNS = 8

Figures = Mapping[str, Any]
"""Of one model, by key, with "intervals"."""


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


def audit_section(models: Mapping[str, Figures]) -> Markup:
    """All figures of all models with their intervals; empty without models."""
    keys = scalars(models)
    return render("audits.html.j2", _TEMPLATES, models=models, keys=keys) if keys else Markup()
