"""The best candidates so far."""

from __future__ import annotations

import torch
from torch import Tensor


class Elites:
    """The candidates with the largest returns so far, best first; of equals the earlier one.

    Attributes:
        size: at most as many are kept.
        returns: float64 [k]. Never written to: better ones take its place.
        actions: float32 [k, T, A], within the engine's bounds; likewise.
    """

    def __init__(self, size: int, steps: int, actions: int, device: torch.device | str = "cpu") -> None:
        self.size = size
        self.returns = torch.empty(0, dtype=torch.float64, device=device)
        self.actions = torch.empty(0, steps, actions, dtype=torch.float32, device=device)

    def best(self, returns: Tensor) -> Tensor:
        """Which of N candidates, returns [N], could become elites; at most as many as are kept."""
        return torch.sort(returns, descending=True, stable=True).indices[: self.size]

    def add(self, returns: Tensor, actions: Tensor) -> None:
        """Take candidates in, returns [n] and actions [n, T, A] within bounds."""
        returns = torch.cat([self.returns, returns])
        actions = torch.cat([self.actions, actions])
        order = self.best(returns)
        self.load(returns[order], actions[order])

    def load(self, returns: Tensor, actions: Tensor) -> None:
        """Take the place of all that are kept."""
        self.returns, self.actions = returns.to(self.returns), actions.to(self.actions)
