"""The file of an edit: safetensors with ``<module>.left`` and ``<module>.right`` for each edited module.

Its ``__metadata__`` holds the world, the scale, the fingerprint of the weights that the edit was learned for,
rledit's version, the metrics as JSON, and a hash of the factors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..storage.files import Json, read_tensors, write_tensors
from ..storage.fingerprint import fingerprint as hash_of

FORMAT_VERSION = "1"
"""Of the file. Another number means that this version of rledit must not guess what is in it."""


class EditFileError(ValueError):
    """A file is not a whole, valid edit."""


@dataclass(frozen=True)
class EditContent:
    """What a file says, well-formed but not yet an edit: shapes, world and numbers are unchecked.

    Attributes:
        factors: module name -> (left, right), sorted by name.
        content_hash: what all of it must hash to; "" in a file from another tool, which may come without.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    world: str
    scale: float
    fingerprint: str
    metrics: dict[str, Json]
    content_hash: str

    def check_hash(self) -> None:
        """Raise ValueError unless everything is as it was written."""
        found = _content_hash(self.factors, self.world, self.scale, self.fingerprint, self.metrics)
        if self.content_hash and found != self.content_hash:
            raise ValueError("the edit is corrupt: it does not match its hash")


def _content_hash(
    factors: Mapping[str, tuple[Tensor, Tensor]],
    world: str,
    scale: float,
    fingerprint: str,
    metrics: Mapping[str, Json],
) -> str:
    fields = json.dumps(
        [hash_of(_tensors(factors)), world, repr(scale), fingerprint, metrics], sort_keys=True
    )
    return hashlib.sha256(fields.encode()).hexdigest()


def write_edit(
    path: str | os.PathLike[str],
    factors: Mapping[str, tuple[Tensor, Tensor]],
    world: str,
    scale: float,
    fingerprint: str,
    metrics: Mapping[str, Json],
) -> None:
    """Writes an edit's fields, atomically; equal fields give equal bytes.

    Raises:
        ValueError: NaN or infinity in the metrics.
        OSError: the disk refuses; the previous version is intact.
    """
    from .. import __version__  # here, because rledit/__init__.py imports this file

    tensors = _tensors(factors)
    metadata = {
        "format_version": FORMAT_VERSION,
        "world": world,
        "scale": repr(scale),  # repr is exact for a float
        "fingerprint": fingerprint,
        "rledit_version": __version__,
        "metrics": json.dumps(metrics, allow_nan=False),
        "content_sha256": _content_hash(factors, world, scale, fingerprint, metrics),
    }
    write_tensors(path, tensors, metadata)


def read_edit(path: str | os.PathLike[str]) -> EditContent:
    """Reads what :func:`write_edit` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not safetensors, of another format version, or lacks something.
    """
    tensors, metadata = read_tensors(path)
    required = ("format_version", "world", "scale", "fingerprint", "metrics")
    if missing := [key for key in required if key not in metadata]:
        raise ValueError(f"its metadata lacks {', '.join(missing)}")
    if metadata["format_version"] != FORMAT_VERSION:
        raise ValueError(f"expected format version {FORMAT_VERSION}, got {metadata['format_version']}")
    metrics = json.loads(metadata["metrics"])
    if not isinstance(metrics, dict):
        raise ValueError(f"metrics: expected a JSON object, got {type(metrics).__name__}")
    names = {key.rpartition(".")[0] for key in tensors}
    if set(tensors) != {f"{name}.{side}" for name in names for side in ("left", "right")}:
        raise ValueError(f"expected <module>.left and <module>.right for each module, got {sorted(tensors)}")
    return EditContent(
        factors={name: (tensors[f"{name}.left"], tensors[f"{name}.right"]) for name in sorted(names)},
        world=metadata["world"],
        scale=float(metadata["scale"]),
        fingerprint=metadata["fingerprint"],
        metrics=metrics,
        content_hash=metadata.get("content_sha256", ""),
    )


def _tensors(factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, (left, right) in factors.items():
        tensors |= {f"{name}.left": left, f"{name}.right": right}
    return tensors
