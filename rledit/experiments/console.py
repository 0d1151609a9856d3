"""What a run tells the person who waits for it: with rich where it is installed, in plain lines where not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

Show = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and the figures to show next to the bar."""


class Console(Protocol):
    """The part of ``rich.console.Console`` that is used."""

    def print(self, *objects: Any, **style: Any) -> None: ...


class PlainConsole:
    """Lines on standard error, without bars. ``quiet``: not even lines."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    def print(self, *objects: Any, **style: Any) -> None:
        if not self._quiet:
            print(*objects, file=sys.stderr)


def standard_console() -> Console:
    """A console on standard error; rich's where it is installed."""
    try:
        from rich.console import Console as RichConsole
    except ImportError:
        return PlainConsole()
    return RichConsole(stderr=True)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line as it stands: names in it are data, never markup. ``style``: of rich, such as ``red``."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bar(console: Console, label: str, total: int | None = None) -> Iterator[Show]:
    """One line with progress, figures and the time that remains; nothing on a :class:`PlainConsole`."""
    if isinstance(console, PlainConsole):
        yield lambda done, steps, figures: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:  # type: ignore[arg-type]  # a rich console, then
        task = progress.add_task(label, total=total, figures="")

        def show(done: int, steps: int, figures: str) -> None:
            progress.update(task, completed=done, total=steps, figures=figures)

        yield show


@contextlib.contextmanager
def supervised_bar(label: str, console: Console) -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar for :func:`rledit.zoo.training.train_classifier`."""
    with progress_bar(console, label) as show:
        yield lambda step, steps, _: show(step, steps, "")
