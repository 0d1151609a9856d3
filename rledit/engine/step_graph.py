"""A step of a world as a CUDA graph: started once by the host, instead of kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .episodes import Episodes, Outcome

WARM_UPS = 3
"""Steps before the capture: kernels are tuned, libraries make their workspaces, constants go to the GPU."""


class StepGraph:
    """Replays one step for other actions of the same shape.

    Args:
        step: from actions on a GPU to an outcome there. It must not wait for the GPU, nor copy between it and
            the host, once it has run a few times; state that it keeps between calls must be changed in place.
        actions: any, of the shape to come.
    """

    def __init__(self, step: Callable[[Tensor], Outcome], actions: Tensor) -> None:
        self._actions = actions.clone()
        current = torch.cuda.current_stream(actions.device)
        side = torch.cuda.Stream(actions.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                step(self._actions)
        current.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # On the stream of the warm-ups, whose workspaces libraries keep; by default it would be one for the
        # whole process, of whatever GPU came first.
        with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
            self._outcome = step(self._actions)

    def __call__(self, actions: Tensor) -> Outcome:
        """The outcome, in memory of its own."""
        self._actions.copy_(actions)
        self._graph.replay()
        return self._outcome.clone()


class StepGraphs:
    """:meth:`Episodes.advance` as graphs, each captured at the first call with that number of candidates."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        self._graphs: dict[int, StepGraph] = {}  # by number of candidates

    def __call__(self, actions: Tensor) -> Outcome:
        candidates = len(actions)
        if candidates not in self._graphs:
            self._graphs[candidates] = StepGraph(self._episodes.advance, actions)
            self._episodes.begin(candidates, again=True)  # capturing has made steps of its own
        return self._graphs[candidates](actions)

    def clear(self) -> None:
        """Forget them all."""
        self._graphs.clear()


def check_capturable(device: torch.device, backend: str) -> None:
    """Raise ValueError unless steps that this backend scores on this device can be captured."""
    if device.type != "cuda":
        raise ValueError(f"graph: expected a model on a GPU for a CUDA graph, got one on {device}")
    if backend not in ("triton", "cuda"):
        raise ValueError(
            f"graph: expected the backend 'triton' or 'cuda', got {backend!r}, which waits for the GPU in "
            "every call"
        )
