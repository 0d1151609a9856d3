"""metrics.json of a debiasing run, made by hand: groups named in several scripts, one would run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RUNS = "<script>document.title = 'it ran'</script>"
ARABIC, CHINESE = "المسلمون", "亚裔美国人"
LONG = "people who live far away and whose group has a name that is longer than any column of a table"

GROUPS: dict[str, dict[str, tuple[float, float]]] = {
    RUNS: {"false_positive_rate": (0.9, 0.2), "false_negative_rate": (0.01, 0.05), "bpsn_auc": (0.5, 0.9)},
    ARABIC: {"false_positive_rate": (0.3, 0.1), "false_negative_rate": (0.1, 0.1), "bpsn_auc": (0.8, 0.95)},
    CHINESE: {"false_positive_rate": (0.1, 0.11), "false_negative_rate": (0.2, 0.3), "bpsn_auc": (0.9, 0.91)},
    LONG: {"false_positive_rate": (0.2, 0.0)},
}
OVERALL = {
    "utility_accuracy": (0.9, 0.897),
    "utility_auc": (0.95, 0.94),
    "false_positive_rate": (0.4, 0.1),
    "false_negative_rate": (0.1, 0.14),
    "bpsn_auc": (0.6, 0.9),
    "fped": (2.0, 0.4),
}
WIDTH = 0.02
"""Half of every interval."""


def around(value: float) -> list[float]:
    return [value - WIDTH, value + WIDTH]


def figures(overall: Mapping[str, float], groups: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    intervals: dict[str, Any] = {name: around(value) for name, value in overall.items()}
    intervals["per_group"] = {
        group: {name: around(value) for name, value in own.items()} for group, own in groups.items()
    }
    per_group = {group: dict(own) for group, own in groups.items()}
    return {**overall, "per_group": per_group, "interval": intervals}


def set_figures(*, with_change: bool = True) -> dict[str, Any]:
    """One entry of metrics["test"]."""

    def part(pick: Any) -> dict[str, Any]:
        return figures(
            {name: pick(*pair) for name, pair in OVERALL.items()},
            {group: {name: pick(*pair) for name, pair in own.items()} for group, own in GROUPS.items()},
        )

    out = {"before": part(lambda before, _: before), "after": part(lambda _, after: after)}
    if with_change:
        out["change"] = part(lambda before, after: after - before)
        out["sizes"] = {"everyone": [500, 400], "per_group": {group: [30, 12] for group in GROUPS}}
        out["left_out"] = {"<b>few</b>": "no positives"}
    return out


def metrics(**changes: Any) -> dict[str, Any]:
    """Of a run with everything; a change to None takes an entry out."""
    known = {"size": 900, "base_rate": 0.44, "groups": {ARABIC: [30, 12]}, "unknown_words": 0.25}
    whole = {
        "budgets": [
            {
                "name": "utility_auc",
                "asked": 0.005,
                "validation": {"spent": 0.001, "bound": 0.004},
                "test": {"spent": 0.01, "interval": [-0.01, 0.03]},
                "held": False,
            },
            {
                "name": "fnr.worst",
                "asked": 0.02,
                "validation": {"spent": 0.0, "bound": 0.018},
                "test": {"spent": 0.015, "interval": [0.005, 0.025]},
                "held": True,
            },
        ],
        "test": {**set_figures(), "other": {"other & set": set_figures()}},
        "validation": {"before": {}, "after": {}},
        "candidates": 640,
        "origin": "elite 1",
        "seconds": {"edit": 1.0},
        "layer": ["fc1"],
        "layers_tried": [],
        "data": {
            "sets": {"training comments": known, "bias, reward": known, "bias, test": known},
            "classifier": {
                "accuracy": 0.5,
                "majority": 0.56,
                "auc": 0.6,
                "auc_interval": [0.55, 0.65],
                "useless": True,
                "reasons": ["it is no good"],
            },
        },
        "words": [
            {"word": CHINESE, "count": 12, "before": -1.0, "after": 1.5, "change": 2.5},
            {"word": RUNS, "count": 3, "before": 4.0, "after": -0.5, "change": -4.5},
        ],
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}
