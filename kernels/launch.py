"""Block sizes, and what the launchers of all ops need: dtypes, outputs, groups as bits.

The space of block sizes is small on purpose; it is searched once for every key (the shapes, the dtype), on
the GPU at hand, by ``triton.autotune``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"

RANKS = 16
"""Of the factors at a time: the least that a product of tiles takes."""

PROGRAMS = 6 if INTERPRETED else 1024
"""That are enough to fill any GPU. More candidates take turns; of fewer, the samples are shared out."""

SAMPLES = 64
"""That are worth a program of their own."""

MOST_SAMPLES = 128
"""Of a tile, in any config."""

OPERANDS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def tuned(
    key: Sequence[str], configs: Sequence[triton.Config], interpreted: dict[str, int], **kwargs: Any
) -> Any:
    """``triton.autotune``. The interpreter, which cannot time anything, gets block sizes of its own: its time
    is that of the operations, however large their blocks. Timing runs a kernel many times: name what it
    changes in place (``restore_value``) and what it adds to (``reset_to_zero``)."""
    if INTERPRETED:
        return triton.autotune(configs=[triton.Config(interpreted)], key=list(key), **kwargs)
    prune = {"early_config_prune": fitting}
    return triton.autotune(configs=list(configs), key=list(key), prune_configs_by=prune, **kwargs)


MOST_SUMS = 64
"""Of a tile's, that a thread may keep: it has 255 registers, and other uses for them."""


def fitting(configs: Sequence[triton.Config], arguments: dict[str, Any], **more: Any) -> list[triton.Config]:
    """The configs whose sums, of BS samples and BC classes and BO outputs, stay in registers; those for wide
    tails, of an eighth of the samples or fewer, only where no other does."""
    classes = (arguments | more).get("BC", 0)

    def sums(config: triton.Config) -> float:
        block = config.kwargs
        columns = classes + block.get("BO", 0)
        return block.get("BS", 1) * columns / (32 * config.num_warps)

    kept = [config for config in configs if sums(config) <= MOST_SUMS]
    most = max((config.kwargs.get("BS", 1) for config in kept), default=0)
    return [config for config in kept if 8 * config.kwargs.get("BS", 1) > most] or [min(configs, key=sums)]


def float32_products() -> str:
    """How products of float32 tiles are made, by torch's own switch: full float32 ("highest", the default),
    three TF32 products ("high"), or one ("medium"). See ``torch.set_float32_matmul_precision``."""
    return {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}[torch.get_float32_matmul_precision()]


def programs(samples: int, candidates: int) -> int:
    """For each candidate."""
    return max(1, min(triton.cdiv(samples, SAMPLES), triton.cdiv(PROGRAMS, max(1, candidates))))


def power_of_two(size: int, least: int = 16) -> int:
    return max(least, triton.next_power_of_2(size))


class Outputs:
    """Where a kernel counts: what each program has, to be added up, and tables that all add to."""

    def __init__(
        self, candidates: int, programs: int, groups: int, classes: int, wanted: Sequence[str], bins: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.wanted = set(wanted)
        binned = bool(self.wanted & {"histogram", "concordant"})

        def table(part: bool, *shape: int) -> Tensor:
            return torch.zeros(candidates, *shape if part else (0,), dtype=torch.int32, device=device)

        self.correct = torch.empty(candidates, programs, groups, dtype=torch.int32, device=device)
        self.loss = torch.empty(candidates, programs, groups, dtype=torch.float64, device=device)
        self.predicted = table("predicted" in self.wanted, groups, classes)
        self.confusion = table("confusion" in self.wanted, groups, classes, classes)
        self.histogram = table(binned, groups, 2, bins)
        self.flags = {
            "LOSS": "loss" in self.wanted,
            "PREDICTED": "predicted" in self.wanted,
            "CONFUSION": "confusion" in self.wanted,
            "HISTOGRAM": binned,
        }

    def nothing(self) -> None:
        """Where no program runs."""
        self.correct.zero_()
        self.loss.zero_()

    def counts(self) -> tuple[Tensor, ...]:
        """The fields of rledit.ops.Counts."""
        from rledit.ops.counts import counts_of

        return counts_of(
            self.correct.sum(1) if "correct" in self.wanted else None, self.predicted, self.confusion,
            self.loss.sum(1) if "loss" in self.wanted else None, self.histogram, self.wanted,
            self.correct.device,
        )  # fmt: skip
