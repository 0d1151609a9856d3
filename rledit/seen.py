"""A model seen through something else, under the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

ADDED = "rledit_"
"""How the names of modules begin that are added to a model."""


class Seen(nn.Module):
    """A model with something before or behind it. Its modules and weights keep the names that they have in
    the model, so that an edit learned here is one of the model itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # Not registered: its parts are, under their own names.
        self.__dict__["_inner"] = model
        self._modules.update(model._modules)
        self._parameters.update(model._parameters)
        self._buffers.update(model._buffers)
        self.train(model.training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        inner = self.inner
        inner._parameters.update({name: self._parameters[name] for name in inner._parameters})
        inner._buffers.update({name: self._buffers[name] for name in inner._buffers})
        return self

    @property
    def inner(self) -> nn.Module:
        """The model itself."""
        model: nn.Module = self.__dict__["_inner"]
        return model
