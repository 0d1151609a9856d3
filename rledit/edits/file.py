"""The file of an edit: safetensors with ``<module>.left`` and ``<module>.right`` for each edited module.

Its ``__metadata__`` holds the world, the scale, the fingerprint of the weights that the edit was learned for
(and those that they have in other precisions), rledit's version, the metrics as JSON, and a hash of it all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..storage.fingerprint import fingerprint as hash_of
from ..storage.plain import Json
from ..storage.tensors import read_tensors, write_tensors

FORMAT_VERSION = "1"
"""Version of the file format. Another number means that this version of rledit must not guess what is in
it."""


class EditFileError(ValueError):
    """A file is not a whole, valid edit."""


@dataclass(frozen=True)
class EditContent:
    """What a file says, well-formed but not yet an edit: shapes, world and numbers are unchecked.

    Attributes:
        factors: module name -> (left, right).
        metrics: as :func:`rledit.storage.plain_json` gives them.
        casts: fingerprints of the same weights in other precisions, by dtype name. They only ever help to
            recognize a model, so they are left out of the hash: versions that do not know them read the file.
        content_hash: what the rest must hash to; "" in a file from another tool, which may come without.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    world: str
    scale: float
    fingerprint: str
    metrics: dict[str, Json]
    casts: dict[str, str] = field(default_factory=dict)
    content_hash: str = ""

    def check_hash(self) -> None:
        """Raise ValueError unless everything is as it was written."""
        if self.content_hash not in (
            "",
            self.hash_with(self.metrics),
            self.hash_with(_numbered(self.metrics)),
        ):
            raise ValueError("the edit is corrupt: it does not match its hash")

    def hash_with(self, metrics: Any) -> str:
        """The hash of everything, with these metrics."""
        fields = [hash_of(_tensors(self.factors)), self.world, repr(self.scale), self.fingerprint, metrics]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _numbered(metrics: Any) -> Any:
    """Metrics as the first versions hashed them: keys that were integers in the order of numbers, while they
    come back from JSON as text ("10" before "2")."""
    if isinstance(metrics, list):
        return [_numbered(item) for item in metrics]
    if not isinstance(metrics, dict):
        return metrics
    numbers = all(key.removeprefix("-").isdecimal() for key in metrics)
    return {int(key) if numbers else key: _numbered(item) for key, item in metrics.items()}


def write_edit(path: str | os.PathLike[str], content: EditContent) -> None:
    """Writes an edit, atomically; equal content gives equal bytes.

    Raises:
        OSError: the disk refuses; the previous version is intact.
    """
    from .. import __version__  # here, because rledit/__init__.py imports this file

    metadata = {
        "format_version": FORMAT_VERSION,
        "world": content.world,
        "scale": repr(content.scale),  # repr is exact for a float
        "fingerprint": content.fingerprint,
        "rledit_version": __version__,
        "metrics": json.dumps(content.metrics, allow_nan=False),
        "content_sha256": content.hash_with(content.metrics),
    }
    if content.casts:
        metadata["casts"] = json.dumps(content.casts, sort_keys=True)
    write_tensors(path, _tensors(content.factors), metadata)


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
    casts = json.loads(metadata.get("casts", "{}"))
    if not isinstance(casts, dict) or not all(isinstance(text, str) for text in casts.values()):
        raise ValueError("casts: expected a JSON object of fingerprints")
    names = {key.rpartition(".")[0] for key in tensors}
    if set(tensors) != {f"{name}.{side}" for name in names for side in ("left", "right")}:
        raise ValueError(f"expected <module>.left and <module>.right for each module, got {sorted(tensors)}")
    return EditContent(
        factors={name: (tensors[f"{name}.left"], tensors[f"{name}.right"]) for name in sorted(names)},
        world=metadata["world"],
        scale=float(metadata["scale"]),
        fingerprint=metadata["fingerprint"],
        metrics=metrics,
        casts=casts,
        content_hash=metadata.get("content_sha256", ""),
    )


def _tensors(factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, (left, right) in factors.items():
        tensors |= {f"{name}.left": left, f"{name}.right": right}
    return tensors
