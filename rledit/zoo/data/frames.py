"""Tables in files, chunk by chunk as pandas frames: CSV, JSON, Parquet and folders of Hugging Face
datasets."""

from __future__ import annotations

import csv
import gzip
import io
import json
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from ...extras import require
from .comment_files import large_fields

Frame: TypeAlias = Any
"""A pandas frame. pandas is an optional package, so its types are not named."""

CHUNK = 50_000
"""Rows that are read together."""

SEPARATORS = (",", ";", "\t", "|")
PURPOSE = "reading comments from tables"
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)


@dataclass(frozen=True)
class Table:
    """A table in a file, not read yet.

    Attributes:
        path: where it is.
        names: of its columns.
        read: from the columns that are needed to frames of them, in the order of the rows.
        classes: for columns of class numbers, what the classes are called.
    """

    path: Path
    names: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[Frame]]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def open_table(path: Path, separator: str = "") -> Table:
    """A table, by the ending of its name: ``.parquet``; ``.json``, ``.jsonl``; everything else is CSV. Any of
    them may be compressed (``.gz``). A folder is what ``datasets`` leaves with ``save_to_disk``.

    Args:
        path: the file or folder.
        separator: of CSV; by default the one that makes the most of the header.

    Raises:
        ValueError: it is empty, damaged, or not what its name says; in reading, too.
        OSError: it cannot be read.
        MissingExtraError: pandas is not installed, or for Parquet and folders pyarrow.
    """
    require("pandas", "data", PURPOSE)
    if path.is_dir():
        return _folder(path)
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    match ending.lower():
        case ".parquet" | ".pq":
            return _parquet(path)
        case ".jsonl" | ".ndjson":
            return _json_lines(path)
        case ".json":
            return _json(path)
    return _csv(path, separator)


# --- CSV ---


def _csv(path: Path, separator: str) -> Table:
    with _Text(path) as file:
        lines = (line for line in file if line.strip())
        start = list(islice(lines, 50))  # a name may have line breaks in it
    if not start:
        raise ValueError(f"{path}: expected the names of the columns in the first row, got an empty file")

    def header(separator: str) -> list[str]:
        return next(csv.reader(start, delimiter=separator))

    separator = separator or max(SEPARATORS, key=lambda each: len(header(each)))  # the first of the best
    names = tuple(header(separator))

    def read(columns: Sequence[str]) -> Iterator[Frame]:
        pandas = require("pandas", "data", PURPOSE)
        checked = False
        with _Text(path) as file:
            # Cells stay as they are written. All columns are parsed: with usecols, pandas takes rows that are
            # too long, and without index_col=False it shifts their fields.
            options = {"dtype": str, "keep_default_na": False, "index_col": False, "sep": separator}
            try:
                chunks = pandas.read_csv(file, chunksize=CHUNK, header=0, **options)
                for frame in _strictly(chunks, pandas.errors.ParserWarning):
                    # pandas fills short rows up with nothing, at the end.
                    if not checked and bool((frame.iloc[:, -1] == "").any()):
                        _check_widths(path, separator, len(names))
                        checked = True
                    yield frame[list(columns)]
            except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
                _check_widths(path, separator, len(names))
                raise ValueError(f"{path}: damaged CSV: {error}") from error

    return Table(path, names, read)


def _strictly(frames: Iterator[Frame], warning: type[Warning]) -> Iterator[Frame]:
    """The same, with a warning as an error."""
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("error", warning)
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _check_widths(path: Path, separator: str, width: int) -> None:
    """Raise ValueError for a row with another number of fields, or damaged quotation marks, by its line."""
    with large_fields(), _Text(path) as file:
        reader = csv.reader(file, delimiter=separator)
        line = 1
        try:
            for row in reader:
                if row and len(row) != width:
                    raise ValueError(f"{path}: line {line}: expected {width} fields, got {len(row)}")
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path}: line {line}: damaged CSV: {error}") from error


