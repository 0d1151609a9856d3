"""rledit predict: texts from files of several kinds, and scores to files."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rledit.cli import main
from rledit.cli import predict as command
from rledit.recipes.debiasing.predict import Prediction

TEXTS = ['a "rude", text', "two words", "", "ünïcode \u2028 in one line"]


@pytest.fixture(autouse=True)
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a classifier: the length of a text."""

    def score(run: Path, texts: Sequence[str]) -> Prediction:
        lengths = torch.tensor([len(text) / 100 for text in texts])
        return Prediction(lengths, 1 - lengths)

    monkeypatch.setattr(command, "score", score)


def rows_of(texts: Sequence[str]) -> list[dict[str, object]]:
    return [
        {"text": text, "before": len(text) / 100, "after": 1 - len(text) / 100, "label": 1} for text in texts
    ]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["rledit", "predict", "--run", "run", *arguments])
    main()


def as_csv(texts: Sequence[str], column: str = "text", delimiter: str = ",") -> str:
    content = io.StringIO(newline="")
    writer = csv.writer(content, delimiter=delimiter)
    writer.writerow(["id", column])
    writer.writerows(enumerate(texts))
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("t.csv", as_csv(TEXTS), ()),
        ("t.csv", as_csv(TEXTS, "comment"), ("--text-column", "comment")),
        ("t.tsv", as_csv(TEXTS, delimiter="\t"), ()),
        ("t.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXTS) + "\n\n", ()),
        ("t.txt", "\n".join(TEXTS) + "\n", ()),
        ("t.txt", "\ufeff" + "\r\n".join(TEXTS), ()),
    ],
    ids=["csv", "column", "tsv", "json lines", "lines", "lines of another system"],
)
def test_texts_from_files(
    name: str, content: str, options: tuple[str, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / name).write_bytes(content.encode())
    call(monkeypatch, "--texts", str(tmp_path / name), *options)
    said = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert [json.loads(line) for line in said] == rows_of(TEXTS)


def test_scores_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TEXTS) + "\n"))
    call(monkeypatch, "--texts", "-", "--out", str(tmp_path / "scores.csv"))
    assert "4 texts scored" in capsys.readouterr().out
    read = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text(), newline="")))
    assert [{**row, "before": float(row["before"]), "after": float(row["after"]), "label": int(row["label"])}
            for row in read] == rows_of(TEXTS)  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
    call(monkeypatch, "--texts", "-", "--out", str(tmp_path / "scores.jsonl"))
    assert json.loads((tmp_path / "scores.jsonl").read_text()) == rows_of(["x"])[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"id,comment\n1,rude\n", "has no column 'text'; --text-column names one of id, comment"),
        ("t.csv", b"", "has no column 'text'; --text-column names one of none"),
        ("t.txt", b"", "expected at least one text"),
        ("t.txt", b"\n \n", "expected at least one text"),
        ("t.txt", b"\xff\xfe", "is not in UTF-8"),
        ("t.jsonl", b'{"text": "a"}\n{"comment": "b"}\n', "line 2: expected a text under 'text'"),
        ("t.jsonl", b"{}{\n", "line 1: expected JSON"),
    ],
)
def test_files_without_texts(
    name: str, content: bytes, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--texts", str(tmp_path / name))
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "--texts", str(tmp_path / "t.csv"))
    assert "there is no file" in capsys.readouterr().err
