"""Every metric has one name and one way to be shown."""

from __future__ import annotations

import pytest

from rledit.objectives import METRICS
from rledit.objectives.metric_names import (
    METRIC_DISPLAYS,
    axis_label,
    direction,
    label,
    short_label,
    shown,
)


def test_listed_metrics() -> None:
    assert label("bpsn_auc") == "BPSN AUC"
    assert axis_label("forget_accuracy") == "forget accuracy (%)"
    assert axis_label("fped") == "FPED"
    assert short_label("retain_accuracy") == "retain"
    assert shown("forget_accuracy", 0.98054) == "98.05%"
    assert shown("forget_accuracy", 0.98054, unit=False) == "98.05"
    assert shown("false_positive_rate", 0.12345, unit=False, digits=1) == "12.3"
    assert shown("utility_auc", 0.93) == "0.9300"
    assert shown("reward_mean", 0.00012345) == "0.0001234"


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_not_there(value: float | None) -> None:
    assert shown("accuracy", value) == "n/a"


@pytest.mark.parametrize(
    ("key", "expected", "short", "value"),
    [
        ("cats_accuracy", "cats accuracy (%)", "cats", "50.00%"),
        ("worst_group_auc", "worst group AUC", "worst group", "0.5000"),
        ("my_own_metric", "my own metric", "my own metric", "0.5"),
        ("policy_kl", "policy KL", "policy KL", "0.5"),
        ("AUC", "AUC", "AUC", "0.5000"),
        ("_", "_", "_", "0.5"),
        ("", "", "", "0.5"),
    ],
)
def test_metrics_that_nobody_has_listed(key: str, expected: str, short: str, value: str) -> None:
    assert axis_label(key) == expected
    assert short_label(key) == short
    assert shown(key, 0.5) == value
    assert direction(key) == 0


def test_what_debias_can_weigh_is_listed_with_a_direction() -> None:
    for name, metric in METRICS.items():
        assert name in METRIC_DISPLAYS
        assert metric.direction == direction(name) != 0


def test_labels_are_different() -> None:
    labels = [entry.label for entry in METRIC_DISPLAYS.values()]
    assert len(set(labels)) == len(labels)
