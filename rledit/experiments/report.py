"""report.html: one page without a network or a second file, in which nothing that is data can run."""

from __future__ import annotations

import base64
import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from torch import Tensor

from ..audits.unlearning import limits as unlearning_limits
from ..edits.edit import Edit
from ..extras import MissingExtraError
from ..storage.files import write_text
from .history import History
from .plots import Plot, plots
from .templating import render

LIMITS = unlearning_limits()


@dataclass(frozen=True)
class Finished:
    """What a report is made of."""

    metrics: Mapping[str, Any]
    history: History
    edit: Edit
    weights: Mapping[str, Tensor]
    """Weights of the targets before the edit, on the CPU."""


@dataclass(frozen=True)
class Page:
    """What is specific to a recipe's report. Arguments as in :func:`write_report`."""

    title: str
    classes: Sequence[str] = ()
    limits: str = LIMITS
    headline: Sequence[str] = ()
    sections: Sequence[Markup] = ()
    opening: Sequence[Markup] = ()
    script: str = ""


def write_page(
    path: str | os.PathLike[str],
    page: Page,
    settings: Mapping[str, Any],
    finished: Finished,
    figures: Sequence[Plot] | None,
) -> None:
    """The report of a finished run, see :func:`write_report`."""
    write_report(
        path,
        title=page.title,
        config=settings,
        metrics=finished.metrics,
        history=finished.history,
        edit=finished.edit,
        weights=finished.weights,
        classes=page.classes,
        figures=figures,
        limits=page.limits,
        headline=page.headline,
        sections=page.sections,
        opening=page.opening,
        script=page.script,
    )


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: History,
    edit: Edit | None,
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    figures: Sequence[Plot] | None = None,
    limits: str = LIMITS,
    sections: Sequence[str] = (),
    headline: Sequence[str] = (),
    opening: Sequence[Markup] = (),
    script: str = "",
) -> None:
    """Writes report.html, atomically.

    Args:
        path: the file.
        title: heading of the page, plain text.
        config: what the run was asked to do; shown as a table.
        metrics: metrics.json: {"test": {"before": {...}, "after": {...}}, "validation": ...,
            "seconds": {...}, "candidates": n, "baselines": {name: {"test": {...}}}}.
            Accuracies are fractions. Every part may be absent, as it is in an interrupted run.
        history: may be of any length, also empty.
        edit: the chosen edit, or None when there is none yet.
        weights: module name -> weight before the edit.
        classes: a name per class, in the order of per_class_accuracy.
        baselines: name -> {"test": {...}}, added to those in `metrics`.
        figures: from `plots`, if already drawn (they take most of the time). By default they are drawn
            here, where matplotlib is installed.
        limits: what the figures do not show, plain text.
        sections: more of the page to stand behind the figures, from
            :func:`rledit.experiments.templating.render`. Plain strings, taken as HTML, are deprecated.
        headline: the metrics of the first table; by default all that are one number.
        opening: what stands first, in place of that table, the most important of it before all else.
        script: JavaScript of the page's own, the only one that a browser will run in it. The page must be
            whole without it.

    Raises:
        OSError: the disk refuses; the previous report is intact.
    """
    others = {**metrics.get("baselines", {}), **(baselines or {})}
    no_figures = "Nothing to draw yet."
    if figures is None:
        try:
            figures = plots(
                metrics=metrics,
                history=history,
                edit=edit,
                weights=weights,
                classes=classes,
                baselines=others,
            )
        except MissingExtraError as error:
            figures, no_figures = (), f"None: {error}."
    models = _models(metrics, others)
    page = render(
        "report.html.j2",
        title=title,
        lead=_lead(metrics, edit),
        models={name: defaultdict(lambda: None, row) for name, row in models.items()},
        keys=list(headline) or scalars(models),
        figures=[figure for figure in figures if figure.on_page],
        no_figures=no_figures,
        opening=opening,
        script=Markup(script),
        policy=_policy(script),
        sections=[_section(section) for section in sections],
        limits=limits,
        tables=[("Configuration", False, _flat(config)), ("Time", True, _times(metrics))],
        footer="No edit was chosen." if edit is None else repr(edit),
    )
    write_text(path, page)


def _policy(script: str) -> str:
    """The page's Content-Security-Policy (https://www.w3.org/TR/CSP3/): no network, images from the page
    itself, and no script but this one, whatever else may have got into the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    allowed = f"'sha256-{digest}'" if script else "'none'"
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def _section(section: str | Markup) -> Markup:
    if not isinstance(section, Markup):
        warnings.warn(
            "write_report: sections of plain text are deprecated, use rledit.experiments.templating.render",
            DeprecationWarning,
            stacklevel=3,
        )
    return Markup(section)


def _lead(metrics: Mapping[str, Any], edit: Edit | None) -> str:
    """The result in one sentence."""
    parts = []
    if edit is not None:
        parts.append(f"A {edit.world} edit of rank {edit.rank} on {', '.join(edit.targets)}")
    if metrics.get("candidates") is not None:
        parts.append(f"{metrics['candidates']:,} candidates scored")
    seconds = metrics.get("seconds", {}).get("edit")
    if seconds is not None:
        parts.append(f"{seconds:,.1f} s of editing")
    return "; ".join(parts) or "An unfinished run"


def _models(
    metrics: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """The rows of the first table: test figures by model."""
    test = metrics.get("test", {})
    rows = {name: test[name] for name in ("before", "after") if test.get(name)}
    return rows | {name: value.get("test", value) for name, value in baselines.items()}


def scalars(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The metrics that are one number in the figures of some model, those of unlearning first."""
    found = {key: None for row in models.values() for key, v in row.items() if isinstance(v, (int, float))}
    preferred = [key for key in ("forget_accuracy", "retain_accuracy") if key in found]
    return preferred + [key for key in found if key not in preferred]


def _times(metrics: Mapping[str, Any]) -> dict[str, str]:
    rows = {str(k): f"{v:,.2f} s" for k, v in metrics.get("seconds", {}).items() if v is not None}
    candidates, score = metrics.get("candidates"), metrics.get("seconds", {}).get("score")
    if candidates is not None:
        rows["candidates"] = f"{candidates:,}"
        if score:
            rows["candidates per second of scoring"] = f"{candidates / score:,.0f}"
    return rows


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            rows[f"{prefix}{key}"] = ", ".join(map(str, value))
        else:
            rows[f"{prefix}{key}"] = str(value)
    return rows
