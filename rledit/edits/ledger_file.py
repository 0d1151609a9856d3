"""The file of a ledger: safetensors with ``<place>.<module>.left`` and ``.right`` of each edit.

Its ``__metadata__`` holds the base's fingerprint, what is known of each edit as JSON, rledit's version, and a
hash of it all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..storage.fingerprint import fingerprint
from ..storage.plain import plain_json
from ..storage.tensors import read_tensors, write_tensors
from .edit import Edit

FORMAT_VERSION = "1"
KIND = "rledit ledger"


class LedgerFileError(ValueError):
    """A file is not a whole, valid ledger."""


@dataclass(frozen=True, eq=False)
class Entry:
    """An edit in its place.

    Attributes:
        name: to find it by.
        edit: with its metrics.
        when: the time when it was added, in UTC as ISO 8601.
        displaced: whether it is applied, as was permitted, to other weights than it was learned for, since an
            edit before it was removed.
    """

    name: str
    edit: Edit
    when: str
    displaced: bool = False


def write_ledger(path: str | os.PathLike[str], base: str, entries: Sequence[Entry]) -> None:
    """Writes a ledger, atomically.

    Raises:
        ValueError, TypeError: metrics that JSON cannot hold; names which.
        OSError: the disk refuses; the previous version is intact.
    """
    from .. import __version__  # here, because rledit/__init__.py imports this file

    tensors: dict[str, Tensor] = {}
    known = []
    for place, entry in enumerate(entries):
        edit = entry.edit
        for name, (left, right) in edit.factors.items():
            tensors |= {f"{place}.{name}.left": left, f"{place}.{name}.right": right}
        known.append(
            {
                "name": entry.name,
                "when": entry.when,
                "displaced": entry.displaced,
                "targets": edit.targets,
                "world": edit.world,
                "scale": repr(edit.scale),  # repr is exact for a float
                "fingerprint": edit.fingerprint,
                "casts": edit.casts,
                "metrics": plain_json(edit.metrics, f"metrics of {entry.name!r}"),
            }
        )
    text = json.dumps(known, allow_nan=False)
    metadata = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "rledit_version": __version__,
        "base": base,
        "entries": text,
        "sha256": _hash(tensors, base, text),
    }
    write_tensors(path, tensors, metadata)


def read_ledger(path: str | os.PathLike[str]) -> tuple[str, tuple[Entry, ...]]:
    """The base's fingerprint and the entries.

    Raises:
        FileNotFoundError: there is no such file.
        LedgerFileError: truncated, corrupt or not a ledger.
    """
    try:
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != KIND:
            raise ValueError("it is not a ledger of rledit")
        if metadata.get("format_version") != FORMAT_VERSION:
            got = metadata.get("format_version")
            raise ValueError(f"expected format version {FORMAT_VERSION}, got {got}")
        base, text = metadata.get("base", ""), metadata.get("entries", "")
        if metadata.get("sha256") != _hash(tensors, base, text):
            raise ValueError("it is corrupt: its content does not match its hash")
        return base, tuple(_entry(tensors, place, it) for place, it in enumerate(json.loads(text)))
    except FileNotFoundError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise LedgerFileError(f"{os.fspath(path)} is not a valid ledger: {error}") from error


def _entry(tensors: dict[str, Tensor], place: int, known: dict[str, Any]) -> Entry:
    factors = {
        name: (tensors[f"{place}.{name}.left"], tensors[f"{place}.{name}.right"]) for name in known["targets"]
    }
    edit = Edit(
        factors,
        known["world"],
        float(known["scale"]),
        known["fingerprint"],
        known["metrics"],
        known["casts"],
    )
    return Entry(known["name"], edit, known["when"], known["displaced"])


def _hash(tensors: dict[str, Tensor], base: str, entries: str) -> str:
    return hashlib.sha256(f"{fingerprint(tensors)}\n{base}\n{entries}".encode()).hexdigest()
