"""Networks by name, and what each data set's networks expect as input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .mnist_cnn import MnistCNN
from .resnet_cifar import ResNetCIFAR

_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "mnist_cnn": MnistCNN,
    "resnet20": lambda: ResNetCIFAR(20),
    "resnet32": lambda: ResNetCIFAR(32),
    "resnet44": lambda: ResNetCIFAR(44),
}

# Mean and standard deviation per channel, of gray levels scaled to 0..1. MNIST's are those of its training
# set. CIFAR's are ImageNet's, because the published ResNet weights were trained with them.
_MNIST = ((0.1307,), (0.3081,))
_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": _MNIST,
    "mnist5k": _MNIST,
    "cifar10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

NAMES = tuple(_BUILDERS)
"""What :func:`build` knows."""


def build(name: str) -> nn.Module:
    """A new network with random weights (from torch's global generator), in train mode.

    Args:
        name: ``"mnist_cnn"``, ``"resnet20"``, ``"resnet32"`` or ``"resnet44"``.

    Raises:
        ValueError: no such name.
    """
    if name not in _BUILDERS:
        raise ValueError(f"name: expected one of {', '.join(NAMES)}, got {name!r}")
    return _BUILDERS[name]()


def normalize(dataset_name: str, images: Tensor) -> Tensor:
    """Images as the networks of a data set expect them: (gray / 255 - mean) / standard deviation.

    Args:
        dataset_name: ``"mnist"``, ``"mnist5k"`` or ``"cifar10"``.
        images: uint8 [S, C, H, W].

    Returns:
        float32 [S, C, H, W] on the same device.

    Raises:
        ValueError: no such data set, or C is not its number of channels.
        TypeError: the images are not uint8 (normalizing twice is a silent way to lose accuracy).
    """
    if dataset_name not in _STATISTICS:
        raise ValueError(f"dataset_name: expected one of {', '.join(_STATISTICS)}, got {dataset_name!r}")
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected dtype uint8, got {images.dtype}")
    mean, std = (torch.tensor(values, device=images.device) for values in _STATISTICS[dataset_name])
    if images.ndim != 4 or images.shape[1] != len(mean):
        raise ValueError(f"images: expected shape [S, {len(mean)}, H, W], got {list(images.shape)}")
    # In place after the first step: CIFAR-10 is 600 MB as float32.
    scaled = images.to(torch.float32).div_(255)
    return scaled.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
