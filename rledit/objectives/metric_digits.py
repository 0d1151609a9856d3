"""Metrics with their intervals: no more digits than an interval allows, two of its own significant ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .metric_names import display, shown

Interval = Sequence[float | None] | None
"""(low, high) as in ``metrics.json``; None, or with None in it, where it is unknown."""

MOST_PLACES = 6


def known(interval: Interval) -> tuple[float, float] | None:
    """The interval as two finite numbers, or None."""
    if interval is None or len(interval) != 2:
        return None
    low, high = interval
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return float(low), float(high)


def places(key: str, interval: Interval) -> int | None:
    """Digits after the point that show half of the interval's width with two significant digits.

    Of the percentage for a share. The metric's own number of digits where there is no interval or it has no
    width; at most :data:`MOST_PLACES`.
    """
    how = display(key)
    ends = known(interval)
    if ends is None or ends[0] == ends[1]:
        return how.digits
    half = abs(ends[1] - ends[0]) / 2 * (100 if how.percent else 1)
    exponent = int(f"{half:.1e}".partition("e")[2])  # of what is left after rounding: 0.0996 is 0.10
    return min(MOST_PLACES, max(0, 1 - exponent))


def rounded(key: str, value: float | None, interval: Interval, *, unit: bool = True) -> str:
    """A value with the digits that its interval allows, see :func:`places`."""
    return shown(key, value, unit=unit, digits=places(key, interval))


def with_interval(key: str, value: float | None, interval: Interval, *, unit: bool = True) -> str:
    """``with_interval("bpsn_auc", 0.8312, (0.8112, 0.8512))`` is "0.831 [0.811, 0.851]".

    Args:
        key: of the metric, see :mod:`rledit.objectives.metric_names`.
        value: as it is stored; None and values that are not finite are shown as "n/a".
        interval: its ends, in the same unit. Without them, or where one is unknown, the value stands alone.
        unit: without it the percent sign is left out.
    """
    text = rounded(key, value, interval, unit=unit)
    ends = known(interval)
    if ends is None or text == "n/a":
        return text
    low, high = (rounded(key, end, interval, unit=False) for end in ends)
    return f"{text} [{low}, {high}]"


def amount(
    key: str, value: float | None, interval: Interval = None, *, like: Interval = None, unit: bool = True
) -> str:
    """A difference of two values, without a sign if it is positive: of shares in percentage points.

    ``amount("accuracy", 0.005)`` is "0.50 points", of an AUC it is "0.0050". With an interval, its ends in
    brackets; without one, as many digits as those of an interval ``like``, such as that of one of the values.
    """
    if known(interval) is None:
        text = rounded(key, value, like, unit=False)
    else:
        text = with_interval(key, value, interval, unit=False)
    if text == "n/a" or not (unit and display(key).percent):
        return text
    number, bracket, ends = text.partition(" [")
    return f"{number} points{bracket}{ends}"


def change(
    key: str, value: float | None, interval: Interval = None, *, like: Interval = None, unit: bool = True
) -> str:
    """As :func:`amount`, with the sign of a rise, too: "+1.2 points [0.3, 2.1]"."""
    text = amount(key, value, interval, like=like, unit=unit)
    return text if text == "n/a" or text.startswith("-") else f"+{text}"
