"""A comparison from beginning to end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..experiments.console import Console, say, standard_console
from ..methods import METHODS, Budget
from .cells import UNEDITED, Cell, Cells
from .fronts import draw
from .measure import AUDIT_LISTS, RETRAIN, Job, compared_with_retrained, measure, retrained_path
from .table import write_tables
from .task import TaskSource
from .workers import Done, carry_out

logger = logging.getLogger("rledit")


def compare(
    tasks: Sequence[TaskSource],
    methods: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    out: str | Path,
    budget: Budget | None = None,
    audits: str = "standard",
    workers: int = 1,
    console: Console | None = None,
    command: str = "",
) -> list[dict[str, Any]]:
    """Measure methods on tasks from several seeds, and leave tables and figures.

    Every cell, a method on a task from a seed, is a file as soon as it is measured: the same call goes on
    where another was interrupted, and methods or seeds may be added later. The unedited and the retrained
    network come first, since audits compare with them.

    Args:
        tasks: what to compare on.
        methods: names of :data:`rledit.methods.METHODS`; none for all.
        seeds: seeds of the network, the split and the method alike.
        out: the folder, with ``table.csv``, ``table.md`` and ``fronts.png``.
        budget: what each method may spend.
        audits: a name of :data:`rledit.comparison.measure.AUDIT_LISTS`.
        workers: processes. Each has an equal share of the cores, on which the last bits of a result may
            depend.
        console: for progress; by default standard error.
        command: written into the table, so that readers can make it again.

    Returns:
        The rows of the table, as in ``table.csv``.

    Raises:
        ValueError: for an unknown method or list of audits, no seeds, a number out of range, or a folder of
            another comparison.
        FileExistsError, OSError: see :class:`Cells`.
        KeyboardInterrupt: for Ctrl-C; finished cells are kept, and the tables made of them.
    """
    chosen = check(tasks, methods, seeds, audits, workers)
    budget = budget or Budget()
    console = console or standard_console()
    sources = {source.label: source for source in tasks}
    config = {
        "tasks": {label: source.describe() for label, source in sources.items()},
        "budget": asdict(budget),
        "audits": audits,
    }
    with Cells(Path(out), config) as cells:  # type: ignore[arg-type]
        wanted = [Cell(label, name, seed) for label in sources for name in chosen for seed in seeds]

        def job(cell: Cell) -> Job:
            return Job(sources[cell.task], cell, cells.path, budget, audits)

        missing = [cell for cell in wanted if _lacks(cells, cell)]
        first, then = _ordered(missing)
        failed: dict[Cell, str] = {}
        finished = len(wanted) - len(missing)

        def on_done(done: Done[Job]) -> Iterator[Job]:
            nonlocal finished
            cell = done.job.cell
            finished += 1
            if done.error:
                failed[cell] = done.error
                say(console, f"{finished}/{len(wanted)}  {cell}: failed: {done.error}")
            else:
                cells.write(cell, done.result)
                say(console, f"{finished}/{len(wanted)}  {cell}: {done.result['seconds']:.1f} s")
            if cell.method == RETRAIN:  # whether or not it could be: the others go without, then
                waiting = then.pop((cell.task, cell.seed), [])
                run = [other for other in waiting if not done.error or cells.read(other) is None]
                finished += len(waiting) - len(run)  # these are there, and have nothing new to compare with
                yield from map(job, run)

        try:
            carry_out(measure, [job(cell) for cell in first], workers, on_done)
        finally:
            rows = cells.rows(wanted)
            if rows:
                write_tables(cells.path, rows, command)
                draw(cells.path / "fronts.png", rows)
        for cell, error in failed.items():
            logger.warning("%s could not be measured: %s", cell, error)
        return rows


def check(
    tasks: Sequence[TaskSource], methods: Sequence[str], seeds: Sequence[int], audits: str, workers: int
) -> list[str]:
    """The methods to measure, in the order of tables.

    Raises:
        ValueError: see :func:`compare`.
    """
    if not tasks or len({source.label for source in tasks}) < len(tasks):
        raise ValueError(f"tasks: expected several different ones or one, got {[t.label for t in tasks]}")
    if unknown := [name for name in methods if name not in (*METHODS, UNEDITED)]:
        raise ValueError(f"methods: expected some of {', '.join(METHODS)}; got {unknown[0]!r}")
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected different numbers of at least 0, got {list(seeds)}")
    if audits not in AUDIT_LISTS:
        raise ValueError(f"audits: expected one of {', '.join(AUDIT_LISTS)}; got {audits!r}")
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    asked = {*(methods or METHODS), UNEDITED, RETRAIN}
    return [name for name in (UNEDITED, *METHODS) if name in asked]


def _lacks(cells: Cells, cell: Cell) -> bool:
    """Whether a cell is to be measured. A retrained network that has gone is made again, and a cell that was
    measured without one is measured again, since there may be one now."""
    row = cells.read(cell)
    if row is None:
        return True
    if cell.method == RETRAIN:
        return not retrained_path(cells.path, cell).is_file()
    return not compared_with_retrained(row)


def _ordered(missing: Iterable[Cell]) -> tuple[list[Cell], dict[tuple[str, int], list[Cell]]]:
    """Cells that can start at once, retraining first; and those that wait for it, by task and seed."""
    missing = list(missing)
    retraining = {(cell.task, cell.seed) for cell in missing if cell.method == RETRAIN}
    first = [cell for cell in missing if cell.method == RETRAIN]
    then: dict[tuple[str, int], list[Cell]] = {}
    for cell in missing:
        key = cell.task, cell.seed
        if cell.method == RETRAIN:
            continue
        if key in retraining:
            then.setdefault(key, []).append(cell)
        else:
            first.append(cell)
    return first, then
