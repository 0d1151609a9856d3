"""Whether an edit survives rounding the weights, as is common when a model is deployed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..targets import as_matrix
from .altered import altered_accuracies, enter_displays, weights_of
from .base import AuditData

Precision = Literal["bfloat16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "int8", "int4")

for _precision in PRECISIONS:
    enter_displays(_precision, f"rounding to {_precision}", _precision)


@dataclass(frozen=True)
class Rounding:
    """Accuracies after all weights are rounded: ``<precision>_<group>_accuracy``, over test samples.

    bfloat16 rounds every floating parameter. int8 and int4 round the weights of Linear and Conv layers to the
    nearest of the symmetric levels -127..127 or -7..7 of each output channel, whose largest weight is the
    last level, and leave biases and norms as they are (M. Nagel et al., "A White Paper on Neural Network
    Quantization", arXiv:2106.08295, sections 2.2 and 2.3). Activations stay in full precision.

    Raises:
        ValueError: for an unknown precision.
    """

    precisions: tuple[Precision, ...] = PRECISIONS

    note: ClassVar[str] = (
        "Rounding the weights, as for deployment, must not bring the class back; what the unedited network "
        "loses by it is not the edit's fault."
    )

    def __post_init__(self) -> None:
        if unknown := [precision for precision in self.precisions if precision not in PRECISIONS]:
            raise ValueError(f"precisions: expected some of {', '.join(PRECISIONS)}, got {unknown[0]!r}")

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        figures: dict[str, float] = {}
        for precision in self.precisions:
            figures |= altered_accuracies(precision, partial(round_, precision=precision), model, data)
        return figures


@torch.no_grad()
def round_(model: nn.Module, precision: Precision) -> None:
    """Round a model's weights in place; they keep their dtype. See :class:`Rounding`."""
    if precision == "bfloat16":
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(parameter.bfloat16().to(parameter.dtype))
        return
    bits = {"int8": 8, "int4": 4}[precision]
    for weight in weights_of(model):
        weight.copy_(rounded(weight, bits))


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A weight [O, ...] rounded to the symmetric levels of ``bits`` bits, per output channel; same shape and
    dtype."""
    levels = 2 ** (bits - 1) - 1
    rows = as_matrix(weight.detach()).double()
    step = rows.abs().amax(1, keepdim=True) / levels
    step[step == 0] = 1
    whole: Tensor = (rows / step).round().clamp(-levels, levels) * step
    return whole.to(weight.dtype).view_as(weight)
