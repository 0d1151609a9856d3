"""What torch keeps globally, and how rledit keeps clear of it: random state, threads, modes.

Everything here may be used from several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import RLock, local

import numpy as np
import torch
from torch import Tensor

_SEEDING = RLock()
_ALONE = RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators (CPU, and ``device`` if CUDA) inside, restore their state afterwards.

    One thread at a time, so that each finds its own seed's numbers. For code that knows no other generator,
    such as a module's initialization; whatever takes a generator gets one of its own.
    """
    devices = [device] if device.type == "cuda" else []
    with _SEEDING, torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: it would seed other devices too, whose state is not being kept.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class _OneThread:
    """Counts who wants torch to keep to one thread, in all threads and in each."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._inside = 0
        self._threads = 1  # before the first went in
        self._own = local()  # OpenMP keeps the number by thread; one that is new inherits what is global

    def enter(self) -> None:
        with self._lock:
            depth = getattr(self._own, "depth", 0)
            if depth == 0:
                found = torch.get_num_threads()
                if self._inside == 0:
                    self._threads = found
                self._own.threads = self._threads if found == 1 else found
            self._own.depth = depth + 1
            self._inside += 1
            torch.set_num_threads(1)

    def leave(self) -> None:
        with self._lock:
            self._own.depth -= 1
            self._inside -= 1
            if self._own.depth == 0:
                torch.set_num_threads(self._own.threads)


_ONE_THREAD = _OneThread()


class _PlainDtype:
    """Counts who wants float32 as default dtype, which is global to the process; the last one puts back."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._inside = 0
        self._before = torch.float32

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.set_default_dtype(self._before)


_PLAIN_DTYPE = _PlainDtype()


def _after_fork() -> None:
    """Start afresh in a forked child, where no other thread is left to finish what it was doing."""
    global _SEEDING, _ALONE, _ONE_THREAD, _PLAIN_DTYPE
    _SEEDING = RLock()
    _ALONE = RLock()
    _ONE_THREAD = _OneThread()
    _PLAIN_DTYPE = _PlainDtype()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def alone() -> Iterator[None]:
    """One thread at a time, of all that ask: inside, what a library keeps for the whole process may change,
    if it is put back."""
    with _ALONE:
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: small products are not worth sharing, and waiting for a second core that is
    busy elsewhere can take a hundred times as long as the work."""
    counter = _ONE_THREAD
    entered = False
    try:
        counter.enter()
        entered = True
        yield
    finally:
        if entered:
            counter.leave()


def plain_modes(grad: bool = False) -> AbstractContextManager[object]:
    """torch's modes as rledit expects them, whatever the caller has switched on: no inference mode, no
    autocast, float32 as default dtype of new tensors, the CPU as default device, and gradients as asked.

    The default dtype is global to the process, so other threads see float32 meanwhile; it is changed only
    where it differs.
    """
    made = torch.empty(0)  # tells of three modes at once, in a tenth of the time that asking for each takes
    others = (
        made.dtype != torch.float32
        or not made.is_cpu
        or made.is_inference()
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
    )
    return _plain_modes(grad) if others else torch.set_grad_enabled(grad)


@contextmanager
def _plain_modes(grad: bool) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(grad))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        counter = _PLAIN_DTYPE
        counter.enter()
        stack.callback(counter.leave)
        yield


# Right before a call of the native core, arithmetic on the CPU is done in NumPy: torch's OpenMP threads would
# go on spinning for milliseconds, on the cores that the core is about to use.


def all_finite(values: Tensor) -> bool:
    """Whether there is neither NaN nor infinity; waits for a GPU."""
    if values.device.type != "cpu":
        return bool(values.isfinite().all())
    return bool(np.isfinite(values.detach().numpy()).all())


def scaled(values: Tensor, gain: float) -> Tensor:
    """``gain * values``, contiguous float32."""
    if values.device.type != "cpu":
        return (gain * values).contiguous()
    return torch.from_numpy(np.float32(gain) * values.numpy())


def dense(values: Tensor) -> Tensor:
    """The values, contiguous."""
    if values.device.type != "cpu":
        return values.contiguous()
    return torch.from_numpy(np.ascontiguousarray(values.numpy()))


def clipped(values: Tensor, bound: float) -> Tensor:
    """Values within ``[-bound, bound]``; ValueError for NaN. On a GPU it waits for them."""
    values = values.detach()
    if values.device.type != "cpu":
        if bool(values.isnan().any()):
            raise ValueError("actions: expected numbers, got NaN")
        return values.clamp(-bound, bound)
    numbers = values.numpy()
    if np.isnan(numbers).any():
        raise ValueError("actions: expected numbers, got NaN")
    return torch.from_numpy(np.clip(numbers, -bound, bound))
