"""Whether a model computes in half precision, or under autocast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..batch import Inputs
from .halves import HALF
from .network import logits_of


def sees_half(model: nn.Module, inputs: Inputs) -> bool:
    """Whether the model computes in half precision on these inputs, or fails on them."""
    with SeesHalf() as seen:
        try:
            logits_of(model, inputs)
        except ValueError:
            return True
    return bool(seen.half)


class SeesHalf(TorchFunctionMode):
    """Notes whether a forward switches autocast on or computes in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.autocast = False
        self.half = False

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            self.autocast = self.half = True
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype in HALF:
            self.half = True
        return result
