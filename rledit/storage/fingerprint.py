"""Which weights is this edit for? A hash of the very bits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Hashes named weights: `"sha256:"` and 64 hexadecimal digits.

    Names, dtypes, shapes and bits count; the order of the names, the device and the strides do not. For an
    edit the names are those of the target modules (`"fc1"`, not `"fc1.weight"`).

    Args:
        weights: name -> dense tensor of any shape and dtype.

    Raises:
        TypeError: a value is not a dense tensor.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(f"weights[{name!r}]: expected a dense tensor, got {type(tensor).__name__}")
        # Lengths first, so that no two different mappings hash the same stream of bytes.
        head = f"{len(name)}:{name}|{tensor.dtype}|{tuple(tensor.shape)}|"
        digest.update(head.encode("utf-8"))
        # uint8 view: NumPy has no bfloat16, and bits are what counts (0.0 is not -0.0, NaNs are comparable)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"
