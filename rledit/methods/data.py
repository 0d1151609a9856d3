"""The samples of a problem as tensors, on the device of its model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..samples import Samples


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs [S, ...] and labels, int64 [S]."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Data:
        """The samples of an index or a mask."""
        index = index.to(self.labels.device)
        return Data(self.inputs[index], self.labels[index])

    def some(self, count: int, generator: torch.Generator) -> Data:
        """At most ``count`` of the samples, drawn at random without replacement."""
        return self.take(torch.randperm(len(self), generator=generator)[:count])


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def group_data(model: nn.Module, samples: Samples, group: str) -> Data:
    """All samples of a group, copied."""
    device, mask = device_of(model), samples.groups[group]
    parts, start = [], 0
    for part in samples.batches(1000):
        parts.append(part[mask[start : start + len(part)].to(part.device)].to(device))
        start += len(part)
    return Data(torch.cat(parts), samples.labels[mask].to(device))


def joined(*parts: Data) -> Data:
    """The samples of all parts, one part after another."""
    return Data(torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts]))
