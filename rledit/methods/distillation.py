"""A student that agrees with a teacher on what is to be retained, and not on what is to be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtime import seeded
from .base import Budget, MethodResult, UnlearningProblem, method
from .data import Data, device_of, group_data, joined
from .descent import Descent, Settings, descend_each, sgd
from .tuning import mode


@method(
    "scrub",
    title="SCRUB",
    source="Kurmanji et al., NeurIPS 2023, arXiv:2302.09880",
    needs=("gradients", "forget data", "retain data"),
)
def scrub(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Disagree with the original model on forget, agree with it and the labels on retain, in turn.

    M. Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv:2302.09880:
    in each of the first ``max_steps`` epochs a pass over forget climbs KL(teacher || student), then
    a pass over retain descends ``gamma * CE + alpha * KL``. Settings of their code: 3 epochs, 2 of them with
    a climb, gamma 0.99, alpha 0.001, temperature 4, batches of 128 on retain and 32 on forget, SGD at 5e-4
    with momentum 0.9 and weight decay 5e-4, a tenth of the rate after epochs 3, 5 and 9. Rates ten and a
    hundred times as large are tried, too, and Adam at 5e-4 with gamma 1, alpha 0.5, temperature 2, all of
    which their code for small problems has; each also with batches of 512 on forget, which a notebook of
    theirs for a whole class has: the more samples there are to forget, the more steps a pass climbs.
    """
    retain = group_data(problem.model, problem.train, "retain")
    forget = group_data(problem.model, problem.train, "forget")
    taught_retain = _logits(problem.model, retain.inputs)
    taught_forget = _logits(problem.model, forget.inputs)

    def begin(model: nn.Module, settings: Settings) -> tuple[Descent, Callable[[int], None]]:
        rate, gamma, alpha, heat = (
            cast(float, settings[name]) for name in ("rate", "gamma", "alpha", "temperature")
        )
        adam = settings["optimizer"] == "adam"
        optimizer: torch.optim.Optimizer
        optimizer = torch.optim.Adam(model.parameters(), lr=rate) if adam else sgd(model.parameters(), rate)
        descent = Descent(model, optimizer, seed)

        def climb(batch: Tensor) -> Tensor:
            return -divergence(taught_forget[batch], model(forget.inputs[batch]), heat)

        def descend(batch: Tensor) -> Tensor:
            logits = model(retain.inputs[batch])
            agreement = divergence(taught_retain[batch], logits, heat)
            return gamma * F.cross_entropy(logits, retain.labels[batch]) + alpha * agreement

        def epoch(number: int) -> None:
            descent.rate(rate * 0.1 ** sum(number >= after for after in (3, 5, 9)))
            if number < 2:
                descent.epoch(len(forget), cast(int, settings["forget_batch"]), climb)
            descent.epoch(len(retain), 128, descend)

        return descent, epoch

    large: dict[str, Any] = {"optimizer": "sgd", "gamma": 0.99, "alpha": 1e-3, "temperature": 4.0}
    small: dict[str, Any] = {"optimizer": "adam", "gamma": 1.0, "alpha": 0.5, "temperature": 2.0}
    tried = [{**large, "rate": rate} for rate in (5e-4, 5e-3, 5e-2)] + [{**small, "rate": 5e-4}]
    grid = [{**settings, "forget_batch": batch} for batch in (32, 512) for settings in tried]
    return descend_each(problem, grid, budget.epochs or 3, begin)


@method(
    "bad_teacher",
    title="bad teacher",
    source="Chundawat et al., AAAI 2023, arXiv:2205.08096",
    needs=("gradients", "forget data", "retain data", "architecture"),
)
def bad_teacher(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Learn from the original model on retain, and from a network with random weights on forget.

    V. S. Chundawat et al., "Can Bad Teaching Induce Forgetting?", AAAI 2023, arXiv:2205.08096:
    KL(teacher || student) at temperature 1. Settings of their code: 1 epoch over all forget samples and 30%
    of the retain samples, batches of 256, Adam at 1e-4. Networks as small as MNIST's move little in one such
    epoch: rates of 3e-4 to 1e-2 are tried, too.
    """
    assert problem.build is not None
    device = device_of(problem.model)
    with seeded(seed, device):
        incompetent = problem.build().to(device).eval()
    generator = torch.Generator().manual_seed(seed)
    retain = group_data(problem.model, problem.train, "retain")
    retain = retain.some(max(1, round(0.3 * len(retain))), generator)
    forget = group_data(problem.model, problem.train, "forget")
    data: Data = joined(forget, retain)
    taught = torch.cat([_logits(incompetent, forget.inputs), _logits(problem.model, retain.inputs)])

    def begin(model: nn.Module, settings: Settings) -> tuple[Descent, Callable[[int], None]]:
        optimizer = torch.optim.Adam(model.parameters(), lr=cast(float, settings["rate"]))
        descent = Descent(model, optimizer, seed)

        def loss(batch: Tensor) -> Tensor:
            return divergence(taught[batch], model(data.inputs[batch]), 1.0)

        return descent, lambda _: descent.epoch(len(data), 256, loss)

    grid = [{"rate": rate} for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)]
    return descend_each(problem, grid, budget.epochs or 1, begin)


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of logits [B, C] softened by a temperature T, times T squared (G. Hinton et al.,
    arXiv:1503.02531), the mean over the batch."""
    aimed = F.log_softmax(teacher / temperature, 1)
    found = F.log_softmax(student / temperature, 1)
    return F.kl_div(found, aimed, reduction="batchmean", log_target=True) * temperature**2


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """A teacher's logits in eval mode, [S, C]. They never change, so they are computed once."""
    with torch.no_grad(), mode(model, training=False):
        return torch.cat([model(part) for part in inputs.split(250)])
