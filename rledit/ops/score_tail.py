"""``score_tail``: edit, run and count the last layers of a network, for all candidates at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .apply_lowrank import apply_lowrank_ref
from .counts import Counts, check_wanted, empty_counts
from .rules import check_kind
from .tally_logits import check_samples, tally_logits_ref

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "tanh": torch.tanh,
    "silu": F.silu,
}
PRECISIONS = ("float32", "bfloat16")

SCHEMA = (
    "(Tensor activations, Tensor[] weights, Tensor?[] biases, str[] nonlinearities, Tensor labels, "
    "Tensor groups, Tensor?[] lefts, Tensor?[] rights, str world, float scale, str precision, "
    "str[] wanted, int bins, float margin_limit) -> "
    "(Tensor correct, Tensor predicted, Tensor confusion, Tensor loss, Tensor histogram, "
    "Tensor concordant)"
)


def score_tail_ref(
    activations: Tensor,  # [S, I], what the first layer reads
    weights: Sequence[Tensor],  # per layer: [O, I], or [N, O, I] where each candidate has its own
    biases: Sequence[Tensor | None],  # per layer: [O] or None
    nonlinearities: Sequence[str],  # per layer: a key of NONLINEARITIES
    labels: Tensor,  # [S] int64
    groups: Tensor,  # [G, S] bool
    lefts: Sequence[Tensor | None],  # per layer: [N, O, R], or None where the layer is not edited
    rights: Sequence[Tensor | None],  # per layer: [N, R, I] or None
    world: str,
    scale: float,
    precision: str,
    wanted: list[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """Count what each of N candidates makes of the samples.

    N comes from the factors and the per-candidate weights; with neither, N is 1. ``precision="bfloat16"``
    rounds the operands of every product to bfloat16 and accumulates in the dtype of the activations.

    Raises:
        ValueError: for shapes that do not fit, or an unknown world, nonlinearity, precision or part.
    """
    candidates = check_tail(
        activations, weights, biases, nonlinearities, labels, groups, lefts, rights, world, precision, wanted
    )

    def operand(x: Tensor) -> Tensor:
        return x.bfloat16().to(x.dtype) if precision == "bfloat16" else x

    x = activations.expand(candidates, -1, -1)  # [N, S, I]
    for weight, bias, name, left, right in zip(weights, biases, nonlinearities, lefts, rights, strict=True):
        edited = weight.expand(candidates, *weight.shape[-2:])  # [N, O, I]
        if left is not None and right is not None:
            edited = edited.clone()
            apply_lowrank_ref(edited, left, right, world, scale)
        x = operand(x) @ operand(edited).transpose(1, 2)  # [N, S, O]
        x = NONLINEARITIES[name](x if bias is None else x + bias)
    return tally_logits_ref(x, labels, groups, wanted, bins, margin_limit)


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
    wanted: list[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    """The registered op: :func:`score_tail_ref`, in C++ for float32 CPU tensors."""
    return Counts(
        *torch.ops.rledit.score_tail(
            activations, weights, biases, nonlinearities, labels, groups, lefts, rights, world, scale,
            precision, wanted, bins, margin_limit,
        )
    )  # fmt: skip


def check_tail(
    activations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    nonlinearities: Sequence[str],
    labels: Tensor,
    groups: Tensor,
    lefts: Sequence[Tensor | None],
    rights: Sequence[Tensor | None],
    world: str,
    precision: str,
    wanted: list[str],
) -> int:
    """Raise ValueError for arguments that do not fit together; return the number of candidates."""
    check_kind(world)
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}; got {precision!r}")
    if activations.dim() != 2:
        raise ValueError(f"activations: expected shape [S, I], got {list(activations.shape)}")
    counts = [len(part) for part in (weights, biases, nonlinearities, lefts, rights)]
    if counts[0] == 0 or len(set(counts)) > 1:
        raise ValueError(
            "weights, biases, nonlinearities, lefts, rights: expected one entry per layer, got lengths "
            f"{counts}"
        )
    # A list, not a set: under torch.compile sizes are symbols, which have no hash.
    sizes = [w.shape[0] for w in weights if w.dim() == 3] + [f.shape[0] for f in lefts if f is not None]
    candidates: int = sizes[0] if sizes else 1
    if any(size != candidates for size in sizes):
        raise ValueError(f"lefts, weights: expected one number of candidates, got {sizes}")
    inputs = activations.shape[1]
    for i, (weight, bias, name, left, right) in enumerate(
        zip(weights, biases, nonlinearities, lefts, rights, strict=True)
    ):
        if weight.dim() not in (2, 3) or weight.shape[-1] != inputs:
            raise ValueError(
                f"weights[{i}]: expected shape [O, {inputs}] or [N, O, {inputs}], got {list(weight.shape)}"
            )
        outputs = weight.shape[-2]
        if name not in NONLINEARITIES:
            raise ValueError(
                f"nonlinearities[{i}]: expected one of {', '.join(NONLINEARITIES)}; got {name!r}"
            )
        if bias is not None and bias.shape != (outputs,):
            raise ValueError(f"biases[{i}]: expected shape [{outputs}], got {list(bias.shape)}")
        if (left is None) != (right is None):
            raise ValueError(f"lefts[{i}], rights[{i}]: expected both factors or none, got only one")
        if left is not None and right is not None:
            if left.dim() != 3 or left.shape[:2] != (candidates, outputs):
                raise ValueError(
                    f"lefts[{i}]: expected shape [{candidates}, {outputs}, R], got {list(left.shape)}"
                )
            if right.shape != (candidates, left.shape[2], inputs):
                raise ValueError(
                    f"rights[{i}]: expected shape [{candidates}, {left.shape[2]}, {inputs}], "
                    f"got {list(right.shape)}"
                )
        inputs = outputs
    check_samples(labels, groups, activations.shape[0])
    check_wanted(wanted, inputs)
    return candidates


def _fake(
    activations: Tensor,
    weights: list[Tensor],
    biases: list[Tensor | None],
    nonlinearities: list[str],
    labels: Tensor,
    groups: Tensor,
    lefts: list[Tensor | None],
    rights: list[Tensor | None],
    world: str,
    scale: float,
    precision: str,
    wanted: list[str],
    bins: int,
    margin_limit: float,
) -> Counts:
    candidates = check_tail(
        activations, weights, biases, nonlinearities, labels, groups, lefts, rights, world, precision, wanted
    )
    return empty_counts(activations, candidates, groups.shape[0], weights[-1].shape[-2], wanted, bins)


torch.library.define("rledit::score_tail", SCHEMA)
torch.library.impl("rledit::score_tail", "CompositeExplicitAutograd")(score_tail_ref)
torch.library.register_fake("rledit::score_tail", _fake)
