"""The guard that keeps a run from blowing up, and the tensors that make up a learner."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..policies.gaussian import Agent


def learner_tensors(agent: Agent, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The agent's parameters and Adam's moments by name; the very tensors, not copies."""
    tensors = {f"agent.{name}": value for name, value in agent.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": value for name, value in moments.items()}
    return tensors


def load_learner(agent: Agent, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Copies what :func:`learner_tensors` gave; other names are ignored, the learning rate stays.

    Raises:
        RuntimeError: for tensors of another agent.
    """
    agent.load_state_dict({n.removeprefix("agent."): v for n, v in tensors.items() if n.startswith("agent.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, kind = name.split(".")
            moments.setdefault(int(index), {})[kind] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


class Guard:
    """Keeps the last good agent. When an update fails, it comes back with half the step.

    Adam's moments come back with it: they are what carried the agent away.

    Attributes:
        recoveries: how often it has come back.
    """

    def __init__(self, agent: Agent, optimizer: torch.optim.Optimizer) -> None:
        self._agent = agent
        self._optimizer = optimizer
        self.recoveries = 0
        self._good: dict[str, Tensor] = {}
        self.keep()

    def keep(self) -> None:
        """Remember the agent as it is."""
        tensors = learner_tensors(self._agent, self._optimizer)
        if tensors.keys() != self._good.keys():  # Adam has no moments before its first step
            self._good = {name: torch.empty_like(value) for name, value in tensors.items()}
        for name, value in tensors.items():
            self._good[name].copy_(value)

    def restore(self) -> float:
        """Bring the remembered agent back, halve the learning rate, and return it."""
        load_learner(self._agent, self._optimizer, self._good)
        for group in self._optimizer.param_groups:
            group["lr"] /= 2
        self.recoveries += 1
        return float(self._optimizer.param_groups[0]["lr"])
