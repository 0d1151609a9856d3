"""The networks of the demos and tables. Any other ``nn.Module`` can be edited just as well."""

from __future__ import annotations

from .mnist_cnn import MnistCNN
from .registry import NAMES, build, normalize
from .resnet_cifar import ResNetCIFAR

__all__ = ["NAMES", "MnistCNN", "ResNetCIFAR", "build", "normalize"]
