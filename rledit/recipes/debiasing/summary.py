"""A debiasing run in one sentence: what was asked, achieved and spent, and whether it held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...objectives.budgets import ALIASES, WORST
from ...objectives.metric_digits import amount, change, rounded
from ...objectives.metric_names import display, label
from .changes import Changed, changed

ACHIEVED = ("bpsn_auc", "fped", "fned")
NO_EDIT = "no edit"
"""The origin of a run's edit that found nothing better."""


@dataclass(frozen=True)
class Summary:
    """The parts of the sentence.

    Attributes:
        asked, spent: "" where the budgets are not known.
        achieved: what came of it.
        held: whether every budget was kept; None where they are not known.
        broken: the budgets that were not.
    """

    asked: str
    achieved: str
    spent: str
    held: bool | None
    broken: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """ "yes", "no (which)", or "" where it is not known."""
        if self.held is None:
            return ""
        return "yes" if self.held else f"no ({', '.join(self.broken)})"

    @property
    def parts(self) -> dict[str, str]:
        """By what they are called, in the order of the sentence, without those that are not known."""
        parts = {
            "asked": self.asked,
            "achieved": self.achieved,
            "spent on test": self.spent,
            "held": self.verdict,
        }
        return {name: said for name, said in parts.items() if said}

    def __str__(self) -> str:
        sentence = "; ".join(f"{name}: {said}" for name, said in self.parts.items())
        return f"{sentence[0].upper()}{sentence[1:]}."


def summary(metrics: Mapping[str, Any]) -> Summary:
    """Of metrics.json, from its entry "budgets" and the test figures."""
    budgets = metrics.get("budgets") or ()
    broken = tuple(budget_label(budget["name"]) for budget in budgets if not budget["held"])
    asked = [f"{permitted(budget)} of {budget_label(budget['name'])}" for budget in budgets]
    spent = [f"{spent_on(budget, 'test')} of {budget_label(budget['name'])}" for budget in budgets]
    return Summary(
        asked=f"less bias for at most {_listed(asked)}" if asked else "",
        achieved=_achieved(metrics),
        spent=_listed(spent),
        held=not broken if budgets else None,
        broken=broken,
    )


def budget_key(name: str) -> str:
    """The metric that a budget is of, whose unit it has."""
    name = name.removesuffix(WORST)
    return ALIASES.get(name, name)


def budget_label(name: str) -> str:
    """A budget's name for people: ``budget_label("fnr.worst")`` is "any group's false negative rate"."""
    named = label(budget_key(name))
    return f"any group's {named}" if name.endswith(WORST) else named


def permitted(budget: Mapping[str, Any]) -> str:
    """What may be lost, with its unit."""
    if display(budget_key(budget["name"])).percent:
        return f"{100 * budget['asked']:.4g} points"
    return f"{budget['asked']:.4g}"


def spent_on(budget: Mapping[str, Any], split: str) -> str:
    """What was lost on "validation" or "test", with its interval where there is one."""
    spent = budget.get(split) or {}
    return amount(budget_key(budget["name"]), spent.get("spent"), spent.get("interval"))


def _achieved(metrics: Mapping[str, Any]) -> str:
    if metrics.get("origin") == NO_EDIT:
        return "nothing within this budget, the classifier is left as it was"
    figures = [changed(metrics["test"], key) for key in ACHIEVED]
    return _listed([from_to(figure) for figure in figures if figure.change is not None]) or "not measured"


def from_to(figure: Changed) -> str:
    """ "BPSN AUC 0.724 to 0.866 (+0.142 [0.120, 0.164])"."""
    before = rounded(figure.key, figure.before, figure.before_interval)
    after = rounded(figure.key, figure.after, figure.after_interval)
    by = change(figure.key, figure.change, figure.interval, like=figure.wider)
    return f"{label(figure.key)} {before} to {after} ({by})"


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
