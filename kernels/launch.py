"""Block sizes, and what the launch functions of all ops share: dtypes, the number of programs, outputs.

The search space of block sizes is small on purpose. ``triton.autotune`` searches it once per key (the shapes,
the dtype) on the GPU in use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rledit.ops.counts import Counts, Wanted, counts_of

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"

RANKS = 16
"""Block size over the rank of the factors: the smallest that ``tl.dot`` takes."""

PROGRAMS = 6 if INTERPRETED else 1024
"""Programs of a launch, enough to fill any GPU. More candidates than that take turns; with fewer, several
programs share a candidate's samples."""

SAMPLES = 64
"""The fewest that are worth a program of their own."""

MOST_SAMPLES = 128
"""The most samples of a tile, over all configs."""

OPERANDS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def tuned(
    key: Sequence[str], configs: Sequence[triton.Config], interpreted: dict[str, int], **kwargs: Any
) -> Any:
    """``triton.autotune``. The interpreter, which cannot time anything, gets block sizes of its own: it takes
    as long as there are operations, whatever the size of their blocks. Tuning runs a kernel many times, so
    name what it changes in place (``restore_value``) and what it adds to (``reset_to_zero``)."""
    if INTERPRETED:
        return triton.autotune(configs=[triton.Config(interpreted)], key=list(key), **kwargs)
    prune = {"early_config_prune": fitting}
    return triton.autotune(configs=list(configs), key=list(key), prune_configs_by=prune, **kwargs)


MOST_SUMS = 64
"""Accumulators of a tile per thread: of its 255 registers, others are needed as well."""


def fitting(configs: Sequence[triton.Config], arguments: dict[str, Any], **more: Any) -> list[triton.Config]:
    """The configs whose accumulators, of BS samples by BC classes and BO outputs, stay in registers. Those
    for wide tails, with an eighth of the samples or fewer, are kept only where no others are."""
    classes = (arguments | more).get("BC", 0)

    def sums(config: triton.Config) -> float:
        block = config.kwargs
        columns = classes + block.get("BO", 0)
        return block.get("BS", 1) * columns / (32 * config.num_warps)

    kept = [config for config in configs if sums(config) <= MOST_SUMS]
    most = max((config.kwargs.get("BS", 1) for config in kept), default=0)
    return [config for config in kept if 8 * config.kwargs.get("BS", 1) > most] or [min(configs, key=sums)]


def float32_products() -> str:
    """How float32 tiles are multiplied, by torch's own setting: in full float32 ("highest", the default), as
    three TF32 products ("high") or as one ("medium"). See ``torch.set_float32_matmul_precision``."""
    return {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}[torch.get_float32_matmul_precision()]


def programs(samples: int, candidates: int) -> int:
    """How many programs work on one candidate."""
    return max(1, min(triton.cdiv(samples, SAMPLES), triton.cdiv(PROGRAMS, max(1, candidates))))


def power_of_two(size: int, least: int = 16) -> int:
    return max(least, triton.next_power_of_2(size))


class Outputs:
    """Where a kernel counts: one row per program, summed afterwards, and tables that all programs add to."""

    def __init__(
        self,
        candidates: int,
        programs: int,
        groups: int,
        classes: int,
        wanted: Wanted,
        device: torch.device,
    ) -> None:
        parts = self.parts = set(wanted.parts)

        def table(part: bool, *shape: int) -> Tensor:
            return torch.zeros(candidates, *shape if part else (0,), dtype=torch.int32, device=device)

        self.correct = torch.empty(candidates, programs, groups, dtype=torch.int32, device=device)
        self.loss = torch.empty(candidates, programs, groups, dtype=torch.float64, device=device)
        self.predicted = table("predicted" in parts, groups, classes)
        self.confusion = table("confusion" in parts, groups, classes, classes)
        self.histogram = table(wanted.binned, groups, 2, wanted.bins)
        self.flags = {
            "LOSS": "loss" in parts,
            "PREDICTED": "predicted" in parts,
            "CONFUSION": "confusion" in parts,
            "HISTOGRAM": wanted.binned,
        }

    def nothing(self) -> None:
        """Set the counts to zero, for when no program runs."""
        self.correct.zero_()
        self.loss.zero_()

    def counts(self) -> Counts:
        """The counts of all programs together."""
        return counts_of(
            self.correct.sum(1) if "correct" in self.parts else None, self.predicted, self.confusion,
            self.loss.sum(1) if "loss" in self.parts else None, self.histogram, self.parts,
            self.correct.device,
        )  # fmt: skip
