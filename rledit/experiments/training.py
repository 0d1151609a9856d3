"""Training in a run folder: progress, history, checkpoints, and what Ctrl-C leaves."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..ppo import PPO, Result
from ..ppo.trainer import Row
from .checkpoint import load_checkpoint, save_checkpoint
from .folder import RunFolder
from .history import History

CHECKPOINT_SECONDS = 5.0
"""Between checkpoints: what a killed run loses at most."""


def train(
    ppo: PPO,
    folder: RunFolder,
    candidates: int,
    *,
    tensorboard: bool = False,
    console: Console | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> tuple[Result, History]:
    """Train up to a budget of candidates, going on from the folder's checkpoint if there is one.

    The first Ctrl-C lets the update under way finish, keeps its checkpoint and returns the best edit so far;
    the second one stops at once.

    Raises:
        CheckpointError, ValueError: for a checkpoint that is damaged or belongs to another run.
        OSError: if the disk refuses; the checkpoint before is intact.
    """
    if folder.checkpoint.exists():
        ppo.load_state(*load_checkpoint(folder.checkpoint))
    history: History | None = None
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        save_checkpoint(folder.checkpoint, *ppo.state())
        saved = time.monotonic()

    def open_history(columns: list[str], rows: list[Row]) -> History:
        mirror = folder.tensorboard if tensorboard else None
        return History(columns, folder.history, mirror, rows)

    with _Bar(candidates, console) as bar, _interruptible() as interrupted:
        if ppo.history:
            history = open_history(list(ppo.history[0]), ppo.history)
            history.rewrite()
            bar.show(ppo.history[-1])

        def on_update(row: Row) -> None:
            nonlocal history
            if history is None:
                history = open_history(list(row), [])
            history.append(row)
            bar.show(row)
            if interrupted.is_set():
                raise KeyboardInterrupt
            if time.monotonic() - saved >= checkpoint_seconds:
                save()

        result = ppo.train(candidates, on_update)
    save()
    return result, history or open_history(list(NO_UPDATE), [])


def seconds_of(result: Result, pretrain: float, started: float) -> dict[str, float]:
    """The times of a run for metrics.json; ``started``: ``time.perf_counter()`` before :func:`train`."""
    return {
        "pretrain": pretrain,
        "edit": sum(result.seconds.values()),
        **result.seconds,
        "this_session": time.perf_counter() - started,
    }


@contextlib.contextmanager
def supervised_bar(label: str, console: Console) -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar for :func:`rledit.zoo.training.train_classifier`."""
    with Progress(console=console) as progress:
        task = progress.add_task(label, total=None)
        yield lambda step, steps, _: progress.update(task, completed=step, total=steps)


NO_UPDATE = ("update", "candidates", "reward_mean", "reward_best")
"""Columns of a history without a row: the first policy blew up before anything was scored."""


class _Bar(contextlib.AbstractContextManager["_Bar"]):
    """One line: progress, reward, the objective's figures, candidates per second."""

    def __init__(self, candidates: int, console: Console | None) -> None:
        self._progress = Progress(
            TextColumn("editing"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("editing", total=candidates, figures="")

    def show(self, row: Row) -> None:
        shown = {
            "reward": f"{row['reward_mean']:+.3f}",
            **{
                name.removesuffix("_accuracy"): f"{100 * value:.1f}%"
                for name, value in row.items()
                if name.endswith("_accuracy")
            },
            "candidates/s": f"{row['candidates_per_second']:,.0f}",
        }
        text = "  ".join(f"{name} {value}" for name, value in shown.items())
        self._progress.update(self._task, completed=row["candidates"], figures=text)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first SIGINT sets; the handler before is back for the second one."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may set handlers
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(signum: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
