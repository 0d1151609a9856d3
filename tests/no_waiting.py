"""Stand-ins for a GPU's streams and graphs: what a step may do on a GPU, checked without one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from rledit.ops import cuda_backend
from rledit.ops.cuda_backend import CudaKernels
from rledit.ops.gpu import GpuOps

META = torch.device("meta")


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Inside, ops on the meta device, which stands for a GPU, take nothing from the host and give nothing to
    it. Meta tensors have no values, so whatever would wait for one raises by itself."""
    with FromTheHost(), OneDevice():
        yield


class FromTheHost(TorchFunctionMode):
    """Tensors made of Python's numbers, and lists as indices, are copied to a GPU each time."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor):
            assert func is torch.as_tensor, f"{func.__name__} of a list"
            assert isinstance(args[0], Tensor), "as_tensor of a list"
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            indices = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(index, (list, np.ndarray)) for index in indices), "a list as an index"
        return func(*args, **(kwargs or {}))


class OneDevice(TorchDispatchMode):
    """Every tensor that an op reads or makes is on the meta device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, Tensor):
                assert tensor.device == META, f"{func} has a tensor on the host"
        return out


def on_meta(value: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A deep copy with all tensors on the meta device, as if the model had been on a GPU."""

    def move(self: Tensor, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            moved = self.detach().to(META)
            memo[id(self)] = nn.Parameter(moved, False) if isinstance(self, nn.Parameter) else moved
        found: Tensor = memo[id(self)]
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "__deepcopy__", move)
        patch.setattr(nn.Parameter, "__deepcopy__", move)
        return copy.deepcopy(value)


class Kernel:
    """A Triton kernel that is started and does nothing."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def idle_cuda(monkeypatch: pytest.MonkeyPatch) -> GpuOps:
    """The CUDA backend over an extension that does nothing."""

    class Extension:
        on_host = True

        def scratch_floats(self, *args: Any) -> int:
            return 16

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args: None

    monkeypatch.setattr(cuda_backend, "to_dlpack", lambda tensor: tensor)
    kernels = CudaKernels(Extension())  # type: ignore[arg-type]
    return GpuOps("cuda", (torch.float32,), lambda: True, lambda: kernels)


class Graph(TorchDispatchMode):
    """What ``torch.cuda.CUDAGraph`` does, on the CPU: remembers a step's ops with their very tensors, and
    does them again in the same memory. What a step keeps or computes in Python happens once, at the capture.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ops: list[Callable[[], None]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        kept = [tensor for tensor in tree_leaves(out) if isinstance(tensor, Tensor)]

        def again() -> None:
            for old, new in zip(kept, tree_leaves(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)

        self._ops.append(again)
        return out

    def add(self, op: Callable[[], None]) -> None:
        self._ops.append(op)

    def replay(self) -> None:
        for op in self._ops:
            op()


def graphs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Lets ``StepGraph`` capture on the CPU; the graphs made so far."""
    made: list[Graph] = []

    class Stream:
        def __init__(self, device: Any = None) -> None: ...
        def wait_stream(self, other: Any) -> None: ...

    def make() -> Graph:
        made.append(Graph())
        return made[-1]

    @contextlib.contextmanager
    def stream(chosen: Any) -> Iterator[None]:
        yield

    for name, value in {
        "Stream": Stream, "current_stream": Stream, "stream": stream, "CUDAGraph": make,
        "graph": lambda graph, stream, capture_error_mode: graph,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return made


class RecordedKernel:
    """A kernel of Triton's interpreter as one op of a :class:`Graph`."""

    def __init__(self, kernel: Any, graphs: list[Graph]) -> None:
        self._kernel = kernel
        self._graphs = graphs

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def start(*args: Any, **kwargs: Any) -> None:
            def run() -> None:
                with _disable_current_modes():
                    self._kernel[grid](*args, **kwargs)

            run()
            if self._graphs and torch.utils._python_dispatch._get_current_dispatch_mode() is self._graphs[-1]:
                self._graphs[-1].add(run)

        return start
