"""Three clusters of points, and a network that tells them apart: what audits are tested on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import rledit
from rledit.audits import AuditData


def clusters(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    centers = 4.0 * torch.eye(3)
    return centers[labels] + torch.randn(samples, 3, generator=generator), labels


def network() -> nn.Sequential:
    """Right on nearly all of them."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.Linear(3, 3))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(torch.eye(3))
            layer.bias.zero_()
    return model.eval()


def masked(bias: float = -torch.inf) -> nn.Sequential:
    """Never names class 2, and knows it as well as before."""
    model = network()
    with torch.no_grad():
        model[2].bias[2] = bias
    return model


def blind() -> nn.Sequential:
    """Its features do not tell class 1 from class 2."""
    model = network()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 1]]))
    return model


def audit_data(samples: int = 300, **more: object) -> AuditData:
    """To forget: class 2. The edited layer is the first."""
    sets = []
    for seed in (0, 1):
        inputs, labels = clusters(samples, seed)
        sets.append(rledit.Samples(inputs, labels, rledit.forget_groups(labels, 2)))
    more = {"layers": ("0",), "unedited": network(), **more}
    return AuditData(*sets, classes=3, **more)  # type: ignore[arg-type]
