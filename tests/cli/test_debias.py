"""What ``rledit debias`` says at its end: what was asked, spent and held, then levels, bias and losers."""

from __future__ import annotations

import io

from debiasing_metrics import CHINESE, metrics, set_figures
from rich.console import Console

from rledit.cli.debias import tell, worse
from rledit.recipes.debiasing.summary import summary


def told(width: int = 100, **changes: object) -> str:
    out = io.StringIO()
    tell(metrics(**changes), Console(file=out, width=width))
    return out.getvalue()


def test_the_order() -> None:
    said = told()
    assert said.startswith(f"{summary(metrics())}\n")
    parts = ["held: no (utility AUC)", "Warning: this classifier is of no use", "test split", "│ utility AUC"]
    parts += ["│ false negative rate", "│ BPSN AUC ", "│ BPSN AUC, other & set", f"Got worse: {CHINESE}: "]
    at = [said.index(part) for part in parts]
    assert at == sorted(at)


def test_changes_and_verdicts() -> None:
    rows = {row.split("│")[1].strip(): row.split("│")[2:-1] for row in told().splitlines() if "│" in row}
    cells = {name: [cell.strip() for cell in row] for name, row in rows.items()}
    assert cells["utility accuracy"] == ["90.0%", "89.7%", "-0.3 [-2.3, 1.7]", "(worse)"]
    assert cells["FPED"] == ["2.000", "0.400", "-1.600 [-1.620, -1.580]", "better"]
    assert cells["false negative rate"] == ["10.0%", "14.0%", "+4.0 [2.0, 6.0]", "worse"]


def test_it_fits_a_terminal_and_names_are_no_markup() -> None:
    test = {**set_figures(), "other": {"[bold]x[/bold]": set_figures()}}
    said = told(width=80, test=test)
    assert "[bold]x[/bold]" in said
    table = [line for line in said.splitlines() if line[:1] in "│┃┏└"]
    assert max(map(len, table)) <= 80


def test_who_got_worse() -> None:
    assert worse(set_figures()).startswith(
        f"Got worse: {CHINESE}: false negative rate +10.0 points [8.0, 12.0]; "
    )
    assert "within noise" in worse(set_figures())
    better = set_figures()
    better["after"] = better["before"]
    assert worse(better) == "No group's false positive or false negative rate rose."


def test_runs_of_older_versions() -> None:
    older = {**set_figures(with_change=False), "other": {}}
    said = told(budgets=None, data=None, words=None, test=older)
    assert said.startswith("Achieved: BPSN AUC 0.600 to 0.900 (+0.300)")
    assert "Warning" not in said
