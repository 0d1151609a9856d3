"""One pass of a model over samples, and everything that audits read from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..heads import HEAD_SAMPLES, Head, eval_mode, features_of, find_head, head_inputs, logits_of
from ..memory_format import channels_last
from ..samples import Samples

GRID = 4
"""What a convolution makes of an image is averaged to at most this many places in each direction."""


@dataclass(frozen=True)
class Reading:
    """A model's outputs for samples, on the CPU.

    Attributes:
        logits: float64 [S, C].
        layers: the outputs of modules by name, float64 [S, D].
    """

    logits: Tensor
    layers: dict[str, Tensor] = field(default_factory=dict)
    _features: Tensor | None = None
    _headless: str = ""

    @property
    def predicted(self) -> Tensor:
        """The predicted classes, int64 [S]."""
        return self.logits.argmax(1)

    def features(self, layer: str | None = None) -> Tensor:
        """What the head reads, or the output of a layer, float64 [S, D], checked to be finite.

        Raises:
            ValueError: see :func:`rledit.heads.find_head`; also for numbers that are not finite.
        """
        if layer is None and self._features is None:
            raise ValueError(self._headless)
        found = self._features if layer is None else self.layers[layer]
        assert found is not None
        if not bool(found.isfinite().all()):
            raise ValueError(
                "model: its features are not finite"
                if layer is None
                else f"model: what {layer} makes is not finite"
            )
        return found


def read(
    model: nn.Module,
    inputs: Tensor | Samples,
    layers: Sequence[str] = (),
    *,
    features: bool = True,
    batch_size: int = 250,
) -> Reading:
    """Run a model once over samples. It is left as it was, its mode included.

    Outputs of convolutions [s, C, H, W] are averaged to at most 4 x 4 places, those of layers that run at
    every token [s, T, D] over the tokens: an attacker who had all of them would need more samples.

    Args:
        model: from inputs to logits [s, C], or to what holds them (see :func:`find_head`).
        inputs: [S, ...] on the model's device, or samples with their inputs.
        layers: names of modules whose outputs are read, those of the last call where there are several.
        features: whether to look for the head and read its inputs.
        batch_size: samples per forward pass.

    Raises:
        ValueError: for no inputs, an unknown module, one that does not run, or rows that are not samples.
    """
    modules = dict(model.named_modules())
    if unknown := [name for name in layers if name not in modules]:
        raise ValueError(f"layers: the model has no module called {unknown[0]!r}")
    parts = inputs.batches(batch_size) if isinstance(inputs, Samples) else inputs.split(batch_size)
    logits: list[Tensor] = []
    found: list[Tensor] = []
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    head: Head | None = None
    headless = ""
    # not inference mode: what it makes could not be learned from
    with torch.inference_mode(False), torch.no_grad(), eval_mode(model), ExitStack() as whole:
        for part in parts:
            if len(part) == 0:
                continue
            if not logits:
                whole.enter_context(channels_last(model, part))
            if features and head is None and not headless:
                try:
                    head = find_head(model, part[:HEAD_SAMPLES])
                except ValueError as error:
                    headless = str(error)
            with ExitStack() as stack:
                heads = stack.enter_context(head_inputs(head)) if head else []
                seen = {name: stack.enter_context(_outputs(modules[name])) for name in layers}
                batch = logits_of(model(part.clone()))
            if batch.dim() != 2 or len(batch) != len(part):
                raise ValueError(f"model: expected logits [{len(part)}, C], got {list(batch.shape)}")
            logits.append(batch.to("cpu", torch.float64))
            if head:
                found.append(features_of(head, heads, len(part)).cpu())
            for name, calls in seen.items():
                outputs[name].append(_rows(name, calls, len(part)))
    if not logits:
        raise ValueError("inputs: expected at least one sample, got none")
    return Reading(
        torch.cat(logits),
        {name: torch.cat(rows) for name, rows in outputs.items()},
        torch.cat(found) if found else None,
        headless or "features: they were not read",
    )


def selected(samples: Samples, mask: Tensor, batch_size: int = 1000) -> Tensor:
    """The inputs of some of the samples, by a bool mask [S], in their order."""
    parts, start = [], 0
    for batch in samples.batches(batch_size):
        parts.append(batch[mask[start : start + len(batch)].to(batch.device)])
        start += len(batch)
    return torch.cat(parts)


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen.append(output.detach().clone())  # what follows may work in place

    handle = module.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _rows(name: str, calls: list[Tensor], count: int) -> Tensor:
    """A module's output with one row per sample, float64 [count, D] on the CPU."""
    if not calls:
        raise ValueError(f"layers: {name} is not called by the model's forward")
    output = calls[-1]
    if output.dim() < 2 or len(output) != count:
        raise ValueError(
            f"layers: expected {name} to make one row per sample, [{count}, ...], got {list(output.shape)}"
        )
    if output.dim() == 4:
        height, width = (min(GRID, size) for size in output.shape[2:])
        output = F.adaptive_avg_pool2d(output, (height, width))
    elif output.dim() == 3:
        output = output.mean(1)
    return output.flatten(1).to("cpu", torch.float64)
