"""Pages from templates: whatever is put into them is escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..objectives.metric_names import axis_label, label, shown

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *folders: Path, **context: Any) -> Markup:
    """A template of one of the folders, or of :data:`TEMPLATES`, filled in.

    Templates know the filters ``axis_label``, ``label`` and ``shown`` of metric keys (the latter takes the
    value, and shows it without its unit), and ``base64`` of bytes.

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
        "shown": lambda key, value, digits=None: shown(key, value, unit=False, digits=digits),
        "base64": lambda data: base64.b64encode(data).decode("ascii"),
    }
    return Markup(environment.get_template(template).render(context))
