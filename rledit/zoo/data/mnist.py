"""MNIST from IDX files: torchvision's folder, a plain folder, or the network.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86 (1998). License of the data: CC BY-SA 3.0.
"""

from __future__ import annotations

from pathlib import Path

from .dataset import Dataset, LabeledImages
from .idx import read_idx
from .root import fetch, first_existing, missing

CLASSES = tuple("0123456789")

# torchvision's first mirror; LeCun's own server answers no more.
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"

# MD5 of the gzipped files.
MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}


def load_mnist(root: Path, download: bool) -> Dataset:
    """60,000 training and 10,000 test images, uint8 [S, 1, 28, 28], of the digits 0 to 9.

    Each of the four files is looked for in ``root/MNIST/raw`` (torchvision's layout), then in ``root``
    itself, plain before ``.gz``; what is in neither is downloaded into ``root/MNIST/raw``. Files found
    are checked for structure, not for their checksum, so other data in MNIST's format loads as well.

    Raises:
        FileNotFoundError: a file is missing and ``download`` is false.
        ConnectionError, ValueError, OSError: the download failed, see :func:`rledit.zoo.data.root.fetch`.
        ValueError: a file is damaged, or images and labels do not fit together.
    """
    folder = root / "MNIST" / "raw"
    paths = {name: first_existing((folder, root), (name, f"{name}.gz")) for name in MD5}
    absent = [name for name, path in paths.items() if path is None]
    if absent and not download:
        raise missing("mnist", absent, folder)
    found = {
        name: path if path is not None else fetch(f"{MIRROR}{name}.gz", MD5[name], folder)
        for name, path in paths.items()
    }
    return Dataset("mnist", _part(found, "train"), _part(found, "t10k"), CLASSES)


def _part(paths: dict[str, Path], prefix: str) -> LabeledImages:
    images_path, labels_path = paths[f"{prefix}-images-idx3-ubyte"], paths[f"{prefix}-labels-idx1-ubyte"]
    images = read_idx(images_path, ndim=3)
    labels = read_idx(labels_path, ndim=1)
    if tuple(images.shape[1:]) != (28, 28):
        raise ValueError(f"{images_path}: expected images of 28x28, got {list(images.shape[1:])}")
    if len(images) != len(labels):
        raise ValueError(f"{labels_path}: expected {len(images)} labels as {images_path}, got {len(labels)}")
    if len(labels) and int(labels.max()) >= len(CLASSES):
        raise ValueError(f"{labels_path}: expected labels in 0..9, got {int(labels.max())}")
    return LabeledImages(images.unsqueeze(1), labels.long())
