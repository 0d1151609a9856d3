"""The numbers of PPO."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..checks import integer, real
from ..policies.gaussian import LOG_STD_LIMITS

RENAMED = {
    "epochs": "update_epochs",
    "minibatches": "num_minibatches",
    "clip": "clip_coef",
    "value_weight": "vf_coef",
    "entropy_weight": "ent_coef",
    "normalize_advantage": "norm_adv",
}
"""Names of 0.1, which still work, and those that the field uses."""

POSITIVE = ("learning_rate", "clip_coef", "target_kl", "initial_std", "max_grad_norm")
"""Numbers for which 0 has no meaning; for the others it switches something off."""


def _warn(old: str) -> None:
    warnings.warn(
        f"PPOConfig.{old} is deprecated, use {RENAMED[old]} instead", DeprecationWarning, stacklevel=3
    )


def _reading_old_names(cls: type[PPOConfig]) -> type[PPOConfig]:
    """Let the constructor take, and attributes give, the names of 0.1."""
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self: PPOConfig, *args: Any, **kwargs: Any) -> None:
        for old in [name for name in kwargs if name in RENAMED]:
            _warn(old)
            kwargs[RENAMED[old]] = kwargs.pop(old)
        init(self, *args, **kwargs)

    def reading(old: str) -> Callable[[PPOConfig], Any]:
        def read(self: PPOConfig) -> Any:
            _warn(old)
            return getattr(self, RENAMED[old])

        return read

    cls.__init__ = __init__  # type: ignore[method-assign]
    for old in RENAMED:
        setattr(cls, old, property(reading(old)))
    return cls


@_reading_old_names
@dataclass(frozen=True)
class PPOConfig:
    """Settings of :class:`rledit.PPO`, under the names that CleanRL and the papers use.

    The details marked with a number are those of Huang et al. 2022, "The 37 Implementation Details of
    Proximal Policy Optimization" (ICLR blog track).

    Raises:
        ValueError: for a number out of range.
    """

    learning_rate: float = 5e-4
    """Step size of Adam. Far larger ones (3e-3) drive the factors apart."""
    update_epochs: int = 8
    """Passes over a batch of candidates."""
    num_minibatches: int = 2
    """Parts of the batch per pass (detail 6, minibatch updates)."""
    gamma: float = 1.0
    """Discount. 1: an episode's return is the whole improvement, and episodes are short."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation (Schulman et al. 2015, arXiv:1506.02438)."""
    clip_coef: float = 0.2
    """Clipping of the probability ratio (arXiv:1707.06347, equation 7)."""
    vf_coef: float = 0.5
    """Weight of the value loss (equation 9)."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus (equation 9)."""
    norm_adv: bool = True
    """Advantages get zero mean and unit variance per minibatch (detail 7) and, if there are several, task."""
    max_grad_norm: float = 0.5
    """Clipping of the gradient norm (detail 11), of policy and value function separately."""
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
                object.__setattr__(self, field.name, integer(field.name, value, least))
            else:
                expected = "a positive number" if field.name in POSITIVE else "a number of at least 0"
                number = real(field.name, value, expected)
                if number < 0 or (number == 0 and field.name in POSITIVE):
                    raise ValueError(f"{field.name}: expected {expected}, got {value!r}")
                object.__setattr__(self, field.name, number)
        for name in ("gamma", "gae_lambda"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}: expected a number in 0..1, got {getattr(self, name)}")
        least_std, largest_std = (math.exp(limit) for limit in LOG_STD_LIMITS)
        if not least_std <= self.initial_std <= largest_std:
            raise ValueError(
                f"initial_std: expected {least_std:.2g} to {largest_std:.2g}, got {self.initial_std}"
            )
