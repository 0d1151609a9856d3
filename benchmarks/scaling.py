"""Cost per candidate and sample as N and S grow from 2^8 to 2^14, on the paper's layer.

    python -m benchmarks.scaling

Linear cost means that the time per candidate and sample stays where it is. The plot goes to
docs/images/scaling.png, the figures to results/scaling.md.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

import rledit

from . import ROOT
from .record import write

I, O, C, R = 128, 32, 10, 4  # noqa: E741 - inputs, outputs, classes, rank
SIZES = [2**k for k in range(8, 15)]
FIXED = 1024
COLORS = {"shift": "#0072B2", "mask": "#D55E00"}


def main(turns: int = 7) -> None:
    """Run the table and the plot.

    Args:
        turns: measurements of each size, interleaved; their median counts.
    """
    torch.manual_seed(0)
    axes = {
        "candidates": [(size, FIXED) for size in SIZES],
        "samples": [(FIXED, size) for size in SIZES],
    }
    table = Table(title=f"Time per candidate and sample, 128 -> 32 -> 10, rank {R} (float32)")
    for header in ("grows", "N", "S"):
        table.add_column(header)
    for world in COLORS:
        table.add_column(f"{world}, ns", justify="right")
    rows = []
    for grows, sizes in axes.items():
        measured = {world: _measure(sizes, world, turns) for world in COLORS}
        for i, (n, s) in enumerate(sizes):
            per = {world: measured[world][i] for world in COLORS}
            table.add_row(grows, f"{n:,}", f"{s:,}", *(f"{value:.2f}" for value in per.values()))
            rows.append({"grows": grows, "N": n, "S": s, **per})
    spread = {
        f"{world}, {grows}": max(r[world] for r in rows if r["grows"] == grows)
        / min(r[world] for r in rows if r["grows"] == grows)
        for world in COLORS
        for grows in axes
    }
    note = (
        "Largest over smallest: " + "; ".join(f"{name} {value:.2f}" for name, value in spread.items()) + "."
    )
    write("scaling", "python -m benchmarks.scaling", table, {"rows": rows, "spread": spread}, note)
    _plot(rows)
    print(note)


def _measure(sizes: list[tuple[int, int]], world: str, turns: int) -> list[float]:
    """Nanoseconds per candidate and sample of each (N, S)."""
    model = torch.nn.Sequential(torch.nn.Linear(I, O), torch.nn.ReLU(), torch.nn.Linear(O, C)).eval()
    scorers = {}
    for samples in {s for _, s in sizes}:
        labels = torch.randint(0, C, (samples,))
        split = rledit.Samples(torch.randn(samples, I).relu(), labels, rledit.forget_groups(labels, 0))
        scorers[samples] = rledit.Task(model, ["0"], split, rledit.Unlearning()).scorer("native")
    most = max(n for n, _ in sizes)
    left, right = 0.05 * torch.randn(most, O, R), torch.randn(most, R, I)
    times: list[list[float]] = [[] for _ in sizes]
    for turn in range(turns + 1):
        for i, (n, s) in enumerate(sizes):
            started = time.perf_counter()
            scorers[s].score({"0": (left[:n], right[:n])}, world)
            if turn > 0:  # the first turn warms up
                times[i].append((time.perf_counter() - started) / (n * s) * 1e9)
    return [statistics.median(each) for each in times]


def _plot(rows: list[dict[str, object]]) -> None:
    figure = Figure(figsize=(8.4, 3.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, grows, key in zip(
        figure.subplots(1, 2, sharey=True), ("candidates", "samples"), "NS", strict=True
    ):
        for world, color in COLORS.items():
            chosen = [row for row in rows if row["grows"] == grows]
            axis.plot([r[key] for r in chosen], [r[world] for r in chosen], "o-", color=color, label=world)
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(f"{grows} ({key}), at {'S' if key == 'N' else 'N'} = {FIXED:,}")
        axis.grid(True, color="#e6e8eb")
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("ns per candidate and sample")
    figure.axes[0].legend(frameon=False)
    figure.savefig(ROOT / "docs" / "images" / "scaling.png")


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
