"""Which weights is this edit for? A hash of their exact bits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from .tensors import StoredTensor

CASTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes in which weights are recognized, see :func:`fingerprints`."""

_CHUNK = 1 << 20  # values that are cast at a time


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def fingerprint(weights: Mapping[str, Tensor | StoredTensor], dtype: torch.dtype | None = None) -> str:
    """Hashes named weights: `"sha256:"` and 64 hexadecimal digits.

    Names, dtypes, shapes and bits count; the order of the names, the device and the strides do not. For an
    edit the names are those of the target modules (`"fc1"`, not `"fc1.weight"`).

    Args:
        weights: name -> dense tensor of any shape and dtype, in memory or in a file.
        dtype: hash the weights as they are after `.to(dtype)`.

    Raises:
        TypeError: a value is not a dense tensor.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        _add(digest, name, weights[name], dtype)
    return f"sha256:{digest.hexdigest()}"


def fingerprints(weights: Mapping[str, Tensor | StoredTensor]) -> dict[str, str]:
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


def _add(digest: _Digest, name: str, tensor: Tensor | StoredTensor, dtype: torch.dtype | None) -> None:
    parts: Iterable[Tensor]
    if isinstance(tensor, StoredTensor):
        parts = tensor.flat_parts()
    elif isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized:
        parts = tensor.detach().cpu().contiguous().reshape(-1).split(_CHUNK)
    else:
        raise TypeError(f"weights[{name!r}]: expected a dense tensor, got {type(tensor).__name__}")
    # Lengths first, so that no two different mappings hash the same stream of bytes.
    head = f"{len(name)}:{name}|{dtype or tensor.dtype}|{tuple(tensor.shape)}|"
    digest.update(head.encode("utf-8"))
    for part in parts:
        # uint8 view: NumPy has no bfloat16, and bits are what counts (0.0 is not -0.0, NaNs are comparable)
        digest.update(part.to(dtype or part.dtype).view(torch.uint8).numpy().data)
