"""Before and after on test sets, with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...objectives.debias import ROUNDING
from ...objectives.paired import Comparison, Figures, Resamples
from ...objectives.rates import Figure, lacking
from ...samples import Samples
from ...storage.files import Json

BATCH = 1024


@torch.no_grad()
def margins_of(model: nn.Module, encode: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> Tensor:
    """logit[1] - logit[0] of each text, float32 [S]. Batch by batch: a whole test set as one-hot words would
    take gigabytes."""
    starts = range(0, len(texts), BATCH)
    logits = torch.cat([model(encode(texts[start : start + BATCH])) for start in starts])
    return (logits[:, 1] - logits[:, 0]).float()


def evaluate(
    margins: Tensor, samples: Samples, identities: Sequence[str], seed: int = 0, least: int = 1
) -> dict[str, Json]:
    """Figures of one classifier on one test set.

    Args:
        margins: [S], see :func:`margins_of`.
        samples: with a group "bias", and with "utility" if utility is to be measured.
        identities: identity groups.
        seed: of the resamples.
        least: see :class:`rledit.objectives.paired.Resamples`.

    Returns:
        every metric of :data:`rledit.objectives.METRICS` that can be measured; ``accuracy`` is utility's.
        ``per_group`` has the AUCs and rates of each group, as far as it has them. ``interval`` has bootstrap
        intervals of all that, from the resamples in which a figure can be measured.
    """
    resamples = resamples_of(samples, identities, seed, least)
    measured = resamples.measure(margins)
    return _figures(measured.whole, measured.drawn)


def resamples_of(samples: Samples, identities: Sequence[str], seed: int = 0, least: int = 1) -> Resamples:
    """Of those identity groups that the samples have."""
    present = [name for name in identities if name in samples.groups]
    return Resamples(samples, present, least=least, seed=seed)


def compare(before: Tensor, after: Tensor, resamples: Resamples) -> tuple[dict[str, Json], Comparison]:
    """Figures of two classifiers on one test set, and what changed.

    Args:
        before, after: margins [S], see :func:`margins_of`.
        resamples: of the set, see :func:`resamples_of`.

    Returns:
        ``before`` and ``after`` as :func:`evaluate` gives them; ``change`` the same of the differences, with
        intervals from the same resamples of both. ``sizes`` has how many negatives and positives there are of
        ``everyone`` and ``per_group``, and ``left_out`` each group that is too small to count in a figure
        over all groups, and why. And the comparison itself, for budgets.
    """
    first, last = resamples.measure(before), resamples.measure(after)
    found = Comparison(resamples, first, last)
    figures: dict[str, Json] = {
        "before": _figures(first.whole, first.drawn),
        "after": _figures(last.whole, last.drawn),
        "change": _figures(found.change, found.drawn_change),
        "sizes": {
            "everyone": list(resamples.sizes[resamples.everyone]),
            "per_group": {group: list(resamples.sizes[group]) for group in resamples.identities},
        },
        "left_out": dict(left_out(resamples)),
    }
    return figures, found


OF_GROUPS: Mapping[Figure, str] = {
    "auc": "AUCs",
    "false_positive_rate": "false positive rates",
    "false_negative_rate": "false negative rates",
    "selection_rate": "selection rates",
}


def left_out(resamples: Resamples) -> dict[str, str]:
    """Groups that are too small for some figure, with what they lack and which figures these are."""
    total, reasons = resamples.sizes[resamples.everyone], {}
    for group in resamples.identities:
        own = resamples.sizes[group]
        missing = {figure: lacking(own, total, figure, resamples.least) for figure in OF_GROUPS}
        without = [OF_GROUPS[figure] for figure, what in missing.items() if what]
        if without:
            asked = f" (at least {resamples.least} are needed)" if resamples.least > 1 else ""
            reasons[group] = f"{next(filter(None, missing.values()))}{asked}: not in {', '.join(without)}"
    return reasons


def spending(
    budgets: Mapping[str, float], validation: Comparison, test: Comparison, confidence: float
) -> list[Json]:
    """What was asked of each budget, what was spent, and whether it held on the test set."""
    told: list[Json] = []
    for name, asked in budgets.items():
        spent = test.spent(name)
        told.append(
            {
                "name": name,
                "asked": asked,
                "validation": {
                    "spent": validation.spent(name),
                    "bound": validation.bound(name, confidence),
                },
                "test": {"spent": spent, "interval": list(test.interval(name))},
                "held": spent <= asked + ROUNDING,
            }
        )
    return told


def _figures(whole: Figures, drawn: Figures) -> dict[str, Json]:
    """As JSON, with intervals from the draws."""
    overall, per_group = whole.values()
    out: dict[str, Any] = dict(overall)
    if "utility_accuracy" in out:
        out["accuracy"] = out["utility_accuracy"]
    out["per_group"] = per_group
    intervals, by_group = drawn.intervals()
    out["interval"] = {**intervals, "per_group": by_group}
    return out
