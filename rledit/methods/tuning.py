"""Settings of a method are tried around its published default, and the validation split picks one.

Everybody is treated alike: what is picked has the largest difference of retain and forget accuracy, the value
that rledit's own edits are picked by, or, where single samples are to be forgotten, the largest
:func:`sample_value`. The published default wins ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from ..memory_format import channels_last, contiguous_, lay_out_
from ..samples import Samples
from ..scoring.logits import unsound
from ..storage.files import Json
from .base import MethodResult, UnlearningProblem
from .data import device_of, group_data


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Train or eval mode inside; afterwards each module's own previous one."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


def trainable_copy(problem: UnlearningProblem) -> nn.Module:
    """A copy of the problem's model in eval mode whose floating-point parameters all require gradients.

    Images go through it channels last where they can, see :mod:`rledit.memory_format`.
    """
    copy = deepcopy(problem.model).eval()
    lay_out_(copy, problem.reward.head(2).to(device_of(copy)))
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copy


def hits_of(model: nn.Module, samples: Samples) -> Tensor | None:
    """Whether each sample's highest logit is its label's, bool [S] on the CPU; None where a logit is NaN or
    has overflowed to +inf."""
    device, hits, start = device_of(model), [], 0
    with torch.no_grad(), mode(model, training=False), ExitStack() as stack:
        for part in samples.batches(250):
            part = part.to(device)
            if start == 0:
                stack.enter_context(channels_last(model, part))
            logits = model(part)
            if bool(unsound(logits).any()):
                return None
            hits.append(logits.argmax(1).cpu() == samples.labels[start : start + len(part)])
            start += len(part)
    return torch.cat(hits)


def class_value(model: nn.Module, validation: Samples) -> float:
    """Retain minus forget accuracy, -1..1; -inf where a logit is not a number, see :func:`hits_of`."""
    hits = hits_of(model, validation)
    if hits is None:
        return -math.inf
    retain, forget = (float(hits[validation.groups[group]].double().mean()) for group in ("retain", "forget"))
    return retain - forget


def sample_value(model: nn.Module, validation: Samples, forget: Samples) -> float:
    """Accuracy on the validation split, minus how far the accuracy on samples to forget is from it.

    Samples that were never learned are known as well as any that were not: wrong answers to all of them,
    which :func:`class_value` would ask for, would tell that they are being hidden.
    """
    hits, own = hits_of(model, validation), hits_of(model, forget)
    if hits is None or own is None:
        return -math.inf
    unseen = float(hits.double().mean())
    return unseen - abs(float(own.double().mean()) - unseen)


class Tuning:
    """The settings of a method that have been tried, and the best so far.

    Attributes:
        evaluations: settings that were judged on the validation split; epochs of one run count each.
        steps: what their making took; the method adds it up.
    """

    def __init__(self, problem: UnlearningProblem) -> None:
        self.evaluations = 0
        self.steps = 0
        self._problem = problem
        self._value = -math.inf
        self._forget: Samples | None = None
        if not problem.forget:
            data = group_data(problem.model, problem.train, "forget")
            every = torch.ones(len(data), dtype=torch.bool)
            self._forget = Samples(data.inputs, data.labels, {"forget": every})
        self._best: tuple[nn.Module, Mapping[str, Json]] | None = None

    def offer(self, model: nn.Module, settings: Mapping[str, Json], *, published: bool = False) -> None:
        """Judge a model and keep a copy of it if it is the best. Among equals the published default stays,
        else the first."""
        validation = self._problem.validation
        if self._forget is None:
            value = class_value(model, validation)
        else:
            value = sample_value(model, validation, self._forget)
        self.evaluations += 1
        if value > self._value or (published and value == self._value > -math.inf):
            self._value = value
            self._best = deepcopy(model).eval(), dict(settings)

    def result(self) -> MethodResult:
        """The best of all.

        Raises:
            FloatingPointError: if none has logits that are numbers, see :func:`hits_of`.
        """
        if self._best is None:
            raise FloatingPointError(
                f"all {self.evaluations} settings that were tried give logits that are NaN or infinite; "
                "are the model's own logits finite?"
            )
        model, settings = self._best
        contiguous_(model)
        for parameter, before in zip(model.parameters(), self._problem.model.parameters(), strict=False):
            parameter.requires_grad_(before.requires_grad)
        model.zero_grad()
        return MethodResult(
            model, evaluations=self.evaluations, steps=self.steps, settings={**settings, "value": self._value}
        )
