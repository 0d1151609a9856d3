"""report.html of a debiasing run: what the general report lacks."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...experiments.report import Finished, Page
from ...experiments.templating import TEMPLATES, render
from ...objectives.metric_digits import amount
from .changes import (
    DIFFERENCES,
    LEVELS,
    PER_GROUP,
    RATES,
    UTILITY,
    Rise,
    TestSet,
    changed,
    groups_of,
    keys_of,
    rises,
    sizes_of,
    table,
)
from .charts import chart
from .facts import warning
from .summary import budget_key, budget_label, permitted, spent_on, summary
from .terms import TERMS, explained

_TEMPLATES = Path(__file__).parent / "templates"

OTHER_SETS = (*RATES, "bpsn_auc", "subgroup_auc", "bnsp_auc", "fped", "fned")
MOST_RISES = 20
"""Rows of those who got worse, where it is not known which are beyond their intervals."""


def page(finished: Finished, title: str, folder: Path, limits: str, layers: Sequence[str]) -> Page:
    """The report. Sections whose figures the metrics lack, as those of older runs do, are left out.

    Args:
        folder: of the run, as the commands that use its edit are to name it.
        layers: that were edited.
    """
    metrics = finished.metrics
    test = metrics["test"]
    sets = {"test split": test, **test["other"]}
    return Page(
        title=title,
        limits=limits,
        opening=[
            opening(metrics),
            budgets(metrics),
            levels(test),
            per_group_table(
                "Groups",
                test["before"],
                test["after"],
                change=test.get("change"),
                sizes=sizes_of(metrics, "test"),
                left_out=test.get("left_out"),
            ),
            worse(test),
        ],
        sections=[
            charts(sets),
            other_sets(test["other"]),
            words(metrics),
            data(metrics),
            trials_table(metrics["layers_tried"], layers),
            use(folder),
            _render("terms.html.j2", explained=explained((*UTILITY, *LEVELS, *DIFFERENCES))),
        ],
        script=Markup((TEMPLATES / "sort.js").read_text(encoding="utf-8")),
    )


def _render(template: str, **context: Any) -> Markup:
    return render(template, _TEMPLATES, terms=TERMS, **context)


def opening(metrics: Mapping[str, Any]) -> Markup:
    """The run in one sentence, and a warning where the classifier is useless."""
    classifier = metrics.get("data", {}).get("classifier", {})
    said = summary(metrics)
    return _render(
        "opening.html.j2",
        summary=said.parts,
        held=said.held,
        warning=warning(classifier) if classifier.get("useless") else "",
    )


def budgets(metrics: Mapping[str, Any]) -> Markup:
    """What was asked and spent of each budget; empty for runs that do not say."""
    rows = [
        {
            "label": budget_label(budget["name"]),
            "explained": TERMS.get(budget_key(budget["name"]), budget["name"]),
            "asked": permitted(budget),
            "validation": spent_on(budget, "validation"),
            "bound": amount(budget_key(budget["name"]), (budget.get("validation") or {}).get("bound")),
            "test": spent_on(budget, "test"),
            "held": budget["held"],
        }
        for budget in metrics.get("budgets") or ()
    ]
    return _render("budgets.html.j2", rows=rows) if rows else Markup()


def levels(test: TestSet) -> Markup:
    """The figures over all groups, with their changes."""
    sizes = test.get("sizes", {}).get("everyone")
    of = f", {sizes[0]:,} harmless and {sizes[1]:,} toxic sentences" if sizes else ""
    parts = {
        "On the comments": table(test, UTILITY),
        f"On the bias set as a whole{of}": table(test, LEVELS),
        "Differences between groups": table(test, DIFFERENCES),
    }
    note = "On the test split, which plays no part in choosing the edit, with bootstrap intervals at 95%."
    if any(row.beyond is not None for rows in parts.values() for row in rows):
        note += " Within noise: the interval of the change holds zero."
    return _render("levels.html.j2", heading="Result", parts=parts.items(), note=note)


def per_group_table(
    title: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    change: Mapping[str, Any] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Markup:
    """Every group before and after, with bootstrap intervals, the worst group first.

    Args:
        title: heading, plain text.
        before, after, change, left_out: as in metrics.json, of one set.
        sizes: harmless and toxic sentences by group.
    """
    test = {"before": before, "after": after, "change": change}
    keys = keys_of(test, PER_GROUP)
    rows = [(group, [changed(test, key, group) for key in keys]) for group in groups_of(test)]
    return _render(
        "per_group.html.j2",
        heading=title,
        keys=keys,
        rows=rows,
        sizes=sizes or {},
        sure=any(figure.beyond is not None for _, figures in rows for figure in figures),
        left_out=left_out or {},
    )


def worse(test: TestSet) -> Markup:
    """Whose error rates rose, and whether beyond what the test sentences vary."""
    found = rises(test)
    sure = [rise for rise in found if rise.figure.beyond]
    unknown = [rise for rise in found if rise.figure.beyond is None]
    rest = [rise for rise in found if rise.figure.beyond is False]
    shown = [*sure, *unknown] if unknown else [*sure, *rest[: max(0, MOST_RISES - len(sure))]]
    if unknown:
        others, shown = [*rest, *shown[MOST_RISES:]], shown[:MOST_RISES]
    else:
        others = rest[len(shown) - len(sure) :]
    return _render(
        "worse.html.j2", rises=found, shown=shown, others=others, sure=not unknown, said=_said(found)
    )


def _said(found: Sequence[Rise]) -> str:
    """Who got worse, in a sentence."""
    if not found:
        return ""
    groups = len({rise.group for rise in found})
    largest = found[0].figure
    text = (
        f"An error rate rose in {groups} {'group' if groups == 1 else 'groups'}, by "
        f"{amount(largest.key, largest.change, largest.interval, like=largest.wider)} at most"
    )
    if all(rise.figure.beyond is None for rise in found):
        return f"{text}."
    beyond = len({rise.group for rise in found if rise.figure.beyond})
    return f"{text}; beyond its interval in {beyond or 'none'} of them."


def charts(sets: Mapping[str, TestSet]) -> Markup:
    """Error rates of every group of every set; empty where no set has any."""
    drawn = [made for name, test in sets.items() if (made := chart(name, test)) is not None]
    return _render("charts.html.j2", charts=drawn) if drawn else Markup()


def other_sets(test: Mapping[str, TestSet]) -> Markup:
    """The same figures on unseen templates and transfer sets; empty without any."""
    keys = [key for key in OTHER_SETS if any(table(figures, [key]) for figures in test.values())]
    rows = [(name, [changed(figures, key) for key in keys]) for name, figures in test.items()]
    return _render("other_sets.html.j2", keys=keys, rows=rows) if keys else Markup()


def words(metrics: Mapping[str, Any]) -> Markup:
    """Which words the edit acts on; empty for runs that do not say."""
    if "words" not in metrics:
        return Markup()
    rows = [_word(row) for row in metrics["words"]]
    return _render(
        "words.html.j2",
        left_out=metrics.get("words_left_out", ""),
        words=rows,
        falls=[row for row in reversed(rows) if row["change"] < 0],
        rises=[row for row in rows if row["change"] > 0],
    )


def _word(row: Mapping[str, Any]) -> dict[str, Any]:
    before, after = (_chance(row[when]) for when in ("before", "after"))
    return {
        **row,
        "odds": f"{row['before']:.1f} to {row['after']:.1f}",
        "changed": f"{row['change']:+.1f}",
        "chance": after,
        "chances": f"{100 * before:.0f} to {100 * after:.0f}",
    }


def _chance(log_odds: float) -> float:
    """Of being toxic."""
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, log_odds))))


def data(metrics: Mapping[str, Any]) -> Markup:
    """What was known before training; empty for runs that do not say."""
    known = metrics.get("data")
    if not known:
        return Markup()
    return _render("data.html.j2", sets=known["sets"], classifier=known.get("classifier"))


def as_typed(folder: Path) -> Path:
    """A folder as one would name it here: relative within the working directory, which also keeps names of
    users out of a published page."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) and folder != here else folder


def use(folder: Path) -> Markup:
    """How to apply, revert and reload the edit of this run."""

    def quoted(*parts: str) -> str:
        return shlex.quote(str(folder.joinpath(*parts)))

    edit = quoted("edit.safetensors")
    model = quoted("model.safetensors")
    path = repr(str(folder / "edit.safetensors"))
    return _render(
        "use.html.j2",
        apply=f"rledit apply --edit {edit} --model {model} --out edited.safetensors",
        predict=f"rledit predict --run {quoted()} --texts FILE",
        verify=f"rledit verify {quoted()}",
        python="\n".join(
            (
                "import rledit",
                "",
                f"edit = rledit.Edit.load({path})",
                "edit.apply_(model)",
                "edit.revert_(model)  # the original weights, bit for bit",
            )
        ),
    )


def trials_table(trials: Iterable[Mapping[str, Any]], chosen: Sequence[str]) -> Markup:
    """What came of trying sets of layers; empty without trials."""
    tried = list(trials)
    if not tried:
        return Markup()
    return _render("trials.html.j2", trials=tried, chosen=list(chosen))
