"""Workers that score while the caller goes on: a thread on the CPU, a stream on a GPU."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

import torch
from torch import Tensor

from ..runtime import plain_modes
from .episodes import Outcome

Work = Callable[[Tensor], Outcome]


class Pending(Protocol):
    """An outcome under way."""

    def result(self) -> Outcome:
        """The outcome, waited for; or raises what the work has raised."""
        ...


class Worker(Protocol):
    """Does one piece of work after another, concurrently with its caller."""

    def submit(self, work: Work, actions: Tensor) -> Pending: ...

    def settle(self, pending: Sequence[Pending]) -> None:
        """Wait for them all; neither results nor errors are wanted any more."""
        ...

    def close(self) -> None: ...


class ThreadWorker:
    """A thread. The native core releases Python's lock while it scores.

    A forked child has no thread but the one that forked. Work is therefore finished before a fork, so that
    its result and the state that it changed are whole in the child, which starts a thread of its own.
    """

    def __init__(self) -> None:
        self._executor = _executor()
        self._under_way: Future[Outcome] | None = None  # the last one: the others come before it
        self._closed = False
        _WORKERS.add(self)

    def submit(self, work: Work, actions: Tensor) -> Future[Outcome]:
        self._under_way = self._executor.submit(_checked, work, actions)
        return self._under_way

    def settle(self, pending: Sequence[Pending]) -> None:
        wait([future for future in pending if isinstance(future, Future)])

    def close(self) -> None:
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)

    def before_fork(self) -> None:
        if self._under_way is not None and not threading.current_thread().name.startswith(_THREAD):
            wait([self._under_way])

    def after_fork(self) -> None:
        """Start a new thread in a forked child."""
        if not self._closed:
            self._executor = _executor()


_THREAD = "rledit-score"
_WORKERS: weakref.WeakSet[ThreadWorker] = weakref.WeakSet()


def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=_THREAD)


def _before_fork() -> None:
    for worker in list(_WORKERS):
        worker.before_fork()


def _after_fork() -> None:
    for worker in list(_WORKERS):
        worker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _checked(work: Work, actions: Tensor) -> Outcome:
    with plain_modes():
        return work(actions).check()


class StreamWorker:
    """A CUDA stream of its own. Work is started by the caller, who returns at once, and runs on the GPU
    during what the caller starts next, such as a policy's update; the outcome's tensors stay there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def submit(self, work: Work, actions: Tensor) -> Pending:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # it has still to make the actions
        try:
            # What is kept from step to step must not be of the caller's inference mode.
            with torch.cuda.stream(self._stream), plain_modes():
                outcome = work(actions)
                arrived = self._stream.record_event()
        except Exception as error:
            return _Failed(error)
        finally:
            # Their memory must not go to somebody else before this stream has read them.
            actions.record_stream(self._stream)
        return _Arriving(outcome, arrived, self._device)

    def settle(self, pending: Sequence[Pending]) -> None:
        if pending:
            self._stream.synchronize()

    def close(self) -> None:
        self._stream.synchronize()


class _Arriving:
    """What a stream is working on."""

    def __init__(self, outcome: Outcome, arrived: torch.cuda.Event, device: torch.device) -> None:
        self._outcome = outcome
        self._arrived = arrived
        self._device = device

    def result(self) -> Outcome:
        """Makes the current stream wait, and the host only for whether all values are finite."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._arrived)
        for tensor in self._outcome.tensors():
            tensor.record_stream(stream)
        return self._outcome.check()


class _Failed:
    """What could not be started."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self) -> Outcome:
        raise self._error


def make_worker(device: torch.device) -> Worker:
    return StreamWorker(device) if device.type == "cuda" else ThreadWorker()
