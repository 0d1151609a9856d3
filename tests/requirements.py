"""Prints what the package and its extra "test" need, a line each, before there is a wheel to ask.

    python tests/requirements.py > requirements.txt

So that it is installed while the wheel is built.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pip._vendor import tomli  # Python has its own from 3.11 on

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def needed(project: dict[str, Any], extra: str) -> list[str]:
    """The requirements of an extra, with those of the extras that it names in place of their names."""
    found: list[str] = []
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        if own:
            found += [line for name in own[1].split(",") for line in needed(project, name)]
        else:
            found.append(requirement)
    return found


if __name__ == "__main__":
    project = tomli.loads(PYPROJECT.read_text())["project"]
    print(*dict.fromkeys([*project["dependencies"], *needed(project, "test")]), sep="\n")
