"""How many steps of fine-tuning bring a forgotten class back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..heads import eval_mode, find_head, logits_of
from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from ..runtime import plain_modes
from ..samples import Samples
from .base import FORGET, AuditData
from .estimates import UNKNOWN, Estimate, mean
from .readings import read, selected

METRIC_DISPLAYS.update(
    relearn_steps=MetricDisplay("steps of relearning", "relearning", digits=1, direction=1),
)


@dataclass(frozen=True)
class Relearning:
    """Steps of fine-tuning until the class is back at half of its unedited accuracy: ``relearn_steps``.

    The relearn time of A. Golatkar, A. Achille, S. Soatto, "Eternal Sunshine of the Spotless Net", CVPR
    2020, and of the anamnesis index of V. Chundawat et al., "Zero-Shot Machine Unlearning", IEEE TIFS 2023,
    in steps instead of epochs: the whole network, cross-entropy, Adam (D. Kingma, J. Ba, ICLR 2015) at its
    default rate 1e-3, batches of 64 of the training samples as they come, those to forget among them; batch
    norms keep their statistics. The accuracy is that of forgotten test samples after each step.

    A logit that was masked costs an attacker nothing: before the first step, the head's bias of a forgotten
    class is raised until the class's mean logit over a batch is no lower than the lowest of the others.
    Otherwise a mask would count for as many steps as it is large.

    Args:
        most: steps at most, which is the figure where the class did not come back.
        draws: independent orders of the samples; the figure is the mean, its interval that of this mean.
        batch_size, learning_rate: settings of the fine-tuning.
        judged: forgotten test samples at most on which the accuracy is taken.

    Raises:
        ValueError: for a number that is out of range.
    """

    most: int = 100
    draws: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    judged: int = 500

    note: ClassVar[str] = (
        "Steps of relearning are steps of Adam at its default rate, 64 training images each, until the "
        "forgotten class is back at half of its unedited accuracy; a class that did not come back counts as "
        "the most steps tried."
    )

    def __post_init__(self) -> None:
        if min(self.most, self.draws, self.batch_size, self.judged) < 1:
            raise ValueError("most, draws, batch_size, judged: expected numbers of at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate}")

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        return {"relearn_steps": self._steps(model, data)}

    def _steps(self, model: nn.Module, data: AuditData) -> Estimate:
        forgotten = data.group(FORGET)
        if data.unedited is None or not bool(forgotten.any()):
            return UNKNOWN
        labels = data.test.labels
        before = data.read(data.unedited, data.test).predicted[forgotten] == labels[forgotten]
        judged = _spread(forgotten, self.judged)
        inputs, wanted = selected(data.test, judged), labels[judged]
        target = float(before.double().mean()) / 2
        classes = data.train.labels[data.train.groups[FORGET]].unique()
        steps = [
            self._run(deepcopy(model), data.train, classes, inputs, wanted, target, data.seed + draw)
            for draw in range(self.draws)
        ]
        return mean(torch.tensor(steps), least=0, most=self.most)

    def _run(
        self,
        model: nn.Module,
        train: Samples,
        classes: Tensor,
        inputs: Tensor,
        wanted: Tensor,
        target: float,
        seed: int,
    ) -> float:
        """Steps of one draw, on a copy; NaN where its loss is not finite."""
        order = _order(len(train), seed)
        with plain_modes(grad=True), eval_mode(model):
            unmask_(model, next(_batches(train, order[: self.batch_size], self.batch_size))[0], classes)
            parameters = [p.requires_grad_() for p in model.parameters() if p.is_floating_point()]
            optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
            batches = _batches(train, _repeated(order, self.most * self.batch_size), self.batch_size)
            for step in range(self.most):
                if _accuracy(model, inputs, wanted) >= target:
                    return step
                batch, labels = next(batches)
                optimizer.zero_grad()
                loss = F.cross_entropy(logits_of(model(batch)), labels.to(batch.device))
                if not math.isfinite(loss.item()):
                    return math.nan
                loss.backward()
                optimizer.step()
        return self.most


def unmask_(model: nn.Module, inputs: Tensor, classes: Tensor) -> None:
    """Raise the head's biases of some classes, in place, until the mean logit of none lies below the lowest
    mean of the others. Nothing happens where the head has no bias, or makes something other than logits."""
    try:
        reading = read(model, inputs)
        head = find_head(model, inputs)
        features = reading.features()
    except ValueError:
        return
    bias = head.module.bias
    if bias is None or len(bias) != reading.logits.shape[1]:
        return
    scores = features @ head.module.weight.detach().double().cpu().T  # without the bias, which may be -inf
    means = scores.mean(0)
    others = torch.ones(len(bias), dtype=torch.bool)
    others[classes] = False
    if not bool(others.any()):
        return
    floor = (means + bias.detach().double().cpu())[others].min()
    raised = torch.maximum(bias.detach().double().cpu(), floor - means)
    with torch.no_grad():
        bias[classes] = raised[classes].to(bias)


def _accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    predicted = read(model, inputs, features=False).predicted
    return float((predicted == labels).double().mean())


def _spread(mask: Tensor, most: int) -> Tensor:
    """At most ``most`` of the true entries, evenly spread."""
    at = mask.nonzero().flatten()
    kept = at[torch.linspace(0, len(at) - 1, min(most, len(at))).round().long()]
    return torch.zeros_like(mask).index_fill_(0, kept, True)


def _order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _repeated(order: Tensor, count: int) -> Tensor:
    return order.repeat(-(-count // len(order)))[:count]


def _batches(samples: Samples, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of samples in the given order, ``size`` at a time."""
    mask = torch.zeros(len(samples), dtype=torch.bool)
    mask[order] = True
    inputs = selected(samples, mask)
    place = mask.cumsum(0) - 1
    for rows in order.split(size):
        yield inputs[place[rows].to(inputs.device)], samples.labels[rows]
