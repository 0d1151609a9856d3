"""Reading and writing files: text, JSON and tensors, each written atomically (see :mod:`.atomic`)."""

from __future__ import annotations

import json
import os

from .atomic import TEMPORARY_SUFFIX, WriteError, write_bytes, write_error
from .plain import Json, plain_json
from .tensors import read_tensors, write_tensors

__all__ = [
    "TEMPORARY_SUFFIX",
    "Json",
    "WriteError",
    "read_tensors",
    "write_bytes",
    "write_error",
    "write_json",
    "write_tensors",
    "write_text",
]


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces the file `path` by `text` in UTF-8, atomically. Raises WriteError as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Replaces the file `path` by `value`, indented, keys in the order given, atomically.

    Equal values give equal bytes. NumPy numbers and tensors become plain ones.

    Raises:
        ValueError: NaN or an infinity, which JSON cannot express; names where.
        TypeError: something that is not JSON; names where.
        WriteError: as `write_bytes`.
    """
    try:
        plain = plain_json(value, "value")
    except (ValueError, TypeError) as error:
        raise type(error)(f"cannot write {os.fspath(path)} as JSON: {error}") from error
    write_text(path, json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