class _Text:
    """A file as text, decompressed. UTF-8 with or without a byte order mark; what is damaged is a
    ValueError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open(path, "rb") as file:
            self._compressed = file.read(2) == b"\x1f\x8b"

    def __enter__(self) -> io.TextIOBase:
        opened: Any = gzip.open if self._compressed else open
        self._file: Any = opened(self._path, "rt", encoding="utf-8-sig", newline="")
        return self._file  # type: ignore[no-any-return]

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, UnicodeDecodeError):
            raise ValueError(
                f"{self._path}: expected UTF-8, got 0x{error.object[error.start]:02x}: {error.reason}. Save "
                "it as UTF-8"
            ) from error
        if isinstance(error, _DAMAGED):
            raise ValueError(f"{self._path}: damaged gzip: {error}") from error


# --- JSON ---


def _json_lines(path: Path) -> Table:
    names: dict[str, None] = {}
    for record in islice(_records(path), CHUNK):
        names |= dict.fromkeys(record)
    return Table(path, tuple(names), lambda columns: _framed(_records(path), columns))


def _records(path: Path) -> Generator[Mapping[str, Any], None, None]:
    with _Text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: line {number}: not JSON: {error}") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}: line {number}: expected an object, got {type(record).__name__}")
            yield record


def _json(path: Path) -> Table:
    with _Text(path) as file:
        try:
            content = json.load(file)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                return _json_lines(path)
            raise ValueError(f"{path}: not JSON: {error}") from error
        except RecursionError as error:
            raise ValueError(f"{path}: not JSON that can be read: {error}") from error
    records = _rows_of(content, path)
    names = tuple(dict.fromkeys(name for record in records for name in record))
    return Table(path, names, lambda columns: _framed(records, columns))


def _rows_of(content: object, path: Path) -> Sequence[Mapping[str, Any]]:
    """Of a list of objects; of an object with a list for each column; or of one with an object for each
    row."""
    if isinstance(content, dict) and content and all(isinstance(each, list) for each in content.values()):
        lengths = {name: len(cells) for name, cells in content.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"{path}: expected columns of one length, got "
                + ", ".join(f"{name!r} with {length}" for name, length in list(lengths.items())[:20])
            )
        return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
    rows = list(content.values()) if isinstance(content, dict) else content
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        return rows
    raise ValueError(f"{path}: expected a list of objects, or an object with a list for each column")


def _framed(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[Frame]:
    pandas = require("pandas", "data", PURPOSE)
    left = iter(records)
    while some := list(islice(left, CHUNK)):
        cells = {name: [record.get(name) for record in some] for name in columns}
        yield pandas.DataFrame({name: pandas.Series(each, dtype=object) for name, each in cells.items()})


# --- Parquet and Arrow ---


def _parquet(path: Path) -> Table:
    parquet = _arrow("pyarrow.parquet")
    source: Any = path
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            try:
                source = io.BytesIO(gzip.decompress(path.read_bytes()))
            except _DAMAGED as error:
                raise ValueError(f"{path}: damaged gzip: {error}") from error
    try:
        file = parquet.ParquetFile(source)
    except ValueError as error:  # ArrowInvalid is one
        raise ValueError(f"{path}: not Parquet: {error}") from error

    def read(columns: Sequence[str]) -> Iterator[Frame]:
        return (batch.to_pandas() for batch in file.iter_batches(CHUNK, columns=list(columns)))

    return Table(path, tuple(file.schema_arrow.names), read)


def _folder(path: Path) -> Table:
    """A folder of ``Dataset.save_to_disk``: state.json names Arrow files, dataset_info.json the features."""
    state = path / "state.json"
    if not state.exists():
        splits = sorted(each.parent.name for each in path.glob("*/state.json"))
        if len(splits) == 1:
            return _folder(path / splits[0])
        if splits:
            raise ValueError(f"{path}: expected the folder of one split; it has {', '.join(splits)}")
        raise ValueError(f"{path}: expected a file, or a folder of datasets with state.json; it has none")
    kept = _object(state)
    if kept.get("_indices_data_files"):
        raise ValueError(
            f"{path}: expected a dataset with rows in their order: call flatten_indices() and save it"
        )
    files = [path / Path(str(each["filename"])).name for each in kept.get("_data_files", [])]
    info = path / "dataset_info.json"
    features = (_object(info).get("features") or {}) if info.exists() else {}
    classes = {
        name: tuple(map(str, feature["names"]))
        for name, feature in features.items()
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }
    if not files:
        raise ValueError(f"{path}: expected Arrow files that state.json names, got none")
    with _stream(files[0]) as stream:
        names = tuple(stream.schema.names)

    def read(columns: Sequence[str]) -> Iterator[Frame]:
        for file in files:
            with _stream(file) as stream:
                for batch in stream:
                    yield batch.select(list(columns)).to_pandas()

    return Table(path, names, read, classes)


def _stream(path: Path) -> Any:
    arrow = _arrow("pyarrow")
    try:
        return arrow.ipc.open_stream(arrow.memory_map(str(path)))
    except ValueError as error:
        raise ValueError(f"{path}: not a file of Arrow: {error}") from error


def _arrow(module: str) -> Any:
    return require(module, "data", "reading Parquet and Arrow files")


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, got {type(content).__name__}")
    return content
