"""Help is for people: every option is explained, in plain text."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Literal

import pytest

from rledit.cli import COMMANDS, gathered, main
from rledit.cli.plain import call


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["rledit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out + captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_no_markup(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = said(monkeypatch, capsys, command, "--help")
    assert status == 0
    assert not re.search(r":(data|class|func|meth):|``|`", text), text
    options = {option for option in re.findall(r"--([a-z][a-z-]+)", text) if not option.startswith("no-")}
    assert options >= {"out"}


def test_without_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(monkeypatch, capsys)
    assert status == 2
    assert "COMMAND" in text
    status, text = said(monkeypatch, capsys, "forget")
    assert status == 2
    assert "'forget'" in text


def example(
    path: Path, name: Literal["x", "y"] = "x", count: int = 1, really: bool = False
) -> tuple[Path, str, int, bool]:
    """An example.

    Of two paragraphs.

    Args:
        path: a file, 100% of it
            over two lines.
        name: a name.
        count: a number.
        really: whether.

    Returns:
        what it got.
    """
    return path, name, count, really


def test_a_function_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(example, ["--path", "a"], "x") == (Path("a"), "x", 1, False)
    assert call(example, ["--path", "a", "--count", "3", "--really"], "x") == (Path("a"), "x", 3, True)
    assert call(example, ["--path", "a", "--no-really"], "x")[3] is False
    assert call(example, ["--path", "a", "--name", "y"], "x")[1] == "y"
    for wrong in ([], ["--path", "a", "--count", "b"], ["--path", "a", "b"], ["--path", "a", "--name", "z"]):
        with pytest.raises(SystemExit):
            call(example, wrong, "x")
    with pytest.raises(SystemExit):
        call(example, ["--help"], "x")
    text = " ".join(capsys.readouterr().out.split())
    assert "a file, 100% of it over two lines." in text
    assert "Of two paragraphs." in text
    assert "what it got" not in text


def test_a_parameter_that_no_option_can_be() -> None:
    def odd(parser: argparse.ArgumentParser) -> None:
        """Odd."""

    with pytest.raises(TypeError, match="odd: parser has a type"):
        call(odd, [], "x")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--budget", "1", "--budget", "f1=2", "--seed", "3"], ["--seed", "3", "--budget", "1", "f1=2"]),
        (["--budget=1", "--budget=f1=2"], ["--budget", "1", "f1=2"]),
        (["--budget", "1", "f1=2", "--quiet"], ["--quiet", "--budget", "1", "f1=2"]),
        (["--seed", "3"], ["--seed", "3"]),
    ],
)
def test_values_of_a_repeated_option_stand_in_one_place(given: list[str], expected: list[str]) -> None:
    assert gathered(given, ("--budget",)) == expected
