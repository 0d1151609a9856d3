"""A checkpoint: tensors and JSON in one file that is either whole or refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..storage.files import Json, read_tensors, write_tensors
from ..storage.fingerprint import fingerprint

FORMAT_VERSION = "1"
_KIND = "rledit checkpoint"


class CheckpointError(ValueError):
    """A file is not a whole, valid checkpoint."""


def save_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], state: Mapping[str, Json]
) -> None:
    """Replaces the checkpoint `path`, atomically: killed in between, the old one is still there.

    Args:
        tensors: name -> dense tensor, any device and strides; dtypes, 0-dim and empty tensors survive.
        state: JSON with finite floats, which survive exactly (tuples come back as lists). Put NaN and
            infinities into tensors.

    Raises:
        TypeError, ValueError: what safetensors or JSON cannot hold.
        OSError: the disk refuses; the previous checkpoint is intact.
    """
    text = json.dumps(state, allow_nan=False, sort_keys=False)
    metadata = {
        "kind": _KIND,
        "format_version": FORMAT_VERSION,
        "state": text,
        "sha256": _hash(tensors, text),
    }
    write_tensors(path, tensors, metadata)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_checkpoint` got, bit for bit: tensors on the CPU, and the state.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: (a ValueError) truncated, corrupt in a single bit, of another format, or not a
            checkpoint.
    """
    name = os.fspath(path)
    try:
        tensors, metadata = read_tensors(path)
    except ValueError as error:
        raise CheckpointError(f"the checkpoint cannot be used: {error}") from error
    if metadata.get("kind") != _KIND:
        raise CheckpointError(f"{name} is not a checkpoint of rledit")
    if metadata.get("format_version") != FORMAT_VERSION:
        got = metadata.get("format_version")
        raise CheckpointError(f"{name}: expected format version {FORMAT_VERSION}, got {got}")
    text = metadata.get("state", "")
    if metadata.get("sha256") != _hash(tensors, text):
        raise CheckpointError(f"{name} is corrupt: its content does not match its hash")
    state: dict[str, Any] = json.loads(text)
    return tensors, state


def _hash(tensors: Mapping[str, Tensor], state: str) -> str:
    return hashlib.sha256(f"{fingerprint(tensors)}\n{state}".encode()).hexdigest()
