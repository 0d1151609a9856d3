"""The numbers of PPO."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

LOG_STD_LIMITS = (-8.0, 2.0)
"""Of the logarithm of the policy's standard deviations: 0.0003, where a policy is as good as deterministic,
to 7.4, where nearly every action is at its bound."""

POSITIVE = ("learning_rate", "clip", "target_kl", "initial_std", "max_grad_norm")
"""Numbers for which 0 has no meaning; for the others it switches something off."""


@dataclass(frozen=True)
class PPOConfig:
    """Settings of :class:`rledit.PPO`.

    The details marked with a number are those of Huang et al. 2022, "The 37 Implementation Details of
    Proximal Policy Optimization" (ICLR blog track).

    Raises:
        ValueError: for a number out of range.
    """

    learning_rate: float = 5e-4
    """Step of Adam. Far larger ones (3e-3) drive the factors apart."""
    epochs: int = 8
    """Passes over a batch of candidates."""
    minibatches: int = 2
    """Parts of the batch per pass (detail 6, minibatch updates)."""
    gamma: float = 1.0
    """Discount. 1: an episode's return is the whole improvement, and episodes are short."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438)."""
    clip: float = 0.2
    """Clipping of the probability ratio (arXiv:1707.06347, equation 7)."""
    value_weight: float = 0.5
    """Weight of the value loss (equation 9)."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus (equation 9)."""
    normalize_advantage: bool = True
    """Zero mean and unit variance per minibatch (detail 7)."""
    max_grad_norm: float = 0.5
    """Clipping of the gradient norm (detail 11), of policy and value function each."""
    target_kl: float = 5.0
    """An update stops once the policy is this far, in nats, from the one that sampled the batch (detail 12).
    Summed over hundreds of action entries this is still a small step in each of them."""
    hidden: int = 64
    """Width of the two tanh layers of policy and value function."""
    initial_std: float = 0.37
    """Standard deviation of a fresh policy, the same in every state (detail 4 of the continuous ones)."""
    initial_right: float = 0.5
    """Spread of the right factors' means in a fresh policy; the left ones start at zero. As in LoRA
    (arXiv:2106.09685, section 4.1) the first edit is the identity, but the reward has a slope: with both
    factors at zero its gradient vanishes by symmetry."""
    elites: int = 32
    """Best candidates that are remembered for the choice on the validation split."""
    recoveries: int = 8
    """Times that a policy which has blown up is set back before training ends early."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name}: expected True or False, got {value!r}")
            elif field.type == "int":
                least = 0 if field.name == "recoveries" else 1
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise ValueError(f"{field.name}: expected an integer of at least {least}, got {value!r}")
            elif (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value < math.inf
                or (value == 0 and field.name in POSITIVE)
            ):
                kind = "positive" if field.name in POSITIVE else "not negative"
                raise ValueError(f"{field.name}: expected a finite number, {kind}; got {value!r}")
        for name in ("gamma", "gae_lambda"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}: expected a number in 0..1, got {getattr(self, name)}")
        least_std, largest_std = (math.exp(limit) for limit in LOG_STD_LIMITS)
        if not least_std <= self.initial_std <= largest_std:
            raise ValueError(
                f"initial_std: expected {least_std:.2g} to {largest_std:.2g}, got {self.initial_std}"
            )
