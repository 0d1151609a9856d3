"""The command."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rledit.ops import Backend

from ..record import write
from . import steps
from .checks import sanitize, undecided_share, usable
from .problems import OPPONENTS, SHAPES, SHIFT_ONLY, WANTED, Problem, in_chunks

CHUNKS = (1, 4, 16, 64, 256, 1024)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Row = dict[str, Any]
Timer = Callable[[Callable[[], Any]], float]


def main(quick: bool = False, dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> int:
    """Check and time every GPU kernel.

    Args:
        quick: fewer repetitions, no sanitizer.
        dtypes: dtypes of the tensors: float32, float16, bfloat16.
    """
    console = Console(stderr=True)
    if unknown := [name for name in dtypes if name not in DTYPES]:
        console.print(f"dtypes: expected some of {', '.join(DTYPES)}; got {', '.join(unknown)}", style="red")
        return 2
    if not torch.cuda.is_available():
        console.print(
            "This measures GPU kernels and there is no GPU here. What they compile to, and what bounds them, "
            "python -m benchmarks.resources and docs/gpu.md say.",
            style="red",
        )
        return 2
    backends = usable()
    if not backends:
        console.print("No GPU backend can be used; the lines above say why.", style="red")
        return 2
    notes = {ops.name: "skipped" if quick else sanitize(ops.name) for ops in backends}
    repeats = 5 if quick else 30
    rows: list[Row] = []
    for name in dtypes:
        for shape in SHAPES:
            for world in ("shift", "mask"):
                problem = Problem(shape, world, DTYPES[name], "cuda")
                row = compare(problem, backends, partial(milliseconds, repeats=repeats), compiled=not quick)
                rows.append({"dtype": name, **row})
                console.print(rows[-1], highlight=False)
    timer = partial(milliseconds, repeats=repeats)
    whole = [row for ops in backends for row in steps.measure(timer, ops.name, "cuda")]
    device = torch.cuda.get_device_name()
    note = f"On {device}. Milliseconds of one call, medians; compute-sanitizer: {notes}."
    write(
        "gpu",
        "python -m benchmarks.gpu",
        table(rows),
        {"device": device, "sanitizer": notes, "rows": rows, "steps": whole},
        note,
        steps.table(whole),
    )
    bad = [name for name, said in notes.items() if said not in ("clean", "skipped", "not installed")]
    for name in bad:
        console.print(f"{name}: {notes[name]}", style="red", highlight=False)
    return 1 if bad else 0


def compare(problem: Problem, backends: list[Backend], timer: Timer, compiled: bool) -> Row:
    """Times of one problem; each backend is compared with exact counts first."""
    row: Row = {"shape": str(problem.shape), "world": problem.world, "times": {}}
    for ops in backends:
        takes = problem.activations.dtype == torch.float32 or ops.name == "triton"
        if not takes:
            continue
        row["undecided"] = undecided_share(ops, problem)
        tail = ops.prepare_tail(problem.tail)
        row["times"][ops.name] = timer(partial(tail.score, problem.candidates, WANTED))
    for name, count in OPPONENTS.items():
        if problem.world != "shift" and name in SHIFT_ONLY:
            continue
        row["times"][name] = best_chunk(count, problem, timer)
        if compiled:
            row["times"][f"compiled {name}"] = best_chunk(count, problem, timer, compiled=True)
    return row


def best_chunk(count: Callable[..., Tensor], problem: Problem, timer: Timer, compiled: bool = False) -> float:
    """The least time over numbers of candidates at a time; what does not fit into memory is left out."""
    times = []
    for chunk in CHUNKS:
        if chunk > 4 * problem.shape.candidates:
            break
        run = count
        if compiled:  # anew for each size, which is a constant then
            torch._dynamo.reset()
            run = torch.compile(count, dynamic=False, fullgraph=True)
        try:
            times.append(timer(partial(in_chunks, run, problem, chunk)))
        except torch.cuda.OutOfMemoryError:
            break
    return min(times)


def milliseconds(run: Callable[[], Any], repeats: int) -> float:
    """Median time on the GPU, after three calls that are not timed."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def table(rows: list[Row]) -> Table:
    """Ours, the best of the others, and by how much we are faster."""
    out = Table(title="score_tail on a GPU")
    for header in ("shape", "dtype", "world"):
        out.add_column(header)
    for header in ("triton, ms", "cuda, ms", "best of the others, ms", "which", "ratio"):
        out.add_column(header, justify="right")
    for row in rows:
        times = dict(row["times"])
        ours = {name: times.pop(name) for name in ("triton", "cuda") if name in times}
        which = min(times, key=lambda name: times[name])
        cells = [f"{ours[name]:.3f}" if name in ours else "" for name in ("triton", "cuda")]
        ratio = times[which] / min(ours.values())
        out.add_row(
            row["shape"], row["dtype"], row["world"], *cells, f"{times[which]:.3f}", which, f"{ratio:.2f}"
        )
    return out


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
