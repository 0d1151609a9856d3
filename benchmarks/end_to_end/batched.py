"""A second opponent: candidates batched by hand, for a user who is ready to write a VecEnv.

Stable-Baselines3 steps plain environments one after the other. Behind its VecEnv interface several
candidates can share a product: their edited weights stand below one another as one tall matrix, the
activations are kept transposed so that no result needs a copy, and the last layer is a batched product.
Chunks keep the intermediate results in cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from .plain import Editing, Split

Array = NDArray[Any]

CHUNK = 8
"""Candidates that share a product: the fastest of 1, 4, 8, 16 and 32, a seventh less time than one by one."""


class BatchedVecEnv(VecEnv):
    """N one-step episodes of :class:`PlainEnv` at once, with the same rewards."""

    def __init__(self, editing: Editing, num_envs: int) -> None:
        self.editing = editing
        self.observations = np.repeat(editing.observation[None], num_envs, axis=0)
        self.activations = editing.reward.activations.t().contiguous()  # [128, S]
        self._actions = np.empty(0, np.float32)
        self._infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        super().__init__(
            num_envs,
            gymnasium.spaces.Box(-np.inf, np.inf, editing.observation.shape, np.float32),
            gymnasium.spaces.Box(-editing.bound, editing.bound, (editing.size,), np.float32),
        )

    def reset(self) -> Array:
        return self.observations

    def step_async(self, actions: Array) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        # One-step episodes: what comes next is the first observation of the next ones.
        rewards = self.rewards(torch.from_numpy(self._actions))
        return self.observations, rewards, np.ones(self.num_envs, bool), self._infos

    @torch.inference_mode()
    def rewards(self, actions: Tensor) -> Array:
        """Actions [N, A] -> rewards float32 [N]."""
        editing = self.editing
        actions = actions.clamp(-editing.bound, editing.bound)
        correct = torch.cat([self._correct(part, editing.reward) for part in actions.split(CHUNK)]).double()
        values = correct[:, 1] / editing.reward.retain - correct[:, 0] / editing.reward.forget
        rewards: Array = (values - editing.initial_value).numpy().astype(np.float32)
        return rewards

    def _correct(self, actions: Tensor, split: Split) -> Tensor:
        """Actions [n, A] -> correct predictions int64 [n, 2], forget and retain."""
        editing = self.editing
        n = len(actions)
        middle = editing.outputs * editing.rank
        left = actions[:, :middle].view(n, editing.outputs, editing.rank)
        right = actions[:, middle:].view(n, editing.rank, editing.inputs)
        if editing.world == "shift":
            weights = torch.baddbmm(editing.weight, left, right, alpha=editing.deviation)
        else:
            weights = torch.bmm(left, right).add_(1).mul_(editing.weight)
        hidden = torch.addmm(editing.bias.repeat(n)[:, None], weights.flatten(0, 1), self.activations)
        hidden = hidden.relu_().view(n, editing.outputs, -1)  # [n, 32, S]
        logits = torch.bmm(editing.last_weight.expand(n, -1, -1), hidden).add_(editing.last_bias[:, None])
        # max(), since argmax() along any but the last dimension takes several times as long
        hits = logits.max(1).indices == split.labels
        return torch.stack([hits[:, : split.forget].sum(1), hits[:, split.forget :].sum(1)], dim=1)

    # ------------------------------------------------------- the rest of the interface, unused by PPO

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[Array | None]:
        return [None] * self.num_envs
