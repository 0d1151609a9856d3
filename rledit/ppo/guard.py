"""The guard that keeps a run from blowing up."""

from __future__ import annotations

import torch
from torch import Tensor

from .agent import Agent, learner_tensors, load_learner


class Guard:
    """Keeps the last good agent. When an update fails, it comes back with half the step size.

    Adam's moments come back with it: they are what carried the agent away.

    Attributes:
        good: the last good agent and its moments, by the names of :func:`learner_tensors`; never written to.
        recoveries: how often it has come back.
    """

    def __init__(self, agent: Agent, optimizer: torch.optim.Optimizer) -> None:
        self._agent = agent
        self._optimizer = optimizer
        self.recoveries = 0
        self.good: dict[str, Tensor] = {}
        self.good = self.keep()

    def keep(self) -> dict[str, Tensor]:
        """Copies of the agent as it is. It is the one that comes back from now on, if it is sound."""
        # New memory each time: what somebody else holds must not change, and a Ctrl-C in the middle of
        # copying must not leave half of each.
        tensors = learner_tensors(self._agent, self._optimizer)
        copies = {name: value.detach().clone() for name, value in tensors.items()}
        if self._agent.finite():
            self.good = copies
        return copies

    def restore(self) -> float:
        """Bring the remembered agent back, halve the learning rate, and return it."""
        load_learner(self._agent, self._optimizer, self.good)
        for group in self._optimizer.param_groups:
            group["lr"] /= 2
        self.recoveries += 1
        return float(self._optimizer.param_groups[0]["lr"])
