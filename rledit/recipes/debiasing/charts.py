"""Error rates of every group of a set as rows of dots with error bars, for a page.

Unlike a picture, rows of text and lines can be read in any script and on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...objectives.metric_digits import Interval, known, with_interval
from .changes import RATES, TestSet, changed, groups_of, keys_of

STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Ends that an axis may have."""


@dataclass(frozen=True)
class Dot:
    """A value with its error bar, each as a share of the axis, 0 to 1."""

    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Track:
    """A rate of one group.

    Attributes:
        before, after: None where unknown.
        said: both in words.
    """

    before: Dot | None
    after: Dot | None
    said: str


@dataclass(frozen=True)
class Chart:
    """All groups of a set.

    Attributes:
        name: of the set.
        ends: by rate, where its axis ends, a share of sentences.
        rows: tracks by rate, by group, the worst group first.
    """

    name: str
    ends: Mapping[str, float]
    rows: Mapping[str, Mapping[str, Track]]


def chart(name: str, test: TestSet) -> Chart | None:
    """The chart of a test set; None where no group has an error rate."""
    rates = keys_of(test, RATES)
    if not rates:
        return None
    ends = {rate: _end(test, rate) for rate in rates}
    rows = {
        group: {rate: _track(test, rate, group, ends[rate]) for rate in rates} for group in groups_of(test)
    }
    return Chart(name, ends, rows)


def _end(test: TestSet, rate: str) -> float:
    """The least of :data:`STEPS` that has room for all of a rate's error bars."""
    tops = [0.0]
    for group in groups_of(test):
        figure = changed(test, rate, group)
        for value, interval in (
            (figure.before, figure.before_interval),
            (figure.after, figure.after_interval),
        ):
            tops += [] if value is None else [value, (known(interval) or (0.0, 0.0))[1]]
    return next((step for step in STEPS if max(tops) <= step), 1.0)


def _track(test: TestSet, rate: str, group: str, end: float) -> Track:
    figure = changed(test, rate, group)
    before = with_interval(rate, figure.before, figure.before_interval)
    after = with_interval(rate, figure.after, figure.after_interval)
    return Track(
        _dot(figure.before, figure.before_interval, end),
        _dot(figure.after, figure.after_interval, end),
        f"{before} before, {after} after",
    )


def _dot(value: Any, interval: Interval, end: float) -> Dot | None:
    if value is None or not math.isfinite(value):
        return None
    low, high = known(interval) or (value, value)
    at, first, last = (min(1.0, max(0.0, part / end)) for part in (value, low, high))
    return Dot(at, min(first, at), max(last, at))
