"""The residual networks for CIFAR-10 in their original, narrow form."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameter-free (option A) shortcut.

    Input: float32 [S, in_channels, H, W]. Output: float32 [S, channels, H / stride, W / stride].
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.missing_channels = channels - in_channels

    def shortcut(self, x: Tensor) -> Tensor:
        """The input, subsampled by the stride, with zero channels padded equally in front and behind."""
        if self.stride == 1 and self.missing_channels == 0:
            return x
        front = self.missing_channels // 2
        subsampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, front, self.missing_channels - front))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNetCIFAR(nn.Module):
    """ResNet of 6n + 2 layers with 16, 32 and 64 channels, n blocks of each.

    Input: float32 [S, 3, 32, 32], normalized (:func:`rledit.zoo.models.normalize` with ``"cifar10"``).
    Output: float32 logits [S, classes].

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
    section 4.2. Names in the state dict (``conv1, bn1, layer{1,2,3}.{k}.{conv1,bn1,conv2,bn2}, linear``)
    are those of Y. Idelbayev's pytorch_resnet_cifar10, so that its weights load. ``torch.fx`` can trace it.

    Args:
        depth: 20, 32, 44 or another 6n + 2 with n >= 1.
        classes: the number of logits.

    Raises:
        ValueError: another depth, or no class.
    """

    def __init__(self, depth: int = 20, classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth: expected 6n + 2 such as 20, 32 or 44, got {depth}")
        if classes < 1:
            raise ValueError(f"classes: expected at least 1, got {classes}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, in_channels=16, channels=16, stride=1)
        self.layer2 = _stage(blocks, in_channels=16, channels=32, stride=2)
        self.layer3 = _stage(blocks, in_channels=32, channels=64, stride=2)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def features(self, images: Tensor) -> Tensor:
        """What ``linear`` sees: float32 [S, 3, 32, 32] -> float32 [S, 64], the mean over all places."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(images))
        return logits


def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, stride=1) for _ in range(blocks - 1)))
