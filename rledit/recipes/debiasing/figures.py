"""The figures of a debiasing run: error rates per group, and the front of utility and bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...experiments.plots import BLUE, GRAY, ORANGE, Plot, head, render, shortened
from ...objectives.metric_names import axis_label, label, shown
from .changes import RATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GROUPS = 24


def error_rates(test: Mapping[str, Any], name: str, where: str = "") -> Plot | None:
    """A rate of :data:`.changes.RATES` per group before and after, with intervals; the groups that changed
    most, without those where both are zero. A file for papers: the page shows the same as text.

    Args:
        test: a test set of metrics.json.
        where: its name, unless it is the test split.
    """
    title = f"{label(name).capitalize()} per group{f', {where}' if where else ''}"
    first, last = (
        {
            group: figures[name]
            for group, figures in test.get(when, {}).get("per_group", {}).items()
            if figures.get(name) is not None
        }
        for when in ("before", "after")
    )
    if not first or not last:
        return None
    wrong = [group for group in first if first[group] > 0 or last[group] > 0] or list(first)[:1]
    groups = sorted(wrong, key=lambda group: -abs(first[group] - last[group]))[:MOST_GROUPS]
    groups.sort(key=lambda group: -first[group])

    def draw(figure: Figure, axes: Axes) -> None:
        from matplotlib.ticker import PercentFormatter

        for offset, when, color, values in ((-0.2, "before", GRAY, first), (0.2, "after", ORANGE, last)):
            y = [k + offset for k in range(len(groups))]
            widths = [values[group] for group in groups]
            intervals = test[when]["interval"]["per_group"]
            error: tuple[list[float], list[float]] = ([], [])
            for group, width in zip(groups, widths, strict=True):
                low, high = intervals[group][name]  # None where nothing is known
                error[0].append(0.0 if low is None else max(0.0, width - low))
                error[1].append(0.0 if high is None else max(0.0, high - width))
            axes.barh(
                y, widths, height=0.38, color=color, label=when, xerr=error, error_kw={"linewidth": 0.8}
            )
        axes.set_yticks(range(len(groups)), [shortened(group) for group in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{axis_label(name)}: {RATES[name]}")
        head(figure, axes, title)

    alt = f"{title} before and after the edit, {len(groups)} identity groups"
    file = f"{name}s{f'_{where}' if where else ''}"
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in file)
    return render(safe, alt, 1.3 + 0.31 * len(groups), draw, on_page=False)


def front(
    choices: Sequence[Mapping[str, float]], validation: Mapping[str, Mapping[str, float]], spent: float
) -> Plot | None:
    """Utility against bias of the edits that were compared on the validation split, and of the chosen one.

    Args:
        spent: what utility may lose there, the budget without its reserve.
    """
    if not choices:
        return None
    before, after = validation["before"], validation["after"]

    def place(points: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
        changes = [point["utility_auc"] - before["utility_auc"] for point in points]
        return changes, [point["bpsn_auc"] for point in points]

    def draw(figure: Figure, axes: Axes) -> None:
        kept = [point for point in choices if point["admissible"]]
        dear = [point for point in choices if not point["admissible"]]
        axes.plot(*place(dear), "o", color=GRAY, markersize=3, alpha=0.5, label="beyond what may be spent")
        axes.plot(*place(kept), "o", color=BLUE, markersize=3, alpha=0.7, label="within")
        axes.plot(*place([after]), "D", color=ORANGE, label="chosen")
        axes.plot(*place([before]), "s", color="black", markersize=5, label="before")
        axes.axvline(-spent, color=GRAY, linewidth=1, linestyle="--")
        axes.set_xlabel(f"change of {label('utility_auc')} (dashed: what may be spent)")
        axes.locator_params(axis="x", nbins=6)
        axes.set_ylabel(f"{axis_label('bpsn_auc')}, power mean")
        axes.grid()
        head(figure, axes, "Utility and bias on the validation split")

    alt = (
        f"{label('bpsn_auc')} against the change of {label('utility_auc')}; "
        f"chosen {shown('bpsn_auc', after['bpsn_auc'])}, before {shown('bpsn_auc', before['bpsn_auc'])}"
    )
    return render("front", alt, 3.5, draw)
