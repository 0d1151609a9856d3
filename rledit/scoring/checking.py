"""Does a way to run candidates give what the network itself gives?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..ops import backend
from ..ops.rules import UNCHANGED
from ..targets import Target, as_matrix
from .network import logits_of
from .population import Population


class MismatchError(ValueError):
    """The logits of a population are not those of the network, really edited."""


@torch.no_grad()
def check_population(
    model: nn.Module,
    targets: Mapping[str, Target],
    inputs: Tensor,  # [s, ...], a few samples
    run: Callable[[Population], Tensor],  # n candidates -> logits [n*s, C] of these samples
) -> None:
    """Compare two candidates, one unedited and one with a random edit of every target, with the network.

    They run together and the network runs each of them by itself, in two halves of the samples. That finds
    weights that are used elsewhere as well, a target whose output is not followed, values that depend on
    other samples of the batch, and a forward that is not deterministic.

    Raises:
        MismatchError: if the logits differ by more than float32 rounding explains.
    """
    edited = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    factors = {}
    for name, target in targets.items():
        weight = as_matrix(target.weight)
        size = float(weight.square().mean().sqrt()) or weight.shape[1] ** -0.5
        left = size * torch.randn(weight.shape[0], 1, generator=generator, device="cpu").to(weight)
        right = torch.randn(1, weight.shape[1], generator=generator, device="cpu").to(weight)
        factors[name] = (torch.stack([0 * left, left]), torch.stack([right, right]))
        twin = edited.get_submodule(name)
        assert isinstance(twin, (nn.Linear, nn.Conv2d))
        twin.weight += (left @ right).view_as(twin.weight)
    population = Population(
        size=2, factors=factors, weights={}, rule=UNCHANGED, backend=backend("reference"),
        precision="float32",
    )  # fmt: skip
    logits = run(population).unflatten(0, (2, len(inputs)))
    halves = inputs.split((len(inputs) + 1) // 2)
    for kind, network, ours in (("unedited", model, logits[0]), ("edited", edited, logits[1])):
        theirs = torch.cat([logits_of(network, half) for half in halves])
        # Far above the rounding of a deep float32 network, far below what a wrong value does.
        tolerance = 1e-4 * float(theirs.abs().max().clamp(min=1.0))
        worst = float((ours - theirs).abs().max())
        if not worst <= tolerance:
            raise MismatchError(
                f"model: the scorer's logits of the {kind} network differ from the model's own by "
                f"{worst:.3g}, more than {tolerance:.3g}. Are samples independent of each other in eval "
                "mode, is the forward deterministic, and is each target's weight used nowhere else?"
            )
