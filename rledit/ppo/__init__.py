"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) over the worlds.

``config``     the numbers, each with its reason
``policy``     the Gaussian policy and the value function
``rollout``    one batch of episodes, and generalised advantages
``update``     the clipped update
``guard``      what brings the last good policy back when an update has failed
``selection``  the best edits so far, and which of them is returned
``trainer``    :class:`PPO`, which puts them together
"""

from .config import PPOConfig
from .trainer import PPO, Result

__all__ = ["PPO", "PPOConfig", "Result"]
