"""The end of a Hugging Face sequence classifier as a network that can be traced, under the same names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import Architecture
from .bert import activation_of


class _Named(nn.Module):
    """Modules of another model, at the places that they have there. They are used as they are, not copied."""

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        super().__init__()
        for path in paths:
            place: nn.Module = self
            *above, last = path.split(".")
            for name in above:
                if name not in dict(place.named_children()):
                    place.add_module(name, nn.Module())
                place = place.get_submodule(name)
            place.add_module(last, model.get_submodule(path))

    def _at(self, path: str, value: Tensor) -> Tensor:
        out: Tensor = self.get_submodule(path)(value)
        return out


class LastLinear(_Named):
    """One Linear that makes the logits: float32 [S, D] -> [S, C]."""

    def __init__(self, model: nn.Module, path: str) -> None:
        super().__init__(model, [path])
        self._path = path

    def forward(self, features: Tensor) -> Tensor:
        return self._at(self._path, features)


class ClassifierHead(_Named):
    """What stands behind the last block: the first token's state, float32 [S, D] -> logits [S, C].

    Args:
        model: Hugging Face's.
        architecture: of it.
        more: further modules, for a network that begins earlier.

    Raises:
        NotImplementedError: for an activation that is not known.
    """

    def __init__(self, model: Any, architecture: Architecture, more: Iterable[str] = ()) -> None:
        super().__init__(model, [*more, *(name for name, _ in architecture.head)])
        self._head = [name for name, _ in architecture.head]
        self.activations = nn.ModuleList(
            activation_of(kind.format(**vars(model.config)) if "{" in kind else kind or "identity")
            for _, kind in architecture.head
        )

    def forward(self, first: Tensor) -> Tensor:
        for name, activation in zip(self._head, self.activations, strict=True):
            first = activation(self._at(name, first))
        return first


class ClassifierBlock(ClassifierHead):
    """The last block from behind the mixing of tokens, and the head.

    Input: float32 [S, 2, D], both of the first token: what attention has mixed, and the state before the
    block. No other token's plays a part any more, so a text of 64 tokens costs what one token costs.
    """

    def __init__(self, model: Any, architecture: Architecture, more: Iterable[str] = ()) -> None:
        last = len(model.get_submodule(architecture.layers)) - 1
        self_block = f"{architecture.layers}.{last}"
        parts = [architecture.mixed, architecture.attended, architecture.inner, architecture.output]
        names = [f"{self_block}.{part}" for part in (*parts, architecture.norm)]
        super().__init__(model, architecture, [*more, *names])
        self._block = names
        kind = getattr(model.config, architecture.activation)
        self.block_activation = activation_of(kind if isinstance(kind, str) else repr(kind))

    def forward(self, packed: Tensor) -> Tensor:
        return super().forward(self._feed(packed[:, 0], packed[:, 1]))

    def _feed(self, mixed: Tensor, state: Tensor) -> Tensor:
        """The first token's state behind the block, [S, D]."""
        dense, attended, inner, output, norm = self._block
        attention = self._at(attended, self._at(dense, mixed) + state)
        return self._at(norm, self._at(output, self.block_activation(self._at(inner, attention))) + attention)


class ClassifierAttention(ClassifierBlock):
    """The whole last block and the head, as far as the first token depends on it.

    Input: float32 [S, T, D + 1]: the states before the block, and as last channel the attention mask.
    """

    def __init__(self, model: Any, architecture: Architecture) -> None:
        layers = model.get_submodule(architecture.layers)
        names = [f"{architecture.layers}.{len(layers) - 1}.{part}" for part in architecture.mixing]
        super().__init__(model, architecture, names)
        self._mixing = names
        self.heads = int(model.config.num_attention_heads)

    def forward(self, packed: Tensor) -> Tensor:
        states, mask = packed[..., :-1], packed[..., -1]
        query, key, value = (
            self._at(name, of).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [S, heads, T, D / heads]
            for name, of in zip(self._mixing, (states[:, :1], states, states), strict=True)
        )
        # Finite: with minus infinity a text without tokens would become NaN. exp(-1e4) is 0 all the same.
        bias = (mask - 1.0).unsqueeze(1).unsqueeze(1) * 1e4
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return ClassifierHead.forward(self, self._feed(mixed.transpose(1, 2).flatten(1), states[:, 0]))


@torch.no_grad()
def pack(states: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """The input of :class:`ClassifierAttention`, of ``tokens``, from states [B, t, D] and mask [B, t]."""
    kept = mask.to(states).unsqueeze(-1)
    packed = torch.cat([states * kept, kept], dim=-1)
    return F.pad(packed, (0, 0, 0, tokens - packed.shape[1]))
