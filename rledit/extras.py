"""Packages that only some parts of rledit need, and what to install where one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """An optional package is not installed; the message says what to install."""


def require(package: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: its import name, such as ``matplotlib``; submodules must be imported by themselves.
        extra: the extra of rledit that brings it.
        purpose: what it is needed for, the subject of the error's sentence.

    Raises:
        MissingExtraError: (an ImportError) it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f'{purpose} needs the package {package}, which is missing: pip install "rledit[{extra}]"',
            name=package,
        ) from error
