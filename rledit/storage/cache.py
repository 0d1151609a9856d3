"""Activations of an encoder, kept on disk so that they are computed once per encoder and texts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .fingerprint import fingerprint
from .plain import Json
from .tensors import read_tensors, write_tensors

_FORMAT = "rledit activations 1"
_PART_BYTES = 1 << 28  # what is computed anew where a file is damaged


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where activations are kept: ``folder``, or ``activations`` in the user's cache folder of rledit.

    Args:
        folder: ``~`` allowed; it need not exist yet.

    Raises:
        NotADirectoryError: it exists and is not a folder.
    """
    chosen = (user_cache() / "activations" if folder is None else Path(folder)).expanduser().absolute()
    if chosen.exists() and not chosen.is_dir():
        raise NotADirectoryError(f"folder: expected a folder, got the file {chosen}")
    return chosen


def user_cache() -> Path:
    """rledit's folder among the caches of the system's programs."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "rledit" / "rledit" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rledit"
    return Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache") / "rledit"


def cached(
    folder: str | os.PathLike[str] | None, key_parts: Sequence[Json], compute: Callable[[], Tensor]
) -> Tensor:
    """What ``compute`` returns, read from the disk where it has been computed before::

        cached(None, ["embed", encoder.settings, texts], lambda: encoder.embed(texts))

    The files are named after the SHA-256 of the key parts and hold nothing but safetensors. They take what
    the tensor takes: 4 bytes a number, so 40 MB for 26,000 embeddings of 384 numbers and 2.6 GB for their
    64 x 385 inputs of a last block. Nothing is ever deleted; the folder may be, at any time.

    Files that are damaged (a checksum tells) or that belong to another key are computed again, with a
    warning. A cache that cannot be written is a warning, too: the tensor is returned anyway.

    Args:
        folder: see :func:`cache_folder`.
        key_parts: all that the tensor depends on: the function's name, the encoder's fingerprint, the
            settings, the texts. Equal parts must mean equal tensors.
        compute: returns a dense tensor [S, ...].

    Returns:
        The tensor, on the CPU.

    Raises:
        NotADirectoryError: ``folder`` is a file.
        TypeError: a key part is not JSON, or ``compute`` returned something else than a tensor [S, ...].
        ValueError: a key part is NaN or infinite.
    """
    chosen = cache_folder(folder)
    key = _key(key_parts)
    if _path(chosen, key, 0).exists():
        try:
            return _read(chosen, key)
        except (OSError, ValueError) as error:
            warnings.warn(f"cached activations are computed again: {error}", stacklevel=2)
    tensor = compute()
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.dim() == 0:
        kind = f"{list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"compute: expected to return a dense tensor [S, ...], got {kind}")
    tensor = tensor.detach().cpu()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        _write(chosen, key, tensor)
    except OSError as error:
        warnings.warn(f"activations are not cached: {error}", stacklevel=2)
    return tensor


def _key(parts: Sequence[Json]) -> str:
    try:
        text = json.dumps([_FORMAT, *parts], allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise type(error)(f"key_parts: expected JSON: {error}") from error
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _path(folder: Path, key: str, part: int) -> Path:
    return folder / f"{key}-{part:03d}.safetensors"


def _write(folder: Path, key: str, tensor: Tensor) -> None:
    row_bytes = max(1, tensor[:1].numel() * tensor.element_size())
    parts = torch.split(tensor, max(1, _PART_BYTES // row_bytes))
    # Backwards: where the first part is, all are.
    for number, part in reversed(list(enumerate(parts))):
        write_tensors(
            _path(folder, key, number),
            {"activations": part},
            {
                "key": key,
                "part": f"{number + 1} of {len(parts)}",
                "checksum": fingerprint({"activations": part}),
            },
        )


def _read(folder: Path, key: str) -> Tensor:
    """Raises OSError or ValueError if a part is missing or not what was written."""
    tensors: list[Tensor] = []
    count = 1
    while len(tensors) < count:
        path = _path(folder, key, len(tensors))
        found, metadata = read_tensors(path)
        total = metadata.get("part", "").partition(" of ")[2]
        if not tensors and total.isdecimal():
            count = int(total)
        if (
            list(found) != ["activations"]
            or metadata.get("key") != key
            or metadata["part"] != f"{len(tensors) + 1} of {count}"
            or metadata.get("checksum") != fingerprint(found)
        ):
            raise ValueError(f"{path} is not what was written there")
        tensors.append(found["activations"])
    return tensors[0] if count == 1 else torch.cat(tensors)
