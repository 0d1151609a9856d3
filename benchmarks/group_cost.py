"""What AUCs of 24 identity groups cost on top of counting accuracy, per candidate.

python -m benchmarks.group_cost
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import tyro
from rich.table import Table
from torch import nn

import rledit

from .record import write

SAMPLES, GROUPS, CANDIDATES, RANK = 12_000, 24, 256, 4
PARTS = {"accuracy": ["correct"], "and AUCs": ["correct", "concordant"],
         "and error rates": ["concordant", "confusion", "correct"]}  # fmt: skip


def make_scorer() -> rledit.Scorer:
    """Half of the samples for utility, half in 24 groups side by side, as ``rledit debias`` lays them."""
    torch.manual_seed(0)
    inputs = torch.randn(SAMPLES, 64).relu()
    labels = torch.randint(2, (SAMPLES,))
    inputs[:, 0] += labels
    order = torch.arange(SAMPLES)
    in_bias = order >= SAMPLES // 2
    identity = (order - SAMPLES // 2) * GROUPS // (SAMPLES // 2)
    groups = {"utility": ~in_bias, "bias": in_bias}
    groups |= {f"group {k}": in_bias & (identity == k) for k in range(GROUPS)}
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    return rledit.Task(model, ["0"], rledit.Samples(inputs, labels, groups), rledit.Debias()).scorer()


def main(turns: int = 25) -> None:
    """Run the table.

    Args:
        turns: measurements of each, interleaved; their median counts.
    """
    scorer = make_scorer()
    table = Table(title=f"{SAMPLES:,} comments, 64 -> 16 -> 2, {GROUPS} groups: microseconds per candidate")
    for header in ("world", *PARTS, "ratio"):
        table.add_column(header)
    rows = []
    for world in ("shift", "mask"):
        factors = {"0": (0.1 * torch.randn(CANDIDATES, 16, RANK), 0.1 * torch.randn(CANDIDATES, RANK, 64))}
        times: dict[str, list[float]] = {name: [] for name in PARTS}
        for _ in range(turns):
            for name, wanted in PARTS.items():
                started = time.perf_counter()
                scorer.score(factors, world, wanted=wanted)
                times[name].append((time.perf_counter() - started) / CANDIDATES * 1e6)
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratio = medians["and error rates"] / medians["accuracy"]
        rows.append({"world": world, "microseconds": medians, "ratio": ratio})
        table.add_row(world, *(f"{value:.1f}" for value in medians.values()), f"{ratio:.2f}")
    write("group_cost", "python -m benchmarks.group_cost", table, {"rows": rows})


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
