"""Accuracies of a copy of a model whose weights are altered."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from .base import FORGET, RETAIN, AuditData
from .estimates import share
from .readings import read


def altered_accuracies(
    name: str, alter_: Callable[[nn.Module], None], model: nn.Module, data: AuditData
) -> dict[str, float]:
    """``<name>_<group>_accuracy`` of a copy changed by ``alter_``, over forget and retain test samples."""
    copy = deepcopy(model)
    alter_(copy)
    hits = read(copy, data.test, features=False).predicted == data.test.labels
    return {f"{name}_{group}_accuracy": share(hits[data.group(group)]) for group in (FORGET, RETAIN)}


def enter_displays(name: str, how: str, short: str) -> None:
    """How the figures of :func:`altered_accuracies` are shown: "forget accuracy after <how>"."""
    for group, direction in ((FORGET, -1), (RETAIN, 1)):
        METRIC_DISPLAYS[f"{name}_{group}_accuracy"] = MetricDisplay(
            f"{group} accuracy after {how}", f"{short}, {group}", percent=True, digits=2, direction=direction
        )


def weights_of(model: nn.Module) -> list[Tensor]:
    """The weights of Linear and Conv layers, those that layers share once."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    found = {id(module.weight): module.weight for module in model.modules() if isinstance(module, kinds)}
    return list(found.values())
