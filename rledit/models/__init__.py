"""The networks of the demos and tables. Any other ``nn.Module`` can be edited just as well."""

from __future__ import annotations

from rledit.models.mnist_cnn import MnistCNN
from rledit.models.registry import NAMES, build, normalize
from rledit.models.resnet_cifar import ResNetCIFAR

__all__ = ["NAMES", "MnistCNN", "ResNetCIFAR", "build", "normalize"]
