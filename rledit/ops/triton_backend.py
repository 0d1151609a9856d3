"""The ops in Triton: tensors on a GPU, or anywhere under Triton's interpreter (``TRITON_INTERPRET=1``).

Triton and :mod:`rledit.kernels` are imported when the first op is called, never before.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor

from .gpu import GpuOps, Kernels, dense, on_device

LEAST = (3, 3)
"""The first version whose kernels take tuples of pointers."""

MOST_CLASSES = 1024
"""The most classes of a tail: all logits of a tile of samples are in registers at once."""


def interpreted() -> bool:
    """Whether Triton's interpreter is to run the kernels, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def missing() -> str:
    """Why the backend cannot be used on this machine, or ""."""
    if find_spec("triton") is None:
        return 'the package triton is not installed: pip install "rledit[triton]"'
    found = version("triton")
    if tuple(int(part) for part in found.split(".")[:2]) < LEAST:
        return f"it needs Triton {LEAST[0]}.{LEAST[1]} or later, got {found}"
    if not (interpreted() or torch.cuda.is_available()):
        return "no GPU is available (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly)"
    return ""


def _kernels() -> Kernels:
    from ..kernels import ops

    found: Kernels = ops
    return found


def population_linear(
    shared: Tensor, reduced: Tensor, left: Tensor, scale: float, precision: str = "float32"
) -> Tensor:
    """``shared[s] + scale * reduced[s, n] @ left[n]^T``, [N, S, O]: what a suffix adds at a shifted layer.

    Args:
        shared: [S, O].
        reduced: [S, N, R].
        left: [N, O, R].

    Raises:
        ValueError, TypeError: for shapes that do not fit, or tensors that are not this backend's.
    """
    from ..kernels import population_linear as kernel

    if shared.dim() != 2 or reduced.dim() != 3 or reduced.shape[0] != shared.shape[0]:
        raise ValueError(
            f"shared, reduced: expected [S, O] and [S, N, R], got {list(shared.shape)} and "
            f"{list(reduced.shape)}"
        )
    expected = (reduced.shape[1], shared.shape[1], reduced.shape[2])
    if left.shape != expected:
        raise ValueError(f"left: expected shape {list(expected)}, got {list(left.shape)}")
    OPS.check(shared=shared, reduced=reduced, left=left)
    with on_device(shared):
        out: Tensor = kernel.population_linear(dense(shared), dense(reduced), dense(left), scale, precision)
    return out


OPS = GpuOps(
    "triton",
    (torch.float32, torch.float16, torch.bfloat16),
    interpreted,
    _kernels,
    MOST_CLASSES,
    population_linear,
)
