"""Keeping rledit's warnings down for a while, for the code that asks for it and no other."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

_QUIET: ContextVar[bool] = ContextVar("rledit_quiet", default=False)


def _heard(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not _QUIET.get()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Only errors of the logger ``rledit`` get through, as far as this thread or task logs them. Others, and
    the logger's level, are as they were."""
    logging.getLogger("rledit").addFilter(_heard)  # once: adding it again does nothing
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)
