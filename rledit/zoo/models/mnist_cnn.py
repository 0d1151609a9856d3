"""The shallow MNIST network of the model-editing experiments, written as ordinary PyTorch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MnistCNN(nn.Module):
    """Three small convolutions, then the 128x32 layer that edits target, then the logits.

    Input: float32 [S, 1, 28, 28], normalized (:func:`rledit.zoo.models.normalize` with ``"mnist"``).
    Output: float32 logits [S, 10].

    The layer to edit is ``fc1``: its weight is [32, 128], as in S. Malik, "Reinforcement Learning for
    Neural Model Editing", arXiv 2606.13461, section on MNIST. The paper fixes that shape and leaves the
    convolutions open; these have 26,954 parameters in all, so that pretraining takes a minute without a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=5)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5)
        self.conv3 = nn.Conv2d(32, 32, kernel_size=3)
        self.fc1 = nn.Linear(128, 32)
        self.fc2 = nn.Linear(32, 10)

    def features(self, images: Tensor) -> Tensor:
        """What ``fc1`` sees: float32 [S, 1, 28, 28] -> float32 [S, 128], non-negative."""
        # Pooling before the ReLU gives the same numbers as after it (both are monotone) for a quarter
        # of the elementwise work.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # [S, 16, 12, 12]
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # [S, 32, 4, 4]
        x = F.relu(self.conv3(x))  # [S, 32, 2, 2]
        return x.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.fc1(self.features(images)))
        logits: Tensor = self.fc2(hidden)
        return logits
