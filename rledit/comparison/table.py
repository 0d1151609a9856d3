"""The rows of a comparison as CSV and Markdown, and which methods are ahead of which."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ..methods import METHODS
from ..methods.base import Need
from ..objectives.metric_names import direction, label, shown
from ..storage.files import write_text
from .cells import UNEDITED, VERSION

Row = Mapping[str, Any]

COLUMNS = {
    "forget_accuracy": "forget_accuracy",
    "retain_accuracy": "retain_accuracy",
    "forget_probe_accuracy": "probe_recall",
    "forget_mlp_probe_accuracy": "mlp_probe_recall",
    "forget_1_shot_accuracy": "one_shot_recall",
    "membership_auc": "membership_auc",
    "relearn_steps": "relearn_steps",
    "seconds": "seconds",
    "evaluations": "evaluations",
    "steps": "steps",
}
"""Figures of the first columns, and their names in the CSV; all others follow under their own. Readers of the
file rely on these names; what people see in ``table.md`` is in :mod:`rledit.objectives.metric_names`."""

FRONT = ("forget_accuracy", "retain_accuracy", "forget_probe_accuracy")
"""What a method must be as good in as another to be ahead of it, and better in one."""

DEVIATIONS = 2.0
"""How many standard deviations of the difference it must be better by."""

NEEDS: tuple[Need, ...] = get_args(Need)
"""Columns of what methods need, apart from the weights."""


def write_tables(folder: Path, rows: Sequence[Row], command: str = "") -> None:
    """Leave ``table.csv``, one line per cell, and ``table.md``, means and standard deviations over seeds."""
    write_text(folder / "table.csv", as_csv(rows))
    write_text(folder / "table.md", as_markdown(rows, command))


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each cell; empty where a figure is unknown."""
    known = {"task", "method", "seed", "settings", "intervals", *COLUMNS}
    others = list(dict.fromkeys(key for row in rows for key in row if key not in known))
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    needs = [f"needs_{need.replace(' ', '_')}" for need in NEEDS]
    out.writerow(["task", "method", "seed", *COLUMNS.values(), *others, *needs])
    for row in rows:
        method = METHODS.get(row["method"])
        out.writerow(
            [
                *(row[key] for key in ("task", "method", "seed")),
                *("" if row.get(key) is None else row[key] for key in (*COLUMNS, *others)),
                *(int(method is not None and need in method.needs) for need in NEEDS),
            ]
        )
    return text.getvalue()


def as_markdown(rows: Sequence[Row], command: str = "") -> str:
    """A table for each task, what each method needs, and which methods are ahead of which."""
    parts = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        parts += [f"## {task}", _table(own), _ahead(own)]
    parts.append(_methods(rows))
    if command:
        parts.append(f"Made by\n\n```\n{command}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(rows: Sequence[Row], key: str) -> tuple[float, float, int]:
    """Mean, sample standard deviation and number of the known values; NaN for a mean of none, or a deviation
    of one."""
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    n = len(values)
    mean = sum(values) / n if n else math.nan
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else math.nan
    return mean, spread, n


def by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of one task, in the order of tables."""
    order = [UNEDITED, *METHODS]
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (order.index(row["method"]), row["seed"])):
        found.setdefault(row["method"], []).append(row)
    return found


def ahead_of(rows: Sequence[Row], method: str) -> list[str]:
    """The methods whose means are at least as good in all of :data:`FRONT`, and better in one of them by more
    than :data:`DEVIATIONS` standard deviations of the difference of two runs. Neither the unedited nor the
    retrained network takes part. With one seed nothing can be said, and no method is named."""
    groups = by_method(rows)
    named = []
    for other, theirs in groups.items():
        if other in (method, UNEDITED, "retrain"):
            continue
        gains = [_gain(theirs, groups[method], key) for key in FRONT]
        if all(gain >= 0 for gain, _ in gains) and any(gain > DEVIATIONS * sd for gain, sd in gains):
            named.append(other)
    return named


def _gain(rows: Sequence[Row], than: Sequence[Row], key: str) -> tuple[float, float]:
    """How much better the mean of some rows is, and the standard deviation of the difference of two runs;
    NaN where they cannot be known."""
    (a, spread_a, _), (b, spread_b, _) = summary(rows, key), summary(than, key)
    return direction(key) * (a - b), math.hypot(spread_a, spread_b)


def _cell(rows: Sequence[Row], key: str) -> str:
    mean, spread, n = summary(rows, key)
    if not n:
        return "n/a"
    if key in ("seconds", "evaluations", "steps"):
        return f"{mean:,.1f}" if key == "seconds" else f"{mean:,.0f}"
    text = shown(key, mean, unit=False)
    return text if math.isnan(spread) else f"{text} ± {shown(key, spread, unit=False)}"


def _table(rows: Sequence[Row]) -> str:
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    head = ["method", *(label(key) for key in keys)]
    lines = [_line(head), _line(["---", *("---:" for _ in keys)])]
    for method, own in by_method(rows).items():
        lines.append(_line([_title(method), *(_cell(own, key) for key in keys)]))
    seeds = sorted({row["seed"] for row in rows})
    note = f"Means of seeds {', '.join(map(str, seeds))} on the test split, ± one standard deviation."
    return "\n\n".join(part for part in ("\n".join(lines), note, _versions(rows)) if part)


def _versions(rows: Sequence[Row]) -> str:
    """A sentence on which versions of rledit measured the rows of one table, where they differ."""
    found: dict[tuple[Any, ...], int] = {}
    for row in rows:
        made = tuple(row.get(f"{VERSION}_{part}") for part in ("version", "code", "compiled"))
        found[made] = found.get(made, 0) + 1
    if len(found) < 2:
        return ""
    named = [f"{_version(*made)} {count}" for made, count in found.items()]
    return (
        "These cells were measured by differing versions of rledit, so their figures may differ by more than "
        f"the methods do: {'; '.join(named)} of {len(rows)} cells."
    )


def _version(version: str | None, code: str | None, compiled: str | None) -> str:
    if version is None:
        return "one that is not named"
    code, compiled = (str(part).removeprefix("sha256:")[:8] for part in (code, compiled))
    return f"{version} (code {code}, compiled {compiled})"


def _ahead(rows: Sequence[Row]) -> str:
    """For each of rledit's own methods, a sentence on whether any other is ahead of it."""
    if len({row["seed"] for row in rows}) < 2:
        return "From one seed it cannot be said which method is ahead of which."
    lines = [
        "A method is ahead of another if its mean forget accuracy, retain accuracy and probe accuracy are "
        f"all at least as good, and one of them is better by more than {DEVIATIONS:g} standard deviations.",
        "",
    ]
    for method in by_method(rows):
        if method.startswith("rledit"):
            better = ahead_of(rows, method)
            lines.append(f"- Ahead of {_title(method)}: {', '.join(map(_title, better)) or 'none'}.")
    return "\n".join(lines)


def _methods(rows: Sequence[Row]) -> str:
    names = [name for name in METHODS if any(row["method"] == name for row in rows)]
    lines = [_line(["method", "source", *NEEDS]), _line(["---", "---", *(":---:" for _ in NEEDS)])]
    for name in names:
        method = METHODS[name]
        marks = ["x" if need in method.needs else "" for need in NEEDS]
        lines.append(_line([method.title, method.source, *marks]))
    return "\n".join(["## What each method needs", "", *lines])


def _title(method: str) -> str:
    return METHODS[method].title if method in METHODS else method


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
