"""A model as a function of one argument, its inputs, whatever it is called with and whatever it gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..batch import Batch, Inputs, arguments_of, call, tensors_of
from ..readouts import NAME, Readout, readout_for
from ..seen import Seen


class Called(Seen):
    """From inputs to logits [S, C].

    Args:
        model: in eval mode.
        inputs: some samples, which show what it is called with.
        readout: from its output to logits.
    """

    takes_batch = True

    def __init__(self, model: nn.Module, inputs: Inputs, readout: Readout) -> None:
        super().__init__(model)
        self._spec = inputs.spec if isinstance(inputs, Batch) else None
        self._names = [name for name, _ in tensors_of(inputs)]
        self.add_module(NAME, readout)

    def forward(self, inputs: Any) -> Tensor:
        args, kwargs = ((inputs,), {}) if self._spec is None else arguments_of(self._spec, inputs)
        output = self.inner.forward(*args, **kwargs)
        # By name from a list: whoever traces this has a stand-in for the inputs, which cannot be asked.
        named = {"": inputs} if self._spec is None else {name: inputs[name] for name in self._names}
        logits: Tensor = self.get_submodule(NAME)(output, named)
        return logits


def without_caches(model: nn.Module) -> None:
    """Have a private copy of a Hugging Face model keep no keys and values for later calls: there are none,
    and what is handed from layer to layer then is tensors alone."""
    for module in model.modules():
        config: Any = module.__dict__.get("config")
        if getattr(config, "use_cache", None):
            config.use_cache = False


@torch.no_grad()
def as_called(model: nn.Module, inputs: Inputs, readout: Readout | None) -> nn.Module:
    """The model itself where it takes one tensor and gives logits [S, C], else it as a :class:`Called`.

    Args:
        model: a private copy, in eval mode.
        inputs: some samples.
        readout: by default the one that its output asks for.

    Raises:
        TypeError: for a readout that is none.
        ValueError: where the model fails on the inputs.
    """
    if readout is not None and not isinstance(readout, Readout):
        raise TypeError(f"readout: expected a rledit.readouts.Readout, got {type(readout).__name__}")
    if readout is None:
        try:
            readout = readout_for(_output(model, inputs))
        except ValueError:
            if isinstance(inputs, Tensor):
                return model  # whoever runs it says more
            raise
    if readout is None and isinstance(inputs, Tensor):
        return model
    chosen = readout or Readout()
    some = next((p for p in model.parameters() if p.is_floating_point()), None)
    if some is not None:
        chosen = chosen.to(some.device)
        if some.dtype in (torch.float32, torch.float64):
            chosen = chosen.to(some.dtype)
    return Called(model, inputs, chosen).eval().requires_grad_(False)


def _output(model: nn.Module, inputs: Inputs) -> Any:
    try:
        return call(model, inputs.clone())
    except Exception as error:
        raise ValueError(f"model: it fails on {inputs}: {error}") from error
