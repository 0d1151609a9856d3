"""What tests of recipes have in common."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than a short run."""
    monkeypatch.setattr("rledit.experiments.run.draw_all", lambda drawings: ([], []))
