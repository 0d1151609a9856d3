"""What the project says about itself in several places, and what its source archive must not hold."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import rledit

ROOT = Path(__file__).parents[1]


def test_one_version() -> None:
    """It is written by hand in rledit/__init__.py, which the metadata are made from, and in CITATION.cff."""
    cited = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited == [rledit.__version__]


def test_the_installed_version() -> None:
    try:
        installed = metadata.version("rledit")
    except metadata.PackageNotFoundError:
        pytest.skip("rledit is on the path and not installed")
    assert installed == rledit.__version__


def test_source_archives_are_without_results() -> None:
    """Tables of benchmarks, and what runs and builds leave, would be most of an archive."""
    tomllib = pytest.importorskip("tomllib")  # Python has it from 3.11 on
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    excluded = project["tool"]["scikit-build"]["sdist"]["exclude"]
    assert {"/benchmarks/results", "/runs", "/build", "/dist", "/.venv*"} <= set(excluded)
    assert (ROOT / "benchmarks" / "results").is_dir()
