"""What the head of a network reads: its last features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .batch import Inputs, call
from .samples import Samples
from .seen import ADDED

HEAD_SAMPLES = 8
"""Samples of the first batch on which the head is looked for."""


@dataclass(frozen=True)
class Head:
    """A call of an ``nn.Linear`` that makes the logits.

    Attributes:
        name: name of the module in the model.
        module: the Linear.
        call: which of its calls in one forward pass, counted from the last: -1 is the last one.
    """

    name: str
    module: nn.Linear
    call: int


def last_features(model: nn.Module, inputs: Tensor | Samples, batch_size: int = 250) -> Tensor:
    """What the Linear that makes the logits reads, float64 [S, D] on the model's device.

    Which Linear that is shows in a run, see :func:`find_head`: the order in which modules are registered
    says nothing, and a model may have heads that are not used.

    Args:
        model: put in eval mode meanwhile.
        inputs: [S, ...], or samples with their inputs.
        batch_size: samples per forward pass.

    Raises:
        ValueError: see :func:`find_head`; also if the head's input does not have one row per sample.
    """
    # not inference mode: what it makes could not be learned from
    with torch.inference_mode(False), torch.no_grad(), eval_mode(model):
        parts = inputs.batches(batch_size) if isinstance(inputs, Samples) else inputs.split(batch_size)
        head: Head | None = None
        features = []
        for part in parts:
            if head is None:
                head = find_head(model, part[:HEAD_SAMPLES])
            features.append(_read(model, head, part))
        return torch.cat(features)


def find_head(model: nn.Module, inputs: Inputs) -> Head:
    """The Linear whose output is the logits; otherwise the last to run of those that the logits depend on.

    The first is found by comparing outputs, on one batch. The second, for a model that puts a softmax or a
    temperature behind its head, by changing the outputs one by one, from the last to the first.

    Raises:
        ValueError: if the model has no Linear, none of them runs, or the logits depend on none.
    """
    names = _linears(model)
    if not names:
        raise ValueError("model: expected an nn.Linear whose input can be probed, found none")
    if len(inputs) == 0:
        raise ValueError("inputs: expected at least one sample, got none")
    calls: list[tuple[nn.Linear, Tensor]] = []
    logits = _run(model, names, inputs, lambda module, output: calls.append((module, output)))
    if not calls:
        raise ValueError(
            f"model: expected an nn.Linear that runs; {', '.join(names.values())} "
            f"{'is' if len(names) == 1 else 'are'} not called by the model's forward"
        )
    found = _last_same(calls, logits)
    if found is None:
        order = range(len(calls) - 1, -1, -1)
        found = next((at for at in order if _matters(model, names, inputs, logits, at)), None)
    if found is None:
        ran = ", ".join(dict.fromkeys(names[module] for module, _ in calls))
        raise ValueError(
            f"model: its logits depend on no nn.Linear that runs ({ran}); there is no head to probe"
        )
    return _head_at(found, calls, names)


def logits_call(model: nn.Module, inputs: Tensor) -> Head | None:
    """The Linear whose output is the logits as they are; None if there is none.

    Args:
        model: in eval mode.
        inputs: [s, ...], at least one sample.
    """
    names = _linears(model)
    calls: list[tuple[nn.Linear, Tensor]] = []
    logits = _run(model, names, inputs, lambda module, output: calls.append((module, output)))
    found = _last_same(calls, logits)
    return None if found is None else _head_at(found, calls, names)


def _linears(model: nn.Module) -> dict[nn.Linear, str]:
    """The names of the model's own."""
    return {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(ADDED)
    }


@contextmanager
def head_inputs(head: Head) -> Iterator[list[Tensor]]:
    """What the head's module reads, call after call, while the model runs inside."""
    read: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        read.append((*arguments, *keywords.values())[0])

    handle = head.module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield read
    finally:
        handle.remove()


def features_of(head: Head, read: list[Tensor], count: int) -> Tensor:
    """Features from what :func:`head_inputs` saw of one batch, float64 [count, D]; ValueError if unfit."""
    if len(read) < -head.call:
        raise ValueError(f"model: {head.name or 'it'} runs for some inputs and not for others")
    features = read[head.call]
    if features.dim() < 2 or len(features) != count:
        raise ValueError(
            f"model: expected {head.name or 'its Linear'} to read one row per sample, [{count}, ...], "
            f"got {list(features.shape)}"
        )
    return features.flatten(1).to(torch.float64, copy=True)


def _read(model: nn.Module, head: Head, inputs: Inputs) -> Tensor:
    """The head's input for one batch, float64 [s, D]."""
    with head_inputs(head) as read:
        call(model, inputs.clone())
    return features_of(head, read, len(inputs))


def _run(
    model: nn.Module,
    linears: Mapping[nn.Linear, str],
    inputs: Inputs,
    after: Callable[[nn.Linear, Tensor], Tensor | None],
) -> Tensor:
    """The logits, with a hook on every Linear that sees its output and may replace it."""

    def hook(module: nn.Module, _: Any, output: Any) -> Tensor | None:
        assert isinstance(module, nn.Linear)
        return after(module, output) if isinstance(output, Tensor) else None

    handles = [module.register_forward_hook(hook) for module in linears]
    try:
        return logits_of(call(model, inputs.clone()))
    finally:
        for handle in handles:
            handle.remove()


def _last_same(calls: Sequence[tuple[nn.Linear, Tensor]], logits: Tensor) -> int | None:
    """The last of the calls whose output is the logits."""
    return next((at for at in range(len(calls) - 1, -1, -1) if _same(calls[at][1], logits)), None)


def _head_at(at: int, calls: Sequence[tuple[nn.Linear, Tensor]], names: Mapping[nn.Linear, str]) -> Head:
    module = calls[at][0]
    later = sum(other is module for other, _ in calls[at:])
    return Head(names[module], module, -later)


def _matters(
    model: nn.Module, linears: Mapping[nn.Linear, str], inputs: Inputs, logits: Tensor, call: int
) -> bool:
    """Whether the logits change with the output of one call."""
    seen = 0

    def change(_: nn.Linear, output: Tensor) -> Tensor | None:
        nonlocal seen
        seen += 1
        if seen - 1 != call:
            return None
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        return output + (1 + output.abs().max()) * noise.to(output.device, output.dtype)

    return not _same(_run(model, linears, inputs, change), logits)


def _same(output: Tensor, logits: Tensor) -> bool:
    if output.numel() != logits.numel():
        return False
    return output is logits or torch.equal(output.to(logits.dtype).flatten(), logits.flatten())


def logits_of(output: object) -> Tensor:
    """The logits in a model's output: a tensor, an object or a mapping with "logits", or a tuple that begins
    with them."""
    output = getattr(output, "logits", output)
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(output, (tuple, list)):
        output = next(iter(output), None)
    if not isinstance(output, Tensor):
        raise ValueError(f"model: expected it to return logits, got {type(output).__name__}")
    return output


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module is back in its own mode."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
