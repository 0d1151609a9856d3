"""CIFAR-10, binary version.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009),
https://www.cs.toronto.edu/~kriz/cifar.html, section "Binary version".
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch

from .dataset import Dataset, LabeledImages
from .root import fetch, first_existing, missing

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)

RECORD = 1 + 3 * 32 * 32  # bytes: the label, then red, green and blue planes, each row by row


def load_cifar10(root: Path, download: bool) -> Dataset:
    """50,000 training and 10,000 test images, uint8 [S, 3, 32, 32], of ten classes.

    Each of the six files is looked for in ``root/cifar-10-batches-bin``, then in ``root`` itself; if one
    is in neither, the archive (170 MB) is downloaded and unpacked into the former. An
    archive put into ``root`` by hand is used instead of the network.

    Raises:
        FileNotFoundError: a file is missing and ``download`` is false.
        ConnectionError, ValueError, OSError: the download failed, see :func:`rledit.zoo.data.root.fetch`.
        ValueError: a file or the archive is damaged.
    """
    folder = root / FOLDER
    names = TRAIN_FILES + TEST_FILES
    absent = [name for name in names if first_existing((folder, root), (name,)) is None]
    if absent:
        if not download:
            raise missing("cifar10", absent, folder)
        was_there = (root / URL.rsplit("/", 1)[1]).exists()  # put there by hand: not ours to remove
        archive = fetch(URL, MD5, root)
        _unpack(archive, names, folder)
        if not was_there:
            archive.unlink()
    return Dataset(
        "cifar10", _part(root, folder, TRAIN_FILES), _part(root, folder, TEST_FILES), classes=CLASSES
    )


def _part(root: Path, folder: Path, names: tuple[str, ...]) -> LabeledImages:
    records = np.concatenate([_read_batch(_existing(root, folder, name)) for name in names])
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    images = torch.from_numpy(np.ascontiguousarray(records[:, 1:])).view(-1, 3, 32, 32)
    return LabeledImages(images, labels)


def _existing(root: Path, folder: Path, name: str) -> Path:
    path = first_existing((folder, root), (name,))
    if path is None:  # only if someone removed it just now
        raise missing("cifar10", (name,), folder)
    return path


def _read_batch(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The records of one file, uint8 [S, 3073]."""
    data = np.fromfile(path, dtype=np.uint8)
    if data.size == 0 or data.size % RECORD:
        raise ValueError(
            f"{path}: truncated, or not a CIFAR-10 batch: "
            f"expected a multiple of {RECORD} bytes, got {data.size}"
        )
    records = data.reshape(data.size // RECORD, RECORD)
    highest = int(records[:, 0].max())
    if highest >= len(CLASSES):
        raise ValueError(f"{path}: expected labels in 0..9, got {highest}")
    return records


def _unpack(archive: Path, names: tuple[str, ...], folder: Path) -> None:
    """Write the wanted files of the archive into ``folder``.

    No path from inside the archive is ever used as one on disk, which rules out traversal, links and
    devices, whatever the Python version's tarfile filters do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in names:
                member = tar.getmember(f"{FOLDER}/{name}")
                source = tar.extractfile(member) if member.isreg() else None
                if source is None:
                    raise ValueError(f"{archive}: {member.name}: expected a regular file")
                partial = folder / f"{name}.partial"
                try:
                    with source, open(partial, "wb") as target:
                        shutil.copyfileobj(source, target)
                    partial.replace(folder / name)  # complete files only, even after Ctrl-C
                finally:
                    partial.unlink(missing_ok=True)
    except (KeyError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"{archive}: damaged archive: {error}") from error
