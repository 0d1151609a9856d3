"""Jobs over processes, each with its share of the cores; a process that dies costs its own job only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Generic, TypeVar

J = TypeVar("J")

ATTEMPTS = 2
"""How often a job is tried in all if its process dies: a machine may have been short of memory."""


@dataclass(frozen=True)
class Done(Generic[J]):
    """How a job has ended.

    Attributes:
        job: the job that ended.
        result: what it gave; None where it failed.
        error: why it failed, else "".
    """

    job: J
    result: Any
    error: str = ""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def carry_out(
    run: Callable[[J], Any],
    jobs: Iterable[J],
    workers: int,
    on_done: Callable[[Done[J]], Iterable[J]],
) -> None:
    """Run jobs, and those that follow from them, until none is left.

    A single worker is this process itself. Each of several is a process of its own, with an equal share of
    the cores: a process that has died twice at the same job counts as an error of the job, and a new one
    takes its place. An error of a job is reported to ``on_done``. All processes
    end on Ctrl-C, on an error of ``on_done``, and if this one is killed.

    Args:
        run: a function that can be imported, of a job that can be pickled.
        jobs: those that can start at once, in order.
        workers: at least 1.
        on_done: called here, after each job; gives the jobs that may start now.
    """
    if workers == 1:
        _here(run, jobs, on_done)
        return
    threads = max(1, cores() // workers)
    waiting = [(job, 1) for job in jobs]
    idle = [_Worker(threads) for _ in range(workers)]
    busy: dict[Future[Any], tuple[_Worker, J, int]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                job, attempt = waiting.pop(0)
                worker = idle.pop()
                busy[worker.start(run, job)] = worker, job, attempt
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, job, attempt = busy.pop(future)
                idle.append(worker)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    worker.replace()
                    if attempt < ATTEMPTS:
                        waiting.insert(0, (job, attempt + 1))
                        continue
                    done = Done(job, None, f"its process died {attempt} times, perhaps for lack of memory")
                elif isinstance(error, Exception):
                    done = Done(job, None, _said(error))
                elif error is not None:
                    raise error
                else:
                    done = Done(job, future.result())
                waiting.extend((more, 1) for more in on_done(done))
    finally:
        for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
            worker.end()


def _here(run: Callable[[J], Any], jobs: Iterable[J], on_done: Callable[[Done[J]], Iterable[J]]) -> None:
    waiting = list(jobs)
    while waiting:
        job = waiting.pop(0)
        try:
            done = Done(job, run(job))
        except Exception as error:
            done = Done(job, None, _said(error))
        waiting.extend(on_done(done))


def _said(error: Exception) -> str:
    known = isinstance(error, (ValueError, OSError, FloatingPointError, TypeError))
    return str(error) if known else f"{type(error).__name__}: {error}"


class _Worker:
    """One process, that is started with its first job."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        # Not forked: torch's and the core's threads do not outlive a fork.
        return ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_limit, initargs=(self._threads,)
        )

    def start(self, run: Callable[[J], Any], job: J) -> Future[Any]:
        return self._pool.submit(run, job)

    def replace(self) -> None:
        self.end()
        self._pool = self._new()

    def end(self) -> None:
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _limit(threads: int) -> None:
    """Set up a worker before its first job: its threads, and an end when its parent ends."""
    Thread(target=_follow, daemon=True).start()
    import torch

    from .. import _native

    torch.set_num_threads(threads)
    _native.set_num_threads(threads)


def _follow() -> None:
    """Ends a worker whose parent was killed: nothing would take its result, or ever end it."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
