"""How many candidates per second bags of words allow: inputs that are mostly zeros, under both edit rules.

python -m benchmarks.sparse
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import tyro
from rich.table import Table

from rledit.ops import Candidates, EditRule, Layer, TailProblem, Wanted, backend

from .record import write

SAMPLES, WORDS, SIZES, RANK, CANDIDATES = 8000, 5000, (64, 16, 2), 4, 16
MODES = ("shift", "mask", "mask, own weights")


def make_problem(ones: int) -> TailProblem:
    """A first layer of 5,000 words, of which each text has about ``ones``, and two small layers behind it."""
    random = torch.Generator().manual_seed(0)
    texts = torch.zeros(SAMPLES, WORDS)
    texts.scatter_(1, torch.randint(WORDS, (SAMPLES, ones), generator=random), 1.0)
    layers = []
    inputs = WORDS
    for outputs in SIZES:
        weight = torch.randn(outputs, inputs, generator=random) / inputs**0.5
        layers.append(Layer(weight, torch.zeros(outputs), "identity" if outputs == SIZES[-1] else "relu"))
        inputs = outputs
    labels = torch.randint(SIZES[-1], (SAMPLES,), generator=random)
    return TailProblem(texts, tuple(layers), labels, torch.stack([labels == 1, labels == 0]))


def make_candidates(problem: TailProblem, mode: str) -> Candidates:
    random = torch.Generator().manual_seed(1)
    left = 0.1 * torch.randn(CANDIDATES, SIZES[0], RANK, generator=random)
    right = 0.1 * torch.randn(CANDIDATES, RANK, WORDS, generator=random)
    nothing: list[torch.Tensor | None] = [None] * (len(SIZES) - 1)
    own = problem.layers[0].weight.repeat(CANDIDATES, 1, 1) if mode.endswith("own weights") else None
    rule = EditRule(mode.partition(",")[0])
    return Candidates(CANDIDATES, rule, [left, *nothing], [right, *nothing], [own, *nothing])


def main(turns: int = 15) -> None:
    """Run the table.

    Args:
        turns: measurements of each, interleaved; their median counts.
    """
    shape = " -> ".join(map(str, (WORDS, *SIZES)))
    table = Table(title=f"{SAMPLES:,} texts, {shape}, rank {RANK}: candidates per second")
    for header in ("words in a text", *MODES, "mask : shift"):
        table.add_column(header)
    rows = []
    for ones in (10, 50, 200):
        problem = make_problem(ones)
        tail = backend().prepare_tail(problem)
        times: dict[str, list[float]] = {mode: [] for mode in MODES}
        populations = {mode: make_candidates(problem, mode) for mode in MODES}
        for _ in range(turns + 1):
            for mode, population in populations.items():
                started = time.perf_counter()
                tail.score(population, Wanted(["correct"]))
                times[mode].append(time.perf_counter() - started)
        rates = {mode: CANDIDATES / statistics.median(values[1:]) for mode, values in times.items()}
        ratio = rates["mask"] / rates["shift"]
        rows.append({"words": ones, "candidates_per_second": rates, "mask_ratio": ratio})
        table.add_row(str(ones), *(f"{rates[mode]:.0f}" for mode in MODES), f"{ratio:.2f}")
    write("sparse", "python -m benchmarks.sparse", table, {"rows": rows})


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
