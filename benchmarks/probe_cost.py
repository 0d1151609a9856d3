"""What probes of the features and ranks of losses cost on top of counting accuracy, per candidate.

python -m benchmarks.probe_cost
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import tyro
from rich.table import Table

from rledit.ops import Candidates, EditRule, Layer, Probe, TailProblem, Wanted, backend, halves

from .record import write

SAMPLES, INPUTS, HIDDEN, CLASSES, RANK = 6000, 128, 32, 10, 4
PARTS = {
    "accuracy": ["correct"],
    "and ridge probe": ["correct", "recalled"],
    "and nearest mean": ["correct", "nearest"],
    "and losses": ["correct", "lower_loss"],
    "all": ["correct", "recalled", "nearest", "lower_loss"],
}


def make_problem(probe: bool) -> TailProblem:
    """The paper's tail: 32 x 128 edited, a class to forget, a class's samples apart from the others'."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=random)
    centers = torch.randn(CLASSES, INPUTS, generator=random)
    activations = (torch.randn(SAMPLES, INPUTS, generator=random) + centers[labels]).relu()
    layers = (
        Layer(torch.randn(HIDDEN, INPUTS, generator=random) / INPUTS**0.5, torch.zeros(HIDDEN), "relu"),
        Layer(torch.randn(CLASSES, HIDDEN, generator=random) / HIDDEN**0.5, torch.zeros(CLASSES)),
    )
    groups = torch.stack([labels == 7, labels != 7])
    return TailProblem(activations, layers, labels, groups, probe=Probe(halves(labels)) if probe else None)


def make_candidates(size: int, world: str) -> Candidates:
    random = torch.Generator().manual_seed(1)
    left = 0.1 * torch.randn(size, HIDDEN, RANK, generator=random)
    right = 0.1 * torch.randn(size, RANK, INPUTS, generator=random)
    return Candidates(size, EditRule(world), [left, None], [right, None], [None, None])


def main(turns: int = 15, candidates: tuple[int, ...] = (128, 640)) -> None:
    """Run the table.

    Args:
        turns: measurements of each, interleaved; their median counts.
        candidates: numbers of candidates to score together.
    """
    plain = backend().prepare_tail(make_problem(probe=False))
    probing = backend().prepare_tail(make_problem(probe=True))
    table = Table(title=f"{SAMPLES:,} samples, {INPUTS} -> {HIDDEN} -> {CLASSES}: microseconds per candidate")
    for header in ("world", "candidates", *PARTS, "ridge : accuracy", "all : accuracy"):
        table.add_column(header)
    rows = []
    for world in ("shift", "mask"):
        for size in candidates:
            population = make_candidates(size, world)
            times: dict[str, list[float]] = {name: [] for name in PARTS}
            for _ in range(turns + 1):
                for name, parts in PARTS.items():
                    tail = plain if name == "accuracy" else probing
                    started = time.perf_counter()
                    tail.score(population, Wanted(parts))
                    times[name].append((time.perf_counter() - started) / size * 1e6)
            medians = {
                name: statistics.median(values[1:]) for name, values in times.items()
            }  # first: warm-up
            ratios = [medians[name] / medians["accuracy"] for name in ("and ridge probe", "all")]
            rows.append(
                {"world": world, "candidates": size, "microseconds": medians,
                 "ridge_ratio": ratios[0], "all_ratio": ratios[1]}
            )  # fmt: skip
            figures = [f"{value:.1f}" for value in medians.values()]
            table.add_row(world, str(size), *figures, *(f"{ratio:.2f}" for ratio in ratios))
    write("probe_cost", "python -m benchmarks.probe_cost", table, {"rows": rows})


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
