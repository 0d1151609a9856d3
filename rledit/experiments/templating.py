"""Pages from templates: whatever is put into them is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..objectives.metric_digits import Interval, change, rounded, with_interval
from ..objectives.metric_names import axis_label, direction, label, short_label, shown

_HYPHEN = re.compile(r"(?<![\w-])-(?=[\d.])")

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *folders: Path, **context: Any) -> Markup:
    """A template of one of the folders, or of :data:`TEMPLATES`, filled in.

    Templates know the filters ``axis_label``, ``label``, ``short`` and ``shown`` of metric keys (the last
    takes the value, and shows it without its unit), ``rounded``, ``with_interval`` and ``change`` of a key
    with value and interval (the same without units), ``better``, which way that is, ``minus``, which makes
    real minus signs of hyphens before digits, and ``base64`` of bytes.

    Raises:
        jinja2.TemplateError: for a template that is missing or wrong, or a value that it lacks.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "axis_label": axis_label,
        "label": label,
        "short": short_label,
        "shown": lambda key, value, digits=None: shown(key, value, unit=False, digits=digits),
        "rounded": _without_unit(rounded),
        "with_interval": _without_unit(with_interval),
        "change": _without_unit(change),
        "better": better,
        "minus": minus,
        "base64": lambda data: base64.b64encode(data).decode("ascii"),
    }
    return Markup(environment.get_template(template).render(context))


def better(key: str) -> str:
    """Which way is better, an arrow and the word, "" where it is unknown."""
    return {1: "\N{UPWARDS ARROW} better", -1: "\N{DOWNWARDS ARROW} better"}.get(direction(key), "")


def minus(text: str) -> str:
    """Numbers with minus signs in place of hyphens; hyphens between letters are left alone."""
    return _HYPHEN.sub("\N{MINUS SIGN}", text)


def _without_unit(shows: Callable[..., str]) -> Callable[..., Markup]:
    """For the cells of a table, whose head has the unit; with a real minus sign, and an interval in a piece
    that is not broken over lines."""

    def show(key: str, value: float | None, interval: Interval = None, **more: Interval) -> Markup:
        number, bracket, ends = minus(shows(key, value, interval, unit=False, **more)).partition("[")
        whole = Markup('{}<span class="interval">[{}</span>') if bracket else Markup("{}{}")
        return whole.format(number, ends)

    return show
