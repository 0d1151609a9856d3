"""The command: ``python -m benchmarks.peers``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

import tyro
from rich.console import Console

from ..record import write
from . import limit, report
from .compare import compare
from .reference import truth
from .shapes import PRECISIONS, QUICK, SHAPES, WORLDS, make

COMMAND = "python -m benchmarks.peers"


def main(
    shapes: Sequence[int] = (1, 2, 3, 4), quick: bool = False, compiled: bool = True, minutes: float = 20.0
) -> None:
    """Compare, and write benchmarks/results/peers.{md,json} unless only some of it was asked for.

    Args:
        shapes: numbers of the shapes.
        quick: one small shape, two turns.
        compiled: torch.compile too.
        minutes: about how long all of it may take on two cores.
    """
    chosen = [QUICK] if quick else [SHAPES[number - 1] for number in shapes]
    whole = chosen == SHAPES and compiled
    probe_seconds = 0.01 if quick else limit.PROBE_SECONDS
    machine = limit.probe(PRECISIONS, probe_seconds)
    budget = 1.0 if quick else 60 * minutes / (len(SHAPES) * len(WORLDS) * len(PRECISIONS))
    rows: list[report.Row] = []
    for shape in chosen:
        for world in WORLDS:
            problem = make(shape, world)
            known = truth(problem)
            for precision in PRECISIONS:
                row = compare(
                    problem,
                    precision,
                    known,
                    budget=budget,
                    most_turns=2 if quick else 9,
                    compiled=compiled,
                    inference=world == "shift" and shape == chosen[0],
                )
                rows.append(row)
                machine = machine.better(limit.probe(PRECISIONS, probe_seconds))
                report.place(rows, machine)
                print(report.line(row), file=sys.stderr)
        table, note = report.table(rows), report.note(rows, machine)
        if whole:  # after each shape, so that an interrupted run leaves what it has
            write(
                "peers",
                f"{COMMAND} --minutes {minutes:g}",
                table,
                {"machine_limits": asdict(machine), "rows": rows},
                note,
            )
    if not whole:
        Console().print(table)
    print(note)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
