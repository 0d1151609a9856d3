"""``rledit predict``: score new texts with the classifier of a run, unedited and edited."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..recipes.debiasing.predict import Prediction
from ..recipes.debiasing.predict import predict as score
from ..storage.files import write_text

DIGITS = 6
"""Of a probability."""

JSON_LINES = (".jsonl", ".ndjson", ".json")


def predict(run: Path, texts: Path, out: Path | None = None, text_column: str = "text") -> None:
    """Score new texts with the edited classifier of a run, beside the unedited one.

    One row for each text: the text, the probability that it is toxic before and after the edit, and the
    edited classifier's label, 1 for toxic.

    Args:
        run: A finished run folder of rledit debias.
        texts: A CSV file with a column of texts (.csv), a tab-separated one (.tsv), JSON lines (.jsonl), or
            any other file with one text per line; - for standard input, one text per line.
        out: Where the scores go: a CSV file (.csv), or else JSON lines. Default: standard output, as JSON
            lines.
        text_column: The column, or the key of each JSON line, that holds the text.
    """
    read = _read(texts, text_column)
    if not any(text.strip() for text in read):
        raise ValueError(f"texts: expected at least one text, {texts} has none")
    rows = _rows(read, score(run, read))
    table = out is not None and out.suffix == ".csv"
    content = _as_csv(rows) if table else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if out is None:
        sys.stdout.write(content)
    else:
        write_text(out, content)
        print(f"{len(read):,} texts scored: {out}")


def _rows(texts: Sequence[str], scores: Prediction) -> list[dict[str, str | float | int]]:
    columns = scores.before.tolist(), scores.after.tolist(), scores.labels.tolist()
    return [
        {"text": text, "before": round(before, DIGITS), "after": round(after, DIGITS), "label": label}
        for text, before, after, label in zip(texts, *columns, strict=True)
    ]


def _as_csv(rows: Sequence[dict[str, str | float | int]]) -> str:
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, ["text", "before", "after", "label"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


def _read(path: Path, column: str) -> list[str]:
    if str(path) == "-":
        return _lines(sys.stdin.read())
    if not path.is_file():
        raise FileNotFoundError(f"texts: there is no file {path}")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"texts: {path} is not in UTF-8: {error}") from error
    if path.suffix in (".csv", ".tsv"):
        reader = csv.DictReader(
            io.StringIO(content, newline=""), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        if column not in (reader.fieldnames or ()):
            known = ", ".join(reader.fieldnames or ()) or "none"
            raise ValueError(f"texts: {path} has no column {column!r}; --text-column names one of {known}")
        return [row[column] or "" for row in reader]
    if path.suffix in JSON_LINES:
        return list(_from_json(path, content, column))
    return _lines(content)


def _lines(content: str) -> list[str]:
    """Not splitlines(), which also splits at characters that may stand in a comment."""
    return [line.rstrip("\r") for line in content.removesuffix("\n").split("\n")]


def _from_json(path: Path, content: str, key: str) -> Iterable[str]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"texts: {path}, line {number}: expected JSON: {error}") from error
        text = row.get(key) if isinstance(row, dict) else row
        if not isinstance(text, str):
            raise ValueError(
                f"texts: {path}, line {number}: expected a text under {key!r} (--text-column), got "
                f"{', '.join(row) if isinstance(row, dict) else type(row).__name__}"
            )
        yield text
