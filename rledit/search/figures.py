"""The figures that every search's rows have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .result import Row


def figures(returns: Sequence[Tensor], metrics: Mapping[str, Tensor], elite: Tensor) -> dict[str, Tensor]:
    """Rewards and metrics, the means over all candidates, and those of the best one of the first task.

    Args:
        returns: returns of every task's candidates, each float64 [N].
        metrics: metrics of the first task, each float64 [N].
        elite: the first task's best return so far, a scalar.
    """
    first = returns[0]
    best = int(first.argmax())
    found = {
        "reward_mean": torch.cat(list(returns)).mean(),
        "reward_best": first[best],
        "reward_elite": elite,
    }
    for name, figure in metrics.items():
        found[name] = figure.mean()
        found[f"{name}_best"] = figure[best]
    return found


def read(figures: Mapping[str, Tensor]) -> Row:
    """All of them at once: on a GPU each would wait by itself."""
    values = torch.stack([figure.detach().double() for figure in figures.values()]).tolist()
    return dict(zip(figures, values, strict=True))
