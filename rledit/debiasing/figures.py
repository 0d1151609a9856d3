"""The figures of a debiasing run: error rates per group, and the front of utility and bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..runs.plots import BLUE, GREY, ORANGE, Plot, head, render, shortened

MOST_GROUPS = 24


def error_rates(test: Mapping[str, Any]) -> Plot | None:
    """False positive rates per group before and after, with their intervals; the groups that changed most."""
    before, after = (test.get(when, {}).get("per_group") for when in ("before", "after"))
    if not before or not after:
        return None

    def rates(when: str) -> dict[str, float]:
        return {group: figures["false_positive_rate"] for group, figures in test[when]["per_group"].items()}

    first, last = rates("before"), rates("after")
    shown = sorted(first, key=lambda group: -abs(first[group] - last[group]))[:MOST_GROUPS]
    shown.sort(key=lambda group: -first[group])

    def draw(figure: Figure, axes: Axes) -> None:
        for offset, when, colour, values in ((-0.2, "before", GREY, first), (0.2, "after", ORANGE, last)):
            y = [k + offset for k in range(len(shown))]
            widths = [values[group] for group in shown]
            intervals = test[when]["interval"]["per_group"]
            low, high = zip(*(intervals[group]["false_positive_rate"] for group in shown), strict=True)
            error = [
                [max(0.0, width - end) for width, end in zip(widths, low, strict=True)],
                [max(0.0, end - width) for width, end in zip(widths, high, strict=True)],
            ]
            axes.barh(
                y, widths, height=0.38, color=colour, label=when, xerr=error, error_kw={"linewidth": 0.8}
            )
        axes.set_yticks(range(len(shown)), [shortened(group) for group in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("harmless sentences called toxic (%)")
        head(figure, axes, "False positives per group")

    alt = f"false positive rates of {len(shown)} identity groups before and after the edit"
    return render("false_positive_rates", alt, 1.3 + 0.31 * len(shown), draw)


def front(points: Sequence[Mapping[str, float]], before: Mapping[str, float], budget: float) -> Plot | None:
    """Utility against bias of the best candidates on the validation split; the chosen one is the first."""
    if not points:
        return None

    def draw(figure: Figure, axes: Axes) -> None:
        x = [point["utility_auc"] - before["utility_auc"] for point in points]
        y = [point["bpsn_auc"] for point in points]
        axes.plot(x[1:], y[1:], "o", color=BLUE, markersize=4, alpha=0.7, label="best candidates")
        axes.plot(x[:1], y[:1], "D", color=ORANGE, label="chosen")
        axes.plot([0.0], [before["bpsn_auc"]], "s", color=GREY, label="before")
        axes.axvline(-budget, color=GREY, linewidth=1, linestyle="--")
        axes.set_xlabel("change of utility AUC (dashed: the budget)")
        axes.set_ylabel("BPSN AUC, power mean")
        axes.grid()
        head(figure, axes, "Utility and bias on the validation split")

    best = max(point["bpsn_auc"] for point in points)
    alt = f"BPSN AUC against the change of utility AUC; best {best:.3f}, before {before['bpsn_auc']:.3f}"
    return render("front", alt, 3.5, draw)
