"""The opponent's environment: what a careful user would write with Gymnasium and PyTorch, nothing of rledit.

The part of the network before the edited layer is run once and its activations are kept, float32. A step
forms the edited weight, runs two linear layers on all of them and counts. Samples of the forgotten class
are put first, so that counting a group is counting a slice.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rledit.zoo.models import MnistCNN

Array = NDArray[Any]


class Split:
    """Cached activations [S, 128] and labels [S]; the first ``forget`` of them are of the class to forget."""

    @torch.inference_mode()
    def __init__(self, model: MnistCNN, inputs: Tensor, labels: Tensor, forget: int) -> None:
        order = torch.cat([(labels == forget).nonzero()[:, 0], (labels != forget).nonzero()[:, 0]])
        features = torch.cat([model.features(part) for part in inputs.split(256)])
        self.activations = features[order].contiguous()
        self.labels = labels[order]
        self.forget = int((labels == forget).sum())
        self.retain = len(labels) - self.forget


class Editing:
    """The layer to edit, what follows it, and how well an action does. Shared by all environments of a run.

    An action is left [32, R] row by row, then right [R, 128], as in rledit's worlds.
    """

    def __init__(
        self, model: MnistCNN, world: str, reward: Split, validation: Split, rank: int = 4, bound: float = 4.0
    ) -> None:
        self.world = world
        self.rank = rank
        self.bound = bound
        self.reward = reward
        self.validation = validation
        self.weight, self.bias = model.fc1.weight.detach().clone(), model.fc1.bias.detach().clone()
        self.last_weight, self.last_bias = model.fc2.weight.detach().clone(), model.fc2.bias.detach().clone()
        self.deviation = float(self.weight.std())
        self.outputs, self.inputs = self.weight.shape
        self.size = rank * (self.outputs + self.inputs)
        self.observation = self.observe(self.weight)
        self.initial_value = self.value(self.accuracies(self.edited(np.zeros(self.size, np.float32)), reward))

    @torch.inference_mode()
    def edited(self, action: Array) -> Tensor:
        """The edited weight [32, 128] of an action [A]."""
        factors = torch.from_numpy(action).clamp(-self.bound, self.bound)
        middle = self.outputs * self.rank
        left = factors[:middle].view(self.outputs, self.rank)
        right = factors[middle:].view(self.rank, self.inputs)
        if self.world == "shift":
            return self.weight + (self.deviation * left) @ right
        return self.weight * (1 + left @ right)

    @torch.inference_mode()
    def accuracies(self, weight: Tensor, split: Split) -> tuple[float, float]:
        """Forget and retain accuracy of the network with an edited weight."""
        hidden = F.linear(split.activations, weight, self.bias).relu_()
        hits = F.linear(hidden, self.last_weight, self.last_bias).argmax(1) == split.labels
        forget = int(hits[: split.forget].count_nonzero())
        retain = int(hits[split.forget :].count_nonzero())
        return forget / split.forget, retain / split.retain

    @staticmethod
    def value(accuracies: tuple[float, float]) -> float:
        forget, retain = accuracies
        return retain - forget

    def observe(self, weight: Tensor) -> Array:
        observation: Array = (weight / self.deviation).flatten().numpy()
        return observation


class PlainEnv(gymnasium.Env[Array, Array]):
    """One candidate, one step: the action edits the weight, the reward is the objective's improvement.

    Observation: the weights over their initial standard deviation, after the step those of the edited layer.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, editing: Editing) -> None:
        self.editing = editing
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, editing.observation.shape, np.float32)
        self.action_space = gymnasium.spaces.Box(-editing.bound, editing.bound, (editing.size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        return self.editing.observation.copy(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        editing = self.editing
        weight = editing.edited(action)
        value = editing.value(editing.accuracies(weight, editing.reward))
        return editing.observe(weight), value - editing.initial_value, True, False, {}
