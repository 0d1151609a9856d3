"""Projection by singular vectors of what layers read: of forget, less what retain has in common with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..targets import Target
from .base import Budget, MethodResult, UnlearningProblem, method
from .data import Data, group_data
from .layers import right_multiplied_, visit_inputs
from .tuning import Tuning, trainable_copy

SAMPLES = 900
RETAIN = (100.0, 10.0, 30.0, 300.0, 1000.0)
FORGET = (3.0, 1.0, 10.0, 30.0, 100.0, 1000.0)
"""alpha_r and alpha_f, the defaults first; their code searches the former, its demo the latter, too."""


@method(
    "projection",
    title="projection",
    source="Kodge et al., TMLR 2024, arXiv:2312.00761",
    needs=("forget data", "retain data"),
)
def projection(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
    """Multiply every weight with :func:`unlearning_matrix` of what its layer reads.

    S. Kodge, G. Saha, K. Roy, "Deep Unlearning: Fast and Efficient Gradient-free Class Forgetting", TMLR
    2024, arXiv:2312.00761, algorithm 1: all Linear and Conv2d layers at once (those with groups are left),
    from 900 samples to retain and as many to forget; alpha_r 100 and alpha_f 3 for CIFAR-10.
    """
    generator = torch.Generator().manual_seed(seed)
    retain, forget = (
        _moments(problem.model, group_data(problem.model, problem.train, group).some(SAMPLES, generator))
        for group in ("retain", "forget")
    )
    tuning = Tuning(problem)
    for alpha_r in RETAIN:
        for alpha_f in FORGET:
            model = trainable_copy(problem)
            for name in retain:
                matrix = unlearning_matrix(retain[name], forget[name], alpha_r, alpha_f)
                right_multiplied_(_layer(model, name), matrix)
            published = (alpha_r, alpha_f) == (RETAIN[0], FORGET[0])
            tuning.offer(model, {"alpha_r": alpha_r, "alpha_f": alpha_f}, published=published)
    return tuning.result()


def unlearning_matrix(retain: Tensor, forget: Tensor, alpha_r: float, alpha_f: float) -> Tensor:
    """What a weight W is multiplied with from the right, float64 [I, I].

    A group's singular vectors U and squared singular values, divided by their sum, s, give the projection
    ``M = U diag(alpha * s / ((alpha - 1) * s + 1)) U.T``, which keeps a direction the more, the
    more of the group lies in it. Then ``P = I - (M_f - M_f M_r)``, and W becomes ``W P.T``.

    Args:
        retain, forget: second moments of a layer's inputs, the sum of ``x x.T``, [I, I].
        alpha_r, alpha_f: how soon a direction counts whole.
    """
    m_r, m_f = _scaled(retain, alpha_r), _scaled(forget, alpha_f)
    eye = torch.eye(len(m_f), dtype=m_f.dtype, device=m_f.device)
    return (eye - m_f + m_f @ m_r).T


def _scaled(moments: Tensor, alpha: float) -> Tensor:
    """M of a group. Squared singular values are the eigenvalues of the second moments."""
    values, vectors = torch.linalg.eigh(moments.double())
    values = values.clamp(min=0)
    total = values.sum()
    share = values / total if total > 0 else values
    matrix: Tensor = (vectors * (alpha * share / ((alpha - 1) * share + 1))) @ vectors.T
    return matrix


def _moments(model: nn.Module, data: Data) -> dict[str, Tensor]:
    """Layer name -> second moments of its inputs, float64 [I, I], in the order in which layers run."""
    found: dict[str, Tensor] = {}

    def add(name: str, inputs: Tensor) -> None:
        rows = inputs.flatten(0, 1).double()
        found[name] = found.get(name, 0) + rows.T @ rows

    visit_inputs(model, data.inputs, add)
    return found


def _layer(model: nn.Module, name: str) -> Target:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer
