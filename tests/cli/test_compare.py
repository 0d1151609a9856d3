"""``rledit compare`` as a user meets it where something goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rledit.cli import main


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    monkeypatch.setattr(sys, "argv", ["rledit", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_a_comparison_without_a_single_cell_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("def make_task(seed): return 3\n")
    out = ("--methods", "logit_mask", "--seeds", 1, "--out", tmp_path / "out")
    assert status_of(monkeypatch, "compare", "--task", tmp_path / "mine.py", *out) == 1
    assert "Nothing could be measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [("compare", "the same command goes on"), ("ledger", "nothing was written"), ("unlearn", "--resume")],
)
def test_an_interruption_names_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rledit.cli._run", interrupted)
    assert status_of(monkeypatch, command) == 130
    err = capsys.readouterr().err
    assert said in err
    assert ("--resume" in err) is (command == "unlearn")
