"""Policies: features in, a distribution over actions out.

``base``      what every policy is
``gaussian``  a Gaussian over an MLP, a Gaussian over a plain parameter vector, and the value function
"""

from typing import Literal

from .base import Distribution, Policy
from .gaussian import LOG_STD_LIMITS, DiagonalGaussian, GaussianPolicy, ParameterPolicy, ValueFunction

PolicyName = Literal["gaussian", "parameters"]

POLICIES = {"gaussian": GaussianPolicy, "parameters": ParameterPolicy}
"""Policies by the name that :class:`rledit.PPO` takes."""

__all__ = [
    "LOG_STD_LIMITS",
    "POLICIES",
    "DiagonalGaussian",
    "Distribution",
    "GaussianPolicy",
    "ParameterPolicy",
    "Policy",
    "PolicyName",
    "ValueFunction",
]
