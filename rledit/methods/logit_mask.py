"""Rule out the logit of a class: the first row of every table, since it wins by accuracy alone."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import device_of
from .layers import find_logits_layer

PENALTY = -1e9
"""What is added to the logit; half of the lowest number in a dtype that does not reach so far."""


@method("logit_mask", title="logit mask", source="one line of code", needs=("forget classes",))
def logit_mask(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Set the head's bias of each class to forget to a very negative number.

    The class is never predicted again, and all other predictions stay as they were. Nothing is removed: all
    features are as they were. The same is known as output filtering, a baseline of T. Baumhauer et al.,
    "Machine Unlearning: Linear Filtration for Logit-based Classifiers", Machine Learning 2022,
    arXiv:2002.02730.

    Needs no gradients; one sample tells which Linear makes the logits. A head without bias gets one.

    Raises:
        ValueError: if no Linear makes the logits, or there are no classes to forget.
    """
    model = deepcopy(problem.model).eval()
    name = find_logits_layer(model, problem.reward.head(2).to(device_of(model)))
    if name is None:
        raise ValueError("model: expected an nn.Linear that makes the logits, found none")
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        if head._parameters["bias"] is None:
            head.bias = nn.Parameter(head.weight.new_zeros(len(head.weight)))
        head.bias[list(problem.forget)] = max(PENALTY, torch.finfo(head.bias.dtype).min / 2)
    return MethodResult(model, settings={"layer": name})
