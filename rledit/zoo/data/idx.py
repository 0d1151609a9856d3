"""A strict reader of IDX files, the format MNIST is published in.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/, section "the IDX file format".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

UNSIGNED_BYTE = 0x08


def read_idx(path: str | os.PathLike[str], ndim: int) -> Tensor:
    """The array in an IDX file of unsigned bytes.

    The layout: two zero bytes, the type code (0x08), the number of dimensions D, D sizes as big-endian
    uint32, then the values, last dimension fastest.

    Args:
        path: the file; decompressed on the way if the name ends in ``.gz``.
        ndim: the number of dimensions it must have: 3 for images, 1 for labels.

    Returns:
        uint8 tensor with ``ndim`` dimensions.

    Raises:
        ValueError: it is not such a file: wrong magic number, type or number of dimensions, too few
            bytes, bytes left over, or a damaged gzip stream. The message starts with the path.
        OSError: it cannot be opened.
    """
    path = Path(path)
    data = _read(path)
    if len(data) < 4:
        raise ValueError(f"{path}: truncated IDX file: expected a magic number of 4 bytes, got {len(data)}")
    expected_magic = bytes((0, 0, UNSIGNED_BYTE, ndim))
    if data[:4] != expected_magic:
        raise ValueError(
            f"{path}: not an IDX file of unsigned bytes in {ndim} dimensions: "
            f"expected magic number {expected_magic.hex()}, got {data[:4].hex()}"
        )
    header = 4 + 4 * ndim
    if len(data) < header:
        raise ValueError(f"{path}: truncated IDX file: expected a header of {header} bytes, got {len(data)}")
    shape = tuple(int(size) for size in np.frombuffer(data, dtype=">u4", count=ndim, offset=4))
    expected = header + math.prod(shape)
    if len(data) != expected:
        fault = "truncated IDX file" if len(data) < expected else "trailing bytes in IDX file"
        raise ValueError(f"{path}: {fault}: shape {list(shape)} needs {expected} bytes, got {len(data)}")
    values = np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
    return torch.from_numpy(values.copy())  # a copy, since torch wants writable memory


def _read(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file: {error}") from error
