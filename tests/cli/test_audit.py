"""``rledit audit``: its table, and what it says of wrong input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from rledit.cli import main
from rledit.cli.audit import table


def test_a_figure_stands_beside_its_interval() -> None:
    networks = {
        "unedited": {"forget_accuracy": 0.98, "intervals": {"forget_accuracy": [0.97, 0.99]}},
        "edited": {"forget_accuracy": None, "relearn_steps": 3.0, "intervals": {}},
    }
    shown = io.StringIO()
    Console(file=shown, width=120).print(table("title", networks))
    rows = [" ".join(line.replace("│", " ").split()) for line in shown.getvalue().splitlines()]
    assert "forget accuracy 98.00% (97.00 to 99.00) n/a" in rows
    assert "steps of relearning n/a 3.0" in rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["."], "has no config.json that rledit wrote"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rledit", "audit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
