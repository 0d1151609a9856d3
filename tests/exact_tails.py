"""Tails of any shape, their exact logits, and how far float32 or bfloat16 arithmetic may be from these."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from native_arguments import score_tail
from torch import Tensor

from rledit.ops import NONLINEARITIES, PROBE_PARTS, TALLY_PARTS, Counts

# Unit roundoffs: half of what the last bit of a number from 1 to 2 is worth.
U32 = 2.0**-24  # float32, 24 bits of significand
U16 = 2.0**-8  # bfloat16, 8 bits
# Split float32, as AMX multiplies it with RLEDIT_AMX_FLOAT32=1: x = hi + lo + rest with two bfloat16. In
# units of the leading bit of x, hi misses at most 2^-8, so lo is at most 2^-8 and has its last bit at 2^-16,
# and rest is at most 2^-17. Of a product, lo*lo' (2^-16) and both rests (2 * 2^-17) are lost; 2^-24 covers
# the products of a rest and a lo.
U_SPLIT = 2.0**-15 + 2.0**-24
# The same with two TF32 of 11 bits, as GPUs multiply it: lo is at most 2^-11, so lo*lo' and both rests are at
# most 2^-22 each.
U_TF32X3 = 3 * 2.0**-22

LOGIT_PARTS = tuple(part for part in TALLY_PARTS if part not in PROBE_PARTS)
"""What can be counted without a probe."""

Arguments = tuple[
    Tensor,
    list[Tensor],
    list[Tensor | None],
    list[str],
    Tensor,
    Tensor,
    list[Tensor | None],
    list[Tensor | None],
]


def splits(isa: str) -> bool:
    """Whether products of float32 are made of split values, as on AMX they are only for those who ask."""
    asked = os.environ.get("RLEDIT_AMX_FLOAT32") == "1"
    return (isa.startswith("amx") and asked) or isa == "tf32x3"


@dataclass(frozen=True)
class Case:
    samples: int = 129
    sizes: tuple[int, ...] = (37, 19, 5)  # inputs, outputs of each layer
    functions: tuple[str, ...] = ("relu",)  # after each layer but the last, repeated
    edited: tuple[int, ...] = (0,)
    own: tuple[int, ...] = ()  # layers with weights [N, O, I]
    rank: int = 2
    candidates: int = 5
    groups: int = 3
    bias: bool = True
    scale: float = 0.7
    parts: tuple[str, ...] = ("correct", "predicted", "confusion", "loss")
    seed: int = 0

    def but(self, **changes: object) -> Case:
        return replace(self, **changes)

    def build(self) -> Arguments:
        """The arguments of score_tail up to the factors."""
        random = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random)

        n, layers = self.candidates, range(len(self.sizes) - 1)
        weights, biases, lefts, rights = [], [], [], []
        for layer in layers:
            i, o = self.sizes[layer : layer + 2]
            lead = (n,) if layer in self.own else ()
            weights.append(normal(*lead, o, i) / i**0.5)
            biases.append(normal(o) if self.bias else None)
            rank = min(self.rank, i, o)
            edit = layer in self.edited
            lefts.append(normal(n, o, rank) / (rank * i) ** 0.5 if edit else None)
            rights.append(normal(n, rank, i) if edit else None)
        labels = torch.randint(self.sizes[-1], (self.samples,), generator=random)
        # Groups from one that is nearly empty to one that holds nearly everything.
        share = torch.linspace(0.02, 0.98, self.groups)[:, None]
        groups = torch.rand(self.groups, self.samples, generator=random) < share
        functions = [self.functions[layer % len(self.functions)] for layer in layers]
        functions[-1] = "identity"
        activations = normal(self.samples, self.sizes[0])
        return activations, weights, biases, functions, labels, groups, lefts, rights

    def wanted(self) -> list[str]:
        """All parts that its number of classes allows."""
        return list(LOGIT_PARTS if self.sizes[-1] == 2 else TALLY_PARTS[:4])


CASES = {
    "one sample": Case(samples=1),
    "three samples, one candidate": Case(samples=3, candidates=1),
    "one tile": Case(samples=64),
    "one tile and one sample": Case(samples=65, groups=64),
    "odd sizes": Case(samples=151, sizes=(31, 17, 3), rank=3, groups=1),
    "rank 1": Case(samples=372, sizes=(65, 33, 10), rank=1),
    "paper": Case(samples=600, sizes=(128, 32, 10), rank=4, candidates=7, groups=2),
    "full rank": Case(samples=65, sizes=(23, 29, 4), rank=23),
    # More than chunk/8 ranks: with one tile 8, with eight tiles 64.
    "weights formed once, one tile": Case(samples=33, sizes=(21, 20, 7), rank=9, candidates=4),
    "weights formed once, many chunks": Case(samples=1300, sizes=(70, 72, 3), rank=66, candidates=3),
    "second layer formed once": Case(samples=700, sizes=(9, 80, 70, 2), edited=(1,), rank=67, candidates=2),
    "second layer only": Case(edited=(1,), rank=4, candidates=17),
    "all layers": Case(sizes=(40, 21, 13, 6), edited=(0, 1, 2), rank=3, functions=("tanh", "gelu")),
    "unedited": Case(edited=(), candidates=1),
    "single layer": Case(sizes=(50, 11), samples=372),
    "single layer, full rank": Case(sizes=(13, 11), samples=372, rank=11),
    "two classes": Case(sizes=(45, 7, 2), parts=LOGIT_PARTS, samples=372, groups=9),
    "two classes, single layer": Case(sizes=(19, 2), parts=LOGIT_PARTS, samples=151, groups=64),
    "one input": Case(sizes=(1, 5, 3), rank=1),
    "own weights": Case(edited=(), own=(0,), candidates=6),
    "own weights with factors": Case(edited=(0,), own=(0, 1), candidates=6),
    "own weights, factors elsewhere": Case(edited=(1,), own=(0,), candidates=3),
    "no bias": Case(bias=False, functions=("silu",)),
    "wide": Case(samples=200, sizes=(515, 261, 10), candidates=3, rank=5),
    "deep": Case(samples=151, sizes=(1601, 33, 4), candidates=3, rank=5),  # passes panels part by part
    "1000 classes": Case(samples=129, sizes=(24, 1000), candidates=2, groups=2),
    "many candidates": Case(samples=129, candidates=201, sizes=(12, 9, 4)),
    "zero scale": Case(scale=0.0),
    "negative scale": Case(scale=-1.3),
    **{name: Case(functions=(name,), samples=372) for name in NONLINEARITIES},
}


def native_counts(arguments: Arguments, case: Case, world: str, precision: str, algebra: str) -> Counts:
    """A native tail, prepared and scored by one algebra."""

    def arrays(tensors: list[Tensor | None]) -> list[np.ndarray | None]:
        return [None if tensor is None else tensor.numpy() for tensor in tensors]

    x, weights, biases, functions, labels, groups, lefts, rights = arguments
    counts = score_tail(
        activations=x.numpy(), weights=arrays(weights), biases=arrays(biases), nonlinearities=functions,
        labels=labels.numpy(), groups=groups.numpy(), lefts=arrays(lefts), rights=arrays(rights),
        candidates=case.candidates, world=world, scale=case.scale, precision=precision, wanted=case.wanted(),
        bins=1024, margin_limit=16.0, algebra=algebra,
    )  # fmt: skip
    return Counts(*map(torch.from_numpy, counts))


def exact_tail(
    arguments: Arguments, world: str, scale: float, precision: str, isa: str = ""
) -> tuple[Tensor, Tensor]:
    """Logits [N, S, C] in float64 and a bound [N, S] on the error of any float32 or bfloat16 path.

    A dot product of length I, with weights formed from rank-R factors, makes an error of at most
    (I + 2R + 8) u of the same sum over absolute values, in whatever order it is added. For shift that sum
    is |x| (|W| + |s| |left| |right|), which also covers the path that never forms W'. Where float32 is split,
    a product is three, so as many are added, and each is off by U_SPLIT; on the path that never forms W'
    twice, in X right^T and in what left makes of it.
    """
    x, weights, biases, functions, _, _, lefts, rights = arguments
    n = max(
        [1] + [w.shape[0] for w in weights if w.dim() == 3] + [f.shape[0] for f in lefts if f is not None]
    )
    x = x.double().expand(n, -1, -1)
    error = torch.zeros_like(x)
    for weight, bias, name, left, right in zip(weights, biases, functions, lefts, rights, strict=True):
        weight = weight.double().expand(n, *weight.shape[-2:])
        size, rank = weight.abs(), 0
        if left is not None:
            rank = left.shape[2]
            delta = scale * left.double() @ right.double()
            reach = abs(scale) * left.abs().double() @ right.abs().double()
            if world == "shift":
                weight, size = weight + delta, size + reach
            else:
                weight, size = weight * (1 + delta), size * (1 + reach)
        terms = weight.shape[-1] + 2 * rank
        if precision == "bfloat16":
            unit = (terms + 8) * U32 + 4 * U16  # x, W or left, right, and x right^T are rounded
        elif splits(isa):
            lost = U_TF32X3 if isa == "tf32x3" else U_SPLIT
            unit = (3 * terms + 8) * U32 + (2 if rank > 0 else 1) * lost
        else:
            unit = (terms + 8) * U32
        offset = 0 if bias is None else bias.double()
        reach = x.abs() @ size.transpose(1, 2) + (0 if bias is None else bias.abs().double())
        error = error @ size.transpose(1, 2) * (1 + unit) + unit * reach
        x = x @ weight.transpose(1, 2) + offset
        if name != "identity":
            # GELU and SiLU are steepest with 1.13 and 1.1. The polynomials of exp, tanh and erf are good to
            # 4 units, erf (2e-7 absolute) to 4 as well.
            error = 1.13 * error + 8 * U32 * (1 + x.abs())
            x = NONLINEARITIES[name](x)
    return x, error.amax(-1)
