"""report.html: one page without a network, a script or a second file."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from torch import Tensor

from ..edits.edit import Edit
from ..objectives.metric_names import axis_label, shown
from ..storage.files import write_text
from .history import History
from .plots import Plot, plots

LIMITS = (
    "A forget accuracy near zero shows the output no longer names the class; it does not show that the "
    "features no longer carry it. Suppressing one logit is enough for it. The probe accuracy is what a fresh "
    "linear classifier on the last features still recalls of the forgotten class: compare it with the "
    "network retrained without the class. Membership inference and the speed of relearning are not "
    "measured. All numbers here are of one run on one test split."
)

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 3rem; max-width: 70rem; background: #fff; color: #1c1f23;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .35rem; font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.15rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { color: #454b54; font-size: 1.05rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem 1.6rem .5rem 0; text-align: left; border-bottom: 1px solid #e3e6ea;
  vertical-align: top; }
thead th { color: #5a616b; font-weight: 600; font-size: .88rem; border-bottom-color: #b5bac1; }
td.number, th.number { text-align: right; padding: .5rem .4rem .5rem 1.6rem; white-space: nowrap; }
.headline { min-width: min(34rem, 100%); }
.headline td, .headline th[scope=row] { font-size: 1.1rem; }
.headline th[scope=row] { font-weight: 400; }
.headline tr.after > * { font-weight: 700; }
th[scope=row] { font-weight: 400; }
.note { color: #5a616b; font-size: .9rem; }
.figures { display: grid; gap: 1.75rem 2.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
  align-items: start; }
figure { margin: 0; break-inside: avoid; }
figure img { display: block; width: 100%; max-width: 38rem; height: auto; }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; }
.tables section { flex: 1 1 24rem; min-width: 0; max-width: 34rem; }
.tables th { white-space: nowrap; }
.tables td, .tables th { font-size: .92rem; padding-top: .3rem; padding-bottom: .3rem;
  overflow-wrap: anywhere; }
.limits { margin-top: 2.5rem; padding: .9rem 1.2rem; border-left: 4px solid #E69F00; background: #fdf8ec; }
.limits h2 { margin: 0 0 .3rem; }
footer { margin-top: 2.5rem; color: #5a616b; font-size: .85rem; }
@media (max-width: 34rem) {
  body { padding: 1.25rem .9rem 2rem; }
  h1 { font-size: 1.4rem; }
  td.number, th.number { padding-left: .7rem; }
  th, td { padding-right: .7rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 11pt; }
  .figures { grid-template-columns: 1fr 1fr; gap: 1rem; }
  .limits, tr, section { break-inside: avoid; }
}
"""


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
) -> None:
    """Writes report.html, atomically.

    Args:
        path: the file.
        title: heading of the page, plain text.
        config: what the run was asked to do; shown as a table.
        metrics: metrics.json: {"test": {"before": {...}, "after": {...}}, "validation": ...,
            "seconds": {...}, "candidates": n, "baselines": {name: {"test": {...}}}}.
            Accuracies are fractions. Every part may be absent, as it is in an interrupted run.
        history: of any length, also empty.
        edit: the chosen edit, or None when there is none yet.
        weights: module name -> weight before the edit.
        classes: a name per class, in the order of per_class_accuracy.
        baselines: name -> {"test": {...}}, added to those in `metrics`.
        figures: from `plots`, when they are at hand (they take most of the time).
        limits: what the figures do not show, plain text.
        sections: more HTML to stand behind the figures, escaped by the caller.
        headline: the metrics of the first table; by default all that are one number.

    Raises:
        OSError: the disk refuses; the previous report is intact.
    """
    others = {**metrics.get("baselines", {}), **(baselines or {})}
    if figures is None:
        figures = plots(
            metrics=metrics, history=history, edit=edit, weights=weights, classes=classes, baselines=others
        )
    body = [
        f"<header><h1>{escape(title)}</h1>{_lead(metrics, edit)}</header>",
        _headline(metrics, others, headline),
        _figures(figures),
        *sections,
        f'<section class="limits"><h2>What this does not show</h2><p>{escape(limits)}</p></section>',
        '<div class="tables">',
        _table("Configuration", _flat(config)),
        _table("Time", _times(metrics)),
        "</div>",
        f"<footer>{escape(repr(edit)) if edit is not None else 'No edit was chosen.'}</footer>",
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    content = "\n".join(body)
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{content}\n</body></html>\n'
    write_text(path, page)


def _lead(metrics: Mapping[str, Any], edit: Edit | None) -> str:
    """The result in one sentence."""
    parts = []
    if edit is not None:
        names = escape(", ".join(edit.targets))
        parts.append(f"A {edit.world} edit of rank {edit.rank} on {names}")
    if metrics.get("candidates") is not None:
        parts.append(f"{metrics['candidates']:,} candidates scored")
    seconds = metrics.get("seconds", {}).get("edit")
    if seconds is not None:
        parts.append(f"{seconds:,.1f} s of editing")
    return f'<p class="lead">{"; ".join(parts) or "An unfinished run"}.</p>'


def _headline(
    metrics: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], headline: Sequence[str]
) -> str:
    test = metrics.get("test", {})
    rows = {name: test[name] for name in ("before", "after") if test.get(name)}
    rows |= {name: value.get("test", value) for name, value in baselines.items()}
    if not rows:
        return "<h2>Result</h2><p>No metrics yet: the run was interrupted before its evaluation.</p>"
    scalars = {k: None for row in rows.values() for k, v in row.items() if isinstance(v, (int, float))}
    preferred = [key for key in ("forget_accuracy", "retain_accuracy") if key in scalars]
    keys = list(headline) or preferred + [key for key in scalars if key not in preferred]
    head = "".join(f'<th scope="col" class="number">{escape(axis_label(key))}</th>' for key in keys)
    lines = []
    for name, row in rows.items():
        cells = "".join(f'<td class="number">{shown(key, row.get(key), unit=False)}</td>' for key in keys)
        lines.append(f'<tr class="{escape(name)}"><th scope="row">{escape(name)}</th>{cells}</tr>')
    body = "".join(lines)
    return (
        '<h2>Result</h2><div class="scroll"><table class="headline"><thead><tr>'
        f'<th scope="col">model</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="note">On the test split, which plays no part in choosing the edit.</p>'
    )


def _figures(figures: Sequence[Plot]) -> str:
    if not figures:
        return "<h2>Figures</h2><p>Nothing to draw yet.</p>"
    images = []
    for plot in figures:
        data = base64.b64encode(plot.svg).decode("ascii")
        source = f"data:image/svg+xml;base64,{data}"
        images.append(f'<figure><img alt="{escape(plot.alt)}" src="{source}"></figure>')
    return f'<h2>Figures</h2><div class="figures">{"".join(images)}</div>'


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


def _table(title: str, rows: Mapping[str, str]) -> str:
    if not rows:
        return ""
    kind = ' class="number"' if title == "Time" else ""
    lines = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td{kind}>{escape(value)}</td></tr>'
        for key, value in rows.items()
    )
    return f"<section><h2>{escape(title)}</h2><table><tbody>{lines}</tbody></table></section>"
