"""Fixtures of examples and documents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rledit.ops.rules import KINDS


@pytest.fixture
def rules() -> Iterator[None]:
    """What adds an edit rule, an example or a page, adds it for everybody."""
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)
