"""The last layer of BERT-like encoders as a network that can be edited."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU(approximate="tanh"),
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def activation_of(name: str) -> nn.Module:
    """The activation that Hugging Face calls so.

    Raises:
        NotImplementedError: for any that is not known.
    """
    if name not in _ACTIVATIONS:
        raise NotImplementedError(f"activation: expected one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]()


class SelfAttention(nn.Module):
    """Multi-head self-attention, the residual sum and the norm behind it: float32 [S, T, D] -> the same."""

    def __init__(self, width: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.heads = heads

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            layer(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [S, heads, T, D / heads]
            for layer in (self.query, self.key, self.value)
        )
        # Finite: with minus infinity a text without tokens would become NaN. exp(-1e4) is 0 anyway.
        bias = (mask - 1.0).unsqueeze(1).unsqueeze(1) * 1e4
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.norm(self.output(mixed.transpose(1, 2).flatten(2)) + hidden)  # type: ignore[no-any-return]


class BertLayer(nn.Module):
    """One encoder layer of BERT (J. Devlin et al., NAACL 2019) in plain modules, without dropout.

    All six matrices are ``nn.Linear`` modules that can be targets: ``attention.query``, ``attention.key``,
    ``attention.value``, ``attention.output``, ``intermediate`` and ``output``. ``torch.fx`` can trace it.

    Args:
        width: D, a multiple of ``heads``.
        heads: number of attention heads.
        inner: the width of ``intermediate``.
        activation: behind ``intermediate``; a name that Hugging Face uses.
        epsilon: epsilon of the layer norms.

    Raises:
        NotImplementedError: for another activation.
    """

    def __init__(
        self, width: int, heads: int, inner: int, activation: str = "gelu", epsilon: float = 1e-12
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, epsilon)
        self.intermediate = nn.Linear(width, inner)
        self.activation = activation_of(activation)
        self.output = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """``hidden`` float32 [S, T, D], ``mask`` float32 [S, T] with 1 for a token -> float32 [S, T, D]."""
        attended = self.attention(hidden, mask)
        inner = self.activation(self.intermediate(attended))
        return self.norm(self.output(inner) + attended)  # type: ignore[no-any-return]


class LastBlock(nn.Module):
    """An encoder's last layer, pooling and a head: what an edit of that layer or that head has to run.

    Input: float32 [S, T, D + 1] of :meth:`rledit.zoo.models.SentenceEncoder.before_last_block`: the hidden
    states before the layer, and as last channel the attention mask. Output: the head's float32 logits [S, C].

    Targets are called ``block.output``, ``block.attention.value``, ``head.fc1`` and so on.

    Args:
        block: the layer.
        head: from embeddings [S, D] to logits; used as it is, not copied.
        normalize: whether embeddings are scaled to length 1 before the head.
    """

    def __init__(self, block: BertLayer, head: nn.Module, normalize: bool = True) -> None:
        super().__init__()
        self.block = block
        self.head = head
        self.normalize = normalize

    def embed(self, packed: Tensor) -> Tensor:
        """What the head sees: float32 [S, T, D + 1] -> float32 [S, D]."""
        mask = packed[..., -1]
        return pool(self.block(packed[..., :-1], mask), mask, self.normalize)

    def forward(self, packed: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(packed))
        return logits


def pool(hidden: Tensor, mask: Tensor, normalize: bool) -> Tensor:
    """The mean of hidden states [S, T, D] where the mask [S, T] is 1; zeros where it is 0 everywhere."""
    shares = mask / mask.sum(1, keepdim=True).clamp(min=1.0)
    # A product of matrices: the masked states would be as large as the states themselves.
    mean = (shares.unsqueeze(1) @ hidden).squeeze(1)
    return F.normalize(mean, dim=-1) if normalize else mean
