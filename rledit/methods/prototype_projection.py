"""Layer-wise projection: what sets means of forgotten classes apart from those of retained ones is
removed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Budget, MethodResult, UnlearningProblem, method
from .data import group_data
from .layers import right_multiplied_, visit_inputs
from .tuning import Tuning, trainable_copy

SAMPLES = 10_000
"""Samples of each group at most, so that the inputs of all layers fit in memory."""
RULES = ("depth and separability", "depth", "separability", "whole", "last half")
"""How strongly each layer is projected, the default first."""


@method(
    "prototype_projection",
    title="prototype projection (after DAMP)",
    source="after Hatami et al., arXiv:2604.15166",
    needs=("forget data", "retain data"),
)
def prototype_projection(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Make every layer blind to what is specific to the prototypes of what is to be forgotten.

    After A. Hatami, R. Aalishah, I. E. Monosov, "Class Unlearning via Depth-Aware Removal of Forget-Specific
    Directions" (DAMP), arXiv:2604.15166: in the input space of each layer, :func:`forget_directions`, then
    ``W (I - a Q Q.T)``; biases stay; everything is computed once, from the original network.

    **This is not DAMP itself.** The paper lets the strength a of a layer follow from how well a linear probe
    separates forget from retain there, how certain it is, and the layer's depth; we do not have its formula,
    and its code is not published. Here a is the product of the layer's place (l / L) and of the probe's
    separability, 2 * balanced accuracy - 1, of a ridge regression on half of the samples, judged on the
    other half. Since this part is ours, the validation split may choose each factor alone, full projection
    everywhere, or in the last half of the layers. Convolutions read patches; those with groups are left.
    """
    generator = torch.Generator().manual_seed(seed)
    forget, retain = (
        group_data(problem.model, problem.train, group).some(SAMPLES, generator)
        for group in ("forget", "retain")
    )
    inputs = torch.cat([forget.inputs, retain.inputs])
    forgets = torch.arange(len(inputs), device=inputs.device) < len(forget)
    # A class may be in both groups, if single samples are to be forgotten: then it has two prototypes.
    classes = torch.cat([forget.labels, problem.classes + retain.labels])
    means = _mean_inputs(problem.model, inputs)
    directions, separability = {}, {}
    for name, rows in means.items():
        prototypes = {int(label): rows[classes == label].mean(0) for label in classes.unique()}
        directions[name] = forget_directions(
            torch.stack([mean for label, mean in prototypes.items() if label < problem.classes], 1),
            torch.stack([mean for label, mean in prototypes.items() if label >= problem.classes], 1),
        )
        separability[name] = _separability(rows, forgets, torch.Generator().manual_seed(seed))
    tuning = Tuning(problem)
    for rule in RULES:
        model = trainable_copy(problem)
        strengths = {}
        for number, name in enumerate(means, 1):
            depth = number / len(means)
            strengths[name] = {
                "depth and separability": depth * separability[name],
                "depth": depth,
                "separability": separability[name],
                "whole": 1.0,
                "last half": float(depth > 0.5),
            }[rule]
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear | nn.Conv2d)
            q = directions[name]
            eye = torch.eye(len(q), dtype=q.dtype, device=q.device)
            right_multiplied_(layer, eye - strengths[name] * q @ q.T)
        tuning.offer(model, {"rule": rule, "strengths": strengths}, published=rule == RULES[0])
    return tuning.result()


def forget_directions(forget: Tensor, retain: Tensor) -> Tensor:
    """An orthonormal basis of the prototypes to forget, less what those to retain span, float64 [I, K].

    ``d = m - R pinv(R) m`` for each prototype m to forget, R having those to retain as columns; K is the
    number of d that are not zero, up to rounding.

    Args:
        forget, retain: prototypes as columns, [I, F] and [I, R].
    """
    forget, retain = forget.double(), retain.double()
    rest = forget - retain @ (torch.linalg.pinv(retain) @ forget)
    size = forget.norm(dim=0).max()
    left, values, _ = torch.linalg.svd(rest, full_matrices=False)
    kept: Tensor = left[:, values > 1e-6 * size]
    return kept


def _mean_inputs(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Layer name -> the mean of what it reads over a sample's places or patches, [S, I], in the order in
    which layers run; for a layer that runs several times, of its last run."""
    found: dict[str, list[Tensor]] = {}
    run: dict[str, Tensor] = {}

    def keep(name: str, rows: Tensor) -> None:
        run[name] = rows.mean(1)

    for part in inputs.split(100):
        run.clear()
        visit_inputs(model, part, keep)
        for name, mean in run.items():
            found.setdefault(name, []).append(mean)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _separability(rows: Tensor, forgets: Tensor, generator: torch.Generator) -> float:
    """0, as good as chance, to 1, of a ridge regression that tells forget from retain on held-out rows."""
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    fit, held = order[::2], order[1::2]
    rows = rows.double()
    mean, spread = rows[fit].mean(0), rows[fit].std(0).clamp(min=1e-6)
    x = torch.cat([(rows - mean) / spread, torch.ones_like(rows[:, :1])], 1)
    # Both groups weigh the same, as in the balanced accuracy.
    target = torch.where(forgets, 1.0, -1.0).double()
    weight = torch.where(forgets, 0.5 / forgets.double().mean(), 0.5 / (~forgets).double().mean())
    moments = (x[fit] * weight[fit, None]).T @ x[fit]
    moments += 1e-3 * len(fit) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    probe = torch.linalg.solve(moments, x[fit].T @ (weight[fit] * target[fit]))
    hits = (x[held] @ probe > 0) == forgets[held]
    recalls = [hits[forgets[held] == group].double().mean() for group in (True, False)]
    return float((sum(recalls) - 1).clamp(0, 1).nan_to_num(0.0))
