"""Who scores while the caller goes on: a thread beside the CPU's caller, a stream beside the GPU's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

import torch
from torch import Tensor

from .episodes import Outcome

Work = Callable[[Tensor], Outcome]


class Pending(Protocol):
    """An outcome under way."""

    def result(self) -> Outcome:
        """The outcome, waited for; or raises what the work has raised."""
        ...


class Worker(Protocol):
    """Does one piece of work after the other, beside its caller."""

    def submit(self, work: Work, actions: Tensor) -> Pending: ...

    def settle(self, pending: Sequence[Pending]) -> None:
        """Wait for them all; neither results nor errors are wanted any more."""
        ...

    def close(self) -> None: ...


class ThreadWorker:
    """A thread. The native core leaves Python's lock alone while it scores."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rledit-score")

    def submit(self, work: Work, actions: Tensor) -> Future[Outcome]:
        return self._executor.submit(_checked, work, actions)

    def settle(self, pending: Sequence[Pending]) -> None:
        wait([future for future in pending if isinstance(future, Future)])

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _checked(work: Work, actions: Tensor) -> Outcome:
    return work(actions).check()


class StreamWorker:
    """A CUDA stream of its own. Work is started by the caller, who returns at once, and runs on the GPU
    beside what the caller starts next, such as a policy's update; the outcome's tensors stay there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def submit(self, work: Work, actions: Tensor) -> Pending:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # it has still to make the actions
        try:
            # What is kept from step to step must not be of the caller's inference mode.
            with torch.cuda.stream(self._stream), torch.inference_mode(False), torch.no_grad():
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
