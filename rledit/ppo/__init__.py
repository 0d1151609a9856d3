"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) over the worlds.

``config``     the numbers, each with its reason
``agent``      policy and value function together
``rollout``    one batch of episodes, and generalized advantages
``update``     the clipped update
``guard``      what brings the last good policy back when an update has failed
``trainer``    :class:`PPO`, which puts them together
"""

from .. import _moved
from .agent import NotFiniteError
from .config import PPOConfig
from .trainer import PPO, AgentLostError, Result


def __getattr__(name: str) -> object:
    """Find a module under its name in version 0.1."""
    return _moved.attribute(__name__, name)


__all__ = ["PPO", "AgentLostError", "NotFiniteError", "PPOConfig", "Result"]
