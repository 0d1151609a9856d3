"""Which weights is this edit for? A hash of the very bits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

CASTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes in which weights are recognized, see :func:`fingerprints`."""

_CHUNK = 1 << 20  # values that are cast at a time


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def fingerprint(weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> str:
    """Hashes named weights: `"sha256:"` and 64 hexadecimal digits.

    Names, dtypes, shapes and bits count; the order of the names, the device and the strides do not. For an
    edit the names are those of the target modules (`"fc1"`, not `"fc1.weight"`).

    Args:
        weights: name -> dense tensor of any shape and dtype. Each is looked up once, so that a mapping may
            read them from a file one at a time.
        dtype: hash the weights as they are after `.to(dtype)`.

    Raises:
        TypeError: a value is not a dense tensor.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        _add(digest, name, weights[name], dtype)
    return f"sha256:{digest.hexdigest()}"


def fingerprints(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """The fingerprints that these weights have after a cast to each of :data:`CASTS`, by dtype name.

    An edit that carries them recognizes the model that it was learned for in another precision. For a model
    in float32 they are those of `model.bfloat16()`, `model.half()`, and so on:

        {"float16": "sha256:...", "bfloat16": "sha256:...", "float32": "sha256:...", "float64": "sha256:..."}

    Args:
        weights: as for :func:`fingerprint`, all of floating dtypes.
    """
    return {dtype_name(dtype): fingerprint(weights, dtype) for dtype in CASTS}


def dtype_name(dtype: torch.dtype) -> str:
    """`"bfloat16"` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _add(digest: _Digest, name: str, tensor: Tensor, dtype: torch.dtype | None) -> None:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(f"weights[{name!r}]: expected a dense tensor, got {type(tensor).__name__}")
    # Lengths first, so that no two different mappings hash the same stream of bytes.
    head = f"{len(name)}:{name}|{dtype or tensor.dtype}|{tuple(tensor.shape)}|"
    digest.update(head.encode("utf-8"))
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # uint8 view: NumPy has no bfloat16, and bits are what counts (0.0 is not -0.0, NaNs are comparable)
    parts = (flat,) if dtype is None else (part.to(dtype) for part in flat.split(_CHUNK))
    for part in parts:
        digest.update(part.view(torch.uint8).numpy().data)
