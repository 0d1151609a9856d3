"""Any head seen as the two logits that everything here counts: of harmless, of toxic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...seen import ADDED, Seen

SEEN = f"{ADDED}two_logits"
"""The name of the module that is added behind a model."""


class _Logits(Seen):
    """A model with something behind its logits."""

    def _logits(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.inner.forward(inputs)
        return logits


class OneLogit(_Logits):
    """A model with one logit z, seen as [0, z - threshold]: the same decisions, ranks and sigmoid.

    Behind the model stands one more Linear with fixed weights, so what was scored as a tail still is.

    Args:
        model: from inputs to logits [S] or [S, 1].
        flat: whether they are [S].
        threshold: above it is toxic; 0 for a logit, 0.5 for a probability.
    """

    def __init__(self, model: nn.Module, flat: bool = False, threshold: float = 0.0) -> None:
        super().__init__(model)
        self._flat = flat
        self.add_module(SEEN, _fixed(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, -threshold]), model))

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self._logits(inputs)
        two: Tensor = self.get_submodule(SEEN)(logits.unsqueeze(-1) if self._flat else logits)
        return two


class OneOfSeveral(_Logits):
    """One label of a model with C logits.

    Of several labels that may hold together (a sigmoid each) the label's logit z is seen as [0, z]; of
    classes that exclude each other (a softmax over them) as [logsumexp of the others, z]. The margin is the
    logit of the label's probability in both. A multi-label model and one of two classes are still scored as a
    tail where they were one.

    Args:
        model: from inputs to logits [S, C].
        classes: C, at least 2.
        label: the column, 0..C-1.
        multi_label: whether several labels may hold together.

    Attributes:
        label: the column, if the other logits play no part; else None.
    """

    def __init__(self, model: nn.Module, classes: int, label: int, multi_label: bool = False) -> None:
        super().__init__(model)
        self.label = label if multi_label else None
        self._column = label
        self._others = [column for column in range(classes) if column != label]
        rows = torch.zeros(2, classes)
        rows[1, label] = 1.0
        if not multi_label:
            rows[0, self._others] = 1.0  # of two classes, the other one
        self._linear = multi_label or classes == 2
        if self._linear:
            self.add_module(SEEN, _fixed(rows, torch.zeros(2), model))

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self._logits(inputs)
        if self._linear:
            two: Tensor = self.get_submodule(SEEN)(logits)
            return two
        return torch.stack([logits[:, self._others].logsumexp(1), logits[:, self._column]], 1)


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, without what was added behind a model."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith(f"{SEEN}.")}


def _fixed(weight: Tensor, bias: Tensor, model: nn.Module) -> nn.Linear:
    """A Linear with these weights, on the model's device and in its dtype."""
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        assert linear.bias is not None
        linear.bias.copy_(bias)
    some = next((p for p in model.parameters() if p.is_floating_point()), linear.weight)
    return linear.to(some).requires_grad_(False).eval()


def seen_as_two(
    model: nn.Module,
    logits: Tensor,
    *,
    label: int | None = None,
    multi_label: bool = False,
    threshold: float | None = None,
) -> nn.Module:
    """The model as one with logits [S, 2], class 1 toxic: itself where it is one already.

    Args:
        model: any.
        logits: what it gives for a few samples.
        label, multi_label: see :class:`OneOfSeveral`; without a label the model must have one or two logits.
        threshold: see :class:`OneLogit`; for models with one output only.

    Raises:
        ValueError: the outputs are not of a kind that can be seen so, or the options do not go with them.
    """
    shape = list(logits.shape)
    one = logits.dim() == 1 or shape[1:] == [1]
    if not one and (logits.dim() != 2 or shape[1] < 2):
        raise ValueError(f"model: expected logits [S], [S, 1] or [S, C], got {shape}")
    if one:
        if label is not None or multi_label:
            raise ValueError("label, multi_label: expected none for a model with one output")
        if threshold is None and len(logits) > 1 and bool(((logits >= 0) & (logits <= 1)).all()):
            raise ValueError(
                "model: its outputs are all between 0 and 1, as probabilities are. If they are, say "
                "threshold=0.5; if they are logits, threshold=0"
            )
        return OneLogit(model, logits.dim() == 1, threshold or 0.0)
    classes = shape[1]
    if threshold is not None:
        raise ValueError(f"threshold: expected none for a model with {classes} logits")
    if label is None:
        if classes != 2 or multi_label:
            raise ValueError(
                f"label: expected which of the model's {classes} logits is meant, 0..{classes - 1}; got none"
            )
        return model
    if not 0 <= label < classes:
        raise ValueError(f"label: expected 0..{classes - 1}, a column of the model's logits; got {label}")
    if label == 1 and classes == 2 and not multi_label:
        return model
    return OneOfSeveral(model, classes, label, multi_label)
