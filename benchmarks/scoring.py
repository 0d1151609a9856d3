"""Scoring against a plain PyTorch loop over cached activations.

    python -m benchmarks.scoring

The opponent is what a careful user would write: the prefix's activations are cached, and for each candidate
the edited weight is formed, the rest of the network is run and the correct predictions of each group are
counted. Both compute the same counts, which is checked (samples within rounding of a tie aside). The two take
turns, and the ratio is the median of those of the turns.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import tyro
from rich.table import Table
from torch import Tensor, nn

import rledit
from rledit.zoo.models import ResNetCIFAR

from .record import write


@dataclass(frozen=True)
class Shape:
    """S samples x I -> O (-> classes, if any), N candidates of rank R."""

    samples: int
    inputs: int
    outputs: int
    classes: int
    candidates: int
    rank: int

    def __str__(self) -> str:
        tail = f" -> {self.classes}" if self.classes else ""
        return f"{self.samples:,} x {self.inputs} -> {self.outputs}{tail}"


SHAPES = [
    Shape(10_000, 128, 32, 10, 256, 4),
    Shape(10_000, 128, 32, 10, 1, 4),
    Shape(10_000, 128, 32, 10, 64, 32),
    Shape(1_000, 128, 32, 10, 256, 1),
    Shape(200, 128, 32, 10, 16, 4),
    Shape(200, 128, 32, 10, 1, 4),
    Shape(10_000, 32, 10, 0, 256, 4),
    Shape(10_000, 16, 2, 0, 1024, 2),
    Shape(151, 33, 17, 3, 64, 5),
    Shape(4_096, 768, 768, 10, 16, 8),
    Shape(4_096, 768, 768, 10, 4, 768),
    Shape(2_048, 1024, 4096, 1000, 2, 8),
]
CONV_TARGETS = ["layer3.2.conv2", "layer3.2.conv1", "layer2.0.conv1"]


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.inputs, shape.outputs)
        self.fc2 = nn.Linear(shape.outputs, shape.classes) if shape.classes else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return x if self.fc2 is None else self.fc2(F.relu(x))


def main(repeats: int = 7) -> None:
    """Run the table.

    Args:
        repeats: turns of each pair.
    """
    torch.manual_seed(0)
    table = Table(title="Scoring against a plain loop over cached activations (float32)")
    for header in ("network", "N", "rank", "world"):
        table.add_column(header)
    for header in ("plain loop, candidates/s", "rledit, candidates/s", "ratio"):
        table.add_column(header, justify="right")
    rows = []
    for shape in SHAPES:
        for world in ("shift", "mask"):
            ours, plain, n = _linear_pair(shape, world)
            rows.append(_compare(table, str(shape), n, shape.rank, world, ours, plain, repeats))
    for target in CONV_TARGETS:
        for candidates in (1, 16):
            for world in ("shift", "mask"):
                ours, plain, n = _conv_pair(target, candidates, 4, world)
                rows.append(
                    _compare(table, f"ResNet-20 {target}, 300 x 3x32x32", n, 4, world, ours, plain, repeats)
                )
    slowest = min(rows, key=lambda row: row["ratio"])
    which = f"{slowest['network']}, {slowest['world']}, N = {slowest['N']}"
    note = f"Smallest ratio: {slowest['ratio']:.2f} ({which})."
    write("scoring", "python -m benchmarks.scoring", table, {"rows": rows}, note)
    print(note)


Run = Callable[[], Tensor]


def _factors(task: rledit.Task, n: int, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        name: (
            0.1 * weight.std() * torch.randn(n, weight.shape[0], rank),
            torch.randn(n, rank, weight.shape[1]),
        )
        for name, weight in task.weights().items()
    }


def _linear_pair(shape: Shape, world: str) -> tuple[Run, Run, int]:
    model = MLP(shape).eval()
    inputs = torch.randn(shape.samples, shape.inputs).relu()
    labels = torch.randint(0, shape.classes or shape.outputs, (shape.samples,))
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    task = rledit.Task(model, ["fc1"], samples, rledit.Unlearning())
    scorer = task.scorer("native")
    factors = _factors(task, shape.candidates, shape.rank)
    left, right = factors["fc1"]
    masks = list(samples.groups.values())
    weight, bias = model.fc1.weight.detach(), model.fc1.bias.detach()

    def plain() -> Tensor:
        counts = torch.empty(shape.candidates, len(masks), dtype=torch.int64)
        with torch.no_grad():
            for n in range(shape.candidates):
                delta = left[n] @ right[n]
                edited = weight + delta if world == "shift" else weight * (1 + delta)
                x = F.linear(inputs, edited, bias)
                if model.fc2 is not None:
                    x = model.fc2(F.relu(x))
                hits = x.argmax(1) == labels
                for g, mask in enumerate(masks):
                    counts[n, g] = (hits & mask).sum()
        return counts

    return lambda: scorer.score(factors, world).counts.correct, plain, shape.candidates


def _conv_pair(target: str, candidates: int, rank: int, world: str) -> tuple[Run, Run, int]:
    model = ResNetCIFAR(20).eval()
    inputs = torch.randn(300, 3, 32, 32)
    labels = torch.randint(0, 10, (300,))
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    task = rledit.Task(model, [target], samples, rledit.Unlearning())
    scorer = task.scorer("native")
    factors = _factors(task, candidates, rank)
    left, right = factors[target]
    masks = list(samples.groups.values())
    # The opponent caches too: it resumes the network right before the block that holds the target.
    stage, block = target.split(".")[:2]
    own = copy.deepcopy(model)
    weight = own.get_submodule(target).weight.data
    original = weight.clone()
    stages = [own.layer1, own.layer2, own.layer3]
    at = int(stage[-1]) - 1
    with torch.no_grad():
        x = F.relu(own.bn1(own.conv1(inputs)))
        for layer in stages[:at]:
            x = layer(x)
        for unit in stages[at][: int(block)]:
            x = unit(x)
    rest = [*stages[at][int(block) :], *(unit for layer in stages[at + 1 :] for unit in layer)]

    def plain() -> Tensor:
        counts = torch.empty(candidates, len(masks), dtype=torch.int64)
        with torch.no_grad():
            for n in range(candidates):
                delta = (left[n] @ right[n]).view_as(original)
                weight.copy_(original + delta if world == "shift" else original * (1 + delta))
                y = x
                for unit in rest:
                    y = unit(y)
                logits = own.linear(y.mean((2, 3)))
                hits = logits.argmax(1) == labels
                for g, mask in enumerate(masks):
                    counts[n, g] = (hits & mask).sum()
        return counts

    return lambda: scorer.score(factors, world).counts.correct, plain, candidates


def _compare(
    table: Table, network: str, n: int, rank: int, world: str, ours: Run, plain: Run, repeats: int
) -> dict[str, object]:
    a, b = ours(), plain()  # also the warm-up
    if int((a - b).abs().max()) > 2:
        raise SystemExit(f"{network} {world}: the counts differ: {a.tolist()} and {b.tolist()}")
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        times.append((_time(ours), _time(plain)))
    fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(p / o for o, p in times)
    table.add_row(network, str(n), str(rank), world, f"{n / slow:,.0f}", f"{n / fast:,.0f}", f"{ratio:.2f}")
    return {
        "network": network, "N": n, "rank": rank, "world": world, "plain": n / slow, "rledit": n / fast,
        "ratio": ratio,
    }  # fmt: skip


def _time(run: Run) -> float:
    """Seconds of one call; short ones are repeated to a twentieth of a second."""
    started = time.perf_counter()
    calls = 0
    while calls == 0 or time.perf_counter() - started < 0.05:
        run()
        calls += 1
    return (time.perf_counter() - started) / calls


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
