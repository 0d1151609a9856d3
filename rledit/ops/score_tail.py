"""``score_tail``: edit, run and count the last layers of a network, for all candidates at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .apply_lowrank import apply_lowrank_ref
from .counts import Counts, Wanted, empty_counts
from .probe import PROBE_PARTS, RIDGE, Probe
from .rules import EditRule, check_kind
from .tail import NONLINEARITIES, Candidates, Layer, TailProblem
from .tally_features import tally_features_ref
from .tally_logits import tally_logits_ref

SCHEMA = (
    "(Tensor activations, Tensor[] weights, Tensor?[] biases, str[] nonlinearities, Tensor labels, "
    "Tensor groups, Tensor?[] lefts, Tensor?[] rights, str world, float scale, str precision, "
    "str[] wanted, int bins, float margin_limit, Tensor? fit=None, float ridge=0.001) -> "
    "(Tensor correct, Tensor predicted, Tensor confusion, Tensor loss, Tensor histogram, "
    "Tensor concordant, Tensor recalled, Tensor nearest, Tensor lower_loss)"
)


def score_tail_ref(problem: TailProblem, candidates: Candidates, wanted: Wanted) -> Counts:
    """Count the results of each of N candidates on the samples, in the dtype of the activations.

    Raises:
        ValueError: for candidates that do not fit the problem, labels out of range, or an unknown part.
    """
    problem.check(wanted)
    features, logits = run_tail(problem, candidates)
    counts = tally_logits_ref(logits, problem.labels, problem.groups, *wanted.without(PROBE_PARTS))
    if problem.probe is None or not wanted.probes:
        return counts
    probe = problem.probe
    recalled, nearest = tally_features_ref(
        features,
        problem.labels,
        problem.groups,
        probe.fit,
        probe.ridge,
        wanted.only(PROBE_PARTS).parts,
        probe.classifier,
    )
    return counts._replace(recalled=recalled, nearest=nearest)


def run_tail(problem: TailProblem, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """What the last layer reads, [N, S, D], and the logits [N, S, C], in plain PyTorch.

    Raises:
        ValueError: for candidates that do not fit the problem.
    """
    candidates.check(problem.layers)
    rule = candidates.rule

    def operand(x: Tensor) -> Tensor:
        return x.bfloat16().to(x.dtype) if problem.precision == "bfloat16" else x

    x = features = problem.activations.expand(candidates.size, -1, -1)  # [N, S, I]
    weights = candidates.weights_in(problem.layers)
    for layer, weight, left, right in zip(
        problem.layers, weights, candidates.lefts, candidates.rights, strict=True
    ):
        features = x
        edited = weight.expand(candidates.size, -1, -1)  # [N, O, I]
        if left is not None and right is not None:
            edited = edited.clone()
            apply_lowrank_ref(edited, left, right, rule.kind, rule.scale)
        x = operand(x) @ operand(edited).transpose(1, 2)  # [N, S, O]
        x = NONLINEARITIES[layer.nonlinearity](x if layer.bias is None else x + layer.bias)
    return features, x


def score_tail(
    activations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    nonlinearities: Sequence[str],
    labels: Tensor,
    groups: Tensor,
    lefts: Sequence[Tensor | None],
    rights: Sequence[Tensor | None],
    world: str,
    scale: float,
    precision: str,
    wanted: Sequence[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
    fit: Tensor | None = None,
    ridge: float = RIDGE,
) -> Counts:
    """The registered op: :func:`score_tail_ref`, in C++ for float32 CPU tensors.

    Prepares its tail anew in each call; to score one tail often, use
    :meth:`rledit.ops.Backend.prepare_tail`.

    Args:
        activations: [S, I], the input of the first layer.
        weights: per layer [O, I], or [N, O, I] where each candidate has its own.
        biases: per layer [O] or None.
        nonlinearities: per layer a key of :data:`rledit.ops.NONLINEARITIES`.
        labels: int64 [S], in 0..C-1.
        groups: bool [G, S], G <= 64.
        lefts: per layer [N, O, R], or None where the layer is not edited.
        rights: per layer [N, R, I], or None where the layer is not edited.
        world, scale: see :class:`rledit.ops.EditRule`.
        precision: see :class:`rledit.ops.TailProblem`.
        wanted, bins, margin_limit: see :class:`rledit.ops.Wanted`.
        fit, ridge: see :class:`rledit.ops.Probe`; None: no probe.

    Raises:
        ValueError: for shapes that do not fit, or an unknown world, nonlinearity, precision or part.
        TypeError: for tensors of several dtypes or devices.
    """
    return Counts(
        *torch.ops.rledit.score_tail(
            activations, weights, biases, nonlinearities, labels, groups, lefts, rights, world, scale,
            precision, wanted, bins, margin_limit, fit, ridge,
        )
    )  # fmt: skip


def from_schema(
    activations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    nonlinearities: Sequence[str],
    labels: Tensor,
    groups: Tensor,
    lefts: Sequence[Tensor | None],
    rights: Sequence[Tensor | None],
    world: str,
    scale: float,
    precision: str,
    wanted: Sequence[str],
    bins: int,
    margin_limit: float,
    fit: Tensor | None = None,
    ridge: float = RIDGE,
) -> tuple[TailProblem, Candidates, Wanted]:
    """The op's flat arguments as objects, checked.

    N is that of the factors and of the weights [N, O, I]; without either, it is 1.
    """
    counts = [len(part) for part in (weights, biases, nonlinearities, lefts, rights)]
    if counts[0] == 0 or any(count != counts[0] for count in counts):
        raise ValueError(
            "weights, biases, nonlinearities, lefts, rights: expected one entry per layer, got lengths "
            f"{counts}"
        )
    own = [weight if weight.dim() == 3 else None for weight in weights]
    # Nobody reads a layer's own weights where candidates have theirs.
    shared = [weight.new_zeros(weight.shape[1:]) if weight.dim() == 3 else weight for weight in weights]
    layers = tuple(map(Layer, shared, biases, nonlinearities))
    probe = None if fit is None else Probe(fit, ridge)
    problem = TailProblem(activations, layers, labels, groups, precision, probe=probe)
    sizes = [part.shape[0] for part in (*own, *lefts) if part is not None]
    candidates = Candidates(sizes[0] if sizes else 1, EditRule(check_kind(world), scale), lefts, rights, own)
    candidates.check(layers)
    asked = Wanted(wanted, bins, margin_limit)
    problem.check(asked)
    return problem, candidates, asked


def _fake(*arguments: Any) -> Counts:
    problem, candidates, wanted = from_schema(*arguments)
    return empty_counts(
        problem.activations, candidates.size, problem.groups.shape[0], problem.classes, wanted
    )


torch.library.define("rledit::score_tail", SCHEMA)
torch.library.register_fake("rledit::score_tail", _fake)
