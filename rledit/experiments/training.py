"""Training in a run folder: progress, history, checkpoints, and what Ctrl-C leaves."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from ..objectives.metric_names import short_label, shown
from ..search import INTERRUPTED, Result, Row, Search
from .checkpoint import load_checkpoint, save_checkpoint
from .console import Console, progress_bar, standard_console, supervised_bar
from .folder import RunFolder
from .history import History

__all__ = ["CHECKPOINT_SECONDS", "NO_UPDATE", "seconds_of", "supervised_bar", "train"]

CHECKPOINT_SECONDS = 5.0
"""Seconds between checkpoints, which is what a killed run loses at most."""

NO_UPDATE = ("update", "candidates", "reward_mean", "reward_best")
"""Columns of a history without a row: the first policy blew up before anything was scored."""


def train(
    search: Search,
    folder: RunFolder,
    candidates: int,
    *,
    tensorboard: bool = False,
    console: Console | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> tuple[Result, History]:
    """Train up to a budget of candidates, going on from the folder's checkpoint if there is one.

    The first Ctrl-C lets the current update finish, saves a checkpoint and returns the best edit so far; the
    second one stops at once. Checkpoints are only saved between two updates, so resuming repeats an update
    that has been interrupted from its start. The last one is saved before the edit is chosen: nothing that
    happens afterwards costs the training.

    Args:
        search: fresh, or one that has trained already.
        folder: where history and checkpoints go.
        candidates: budget over the whole run, not only this call.
        tensorboard: also write TensorBoard events.
        console: for the progress bar; by default standard error.
        checkpoint_seconds: least time between two checkpoints.

    Raises:
        CheckpointError, ValueError: for a checkpoint that is damaged or belongs to another run.
        OSError: if the disk refuses; the checkpoint before is intact.
    """
    if folder.checkpoint.exists():
        search.load_state(*load_checkpoint(folder.checkpoint))
    history: History | None = None
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        save_checkpoint(folder.checkpoint, *search.state())
        saved = time.monotonic()

    def open_history(columns: list[str], rows: list[Row]) -> History:
        mirror = folder.tensorboard if tensorboard else None
        return History(columns, folder.history, mirror, rows)

    with (
        progress_bar(console or standard_console(), "editing", candidates) as show,
        _interruptible() as interrupted,
    ):
        if search.history:
            history = open_history(list(search.history[0]), search.history)
            history.rewrite()
            show(int(search.history[-1]["candidates"]), candidates, _figures(search.history[-1]))

        def on_update(row: Row) -> None:
            nonlocal history
            if history is None:
                history = open_history(list(row), [])
            history.append(row)
            show(int(row["candidates"]), candidates, _figures(row))
            done = row["candidates"] >= candidates or interrupted.is_set()
            if done or time.monotonic() - saved >= checkpoint_seconds:
                save()
            if interrupted.is_set():
                raise KeyboardInterrupt

        result = search.train(candidates, on_update)
    if result.stopped not in ("", INTERRUPTED):
        save()  # resuming need not find out again that this run is over
    return result, history or open_history(list(NO_UPDATE), [])


def seconds_of(result: Result, pretrain: float, started: float) -> dict[str, float]:
    """The times of a run for metrics.json. ``started``: ``time.perf_counter()`` when the session began."""
    return {
        "pretrain": pretrain,
        "edit": sum(result.seconds.values()),
        **result.seconds,
        "this_session": time.perf_counter() - started,
    }


def _figures(row: Row) -> str:
    """Reward, the objective's accuracies and candidates per second, for the progress bar."""
    accuracies = [
        f"{short_label(key)} {shown(key, value, digits=1)}"
        for key, value in row.items()
        if key.endswith("_accuracy")
    ]
    reward, rate = f"reward {row['reward_mean']:+.3f}", f"candidates/s {row['candidates_per_second']:,.0f}"
    return "  ".join([reward, *accuracies, rate])


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
