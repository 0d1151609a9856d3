"""A command line for a function of paths, text, numbers, choices and switches, without any package."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

_PLAIN_TYPES = (Path, str, int, float)


def call(function: Callable[..., Any], arguments: Sequence[str], program: str) -> Any:
    """Call a function with what the command line says.

    Every parameter is an option; its help stands in the docstring, under "Args:". Those without a default are
    required, booleans become ``--name`` and ``--no-name``, a ``Literal`` of strings a choice of them.

    Raises:
        TypeError: a parameter of another type.
        SystemExit: for --help and for arguments that are wrong.
    """
    parser = argparse.ArgumentParser(prog=program, description=summary(function))
    hints, helps = get_type_hints(function), _argument_helps(function)
    for name, parameter in inspect.signature(function).parameters.items():
        option = f"--{name.replace('_', '-')}"
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        kind = hints[name]
        if kind is bool:
            parser.add_argument(
                option,
                action=argparse.BooleanOptionalAction,
                required=required,
                default=default,
                help=helps.get(name),
            )
        elif get_origin(kind) is Literal:
            parser.add_argument(
                option, choices=get_args(kind), required=required, default=default, help=helps.get(name)
            )
        elif kind in _PLAIN_TYPES:
            parser.add_argument(
                option,
                type=kind,
                required=required,
                default=default,
                metavar=kind.__name__.upper(),
                help=helps.get(name),
            )
        else:
            raise TypeError(f"{function.__name__}: {name} has a type that no option can have: {kind}")
    return function(**vars(parser.parse_args(list(arguments))))


def summary(function: Callable[..., Any]) -> str:
    """The docstring without its sections."""
    return re.split(r"\n\s*\n(?:Args|Raises|Returns):", inspect.getdoc(function) or "")[0]


def _argument_helps(function: Callable[..., Any]) -> dict[str, str]:
    section = re.search(r"\n\s*Args:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(function) or "", re.S)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section[1], re.M)
    return {name: " ".join(text.split()).replace("%", "%%") for name, text in entries}
