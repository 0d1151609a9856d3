"""Sentence embeddings from a Hugging Face encoder.

The pooling is that of N. Reimers, I. Gurevych, "Sentence-BERT", EMNLP 2019: the mean over a text's tokens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...storage.files import Json
from ...storage.fingerprint import fingerprint
from .bag_of_words import check_texts
from .bert import BertLayer, LastBlock, pool
from .encoder_files import positions, read_encoder, tokenizer_hash
from .tokens import Progress, token_batches

BERT_LIKE = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
"""Model types whose last layer :meth:`SentenceEncoder.last_block` can take over."""


class SentenceEncoder:
    """Texts to embeddings. Make one with :meth:`from_folder`.

    Attributes:
        width: D.
        max_tokens: texts are cut off after this many tokens, special ones included.
        normalize: whether embeddings have length 1.
        model_type: Hugging Face's name for the architecture, such as ``"bert"``.
    """

    def __init__(self, model: Any, tokenizer: Any, identity: str, max_tokens: int, normalize: bool) -> None:
        """``model`` and ``tokenizer``: Hugging Face's; ``identity``: a hash of the tokenizer's files."""
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._identity = identity
        self.max_tokens = max_tokens
        self.normalize = normalize
        self.model_type: str = model.config.model_type
        self.width: int = model.config.hidden_size

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        *,
        max_tokens: int = 64,
        normalize: bool = True,
        device: str | torch.device = "cpu",
    ) -> SentenceEncoder:
        """Read an encoder that ``save_pretrained`` or a download has left in a folder; nothing is fetched.

        Only safetensors are read and no code of the folder is run. Half precision becomes float32.

        Args:
            path: a folder with ``config.json``, ``model.safetensors`` and the tokenizer's files.
            max_tokens: see the attribute; at most what the model has positions for. Time and the size of
                :meth:`before_last_block` grow with it; whether a comment is toxic, its first 64 tokens tell
                almost as well as 128.
            normalize: see the attribute.
            device: where to compute.

        Raises:
            ModuleNotFoundError: the package transformers is not installed.
            FileNotFoundError: there is no such folder, or a file is missing in it.
            ValueError: the files are damaged, do not fit together or are not an encoder; or ``max_tokens`` is
                out of range.
        """
        folder = Path(path).expanduser().absolute()
        model, tokenizer = read_encoder(folder)
        limit = positions(model, tokenizer)
        if not 3 <= max_tokens <= limit:
            raise ValueError(f"max_tokens: expected 3..{limit} for {folder}, got {max_tokens}")
        return cls(model.float().to(device), tokenizer, tokenizer_hash(folder), max_tokens, normalize)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of weights and tokenizer: ``"sha256:"`` and 64 hex digits. Takes 0.1 s for 90 MB."""
        weights = fingerprint(
            {
                name: weight
                for name, weight in self._model.state_dict().items()
                if not name.startswith("pooler.")  # random where the file has none
            }
        )
        return f"sha256:{hashlib.sha256(f'{weights} {self._identity}'.encode()).hexdigest()}"

    @property
    def settings(self) -> dict[str, Json]:
        """All that its outputs depend on but the texts; a part of a cache's key."""
        return {
            "encoder": self.fingerprint,
            "max_tokens": self.max_tokens,
            "normalize": self.normalize,
        }

    @torch.no_grad()
    def embed(
        self, texts: Iterable[str], *, batch_size: int = 32, progress: Progress | None = None
    ) -> Tensor:
        """The mean of a text's last hidden states, of length 1 if :attr:`normalize`.

        Args:
            texts: S strings; empty ones are legal.
            batch_size: texts of similar length that run together.
            progress: see :data:`Progress`.

        Returns:
            float32 [S, D] on the CPU, in the order of the texts.

        Raises:
            TypeError: a text is not a string.
            ValueError: ``batch_size`` is below 1.
        """
        checked = list(check_texts("texts", texts))
        embeddings = torch.zeros(len(checked), self.width)
        for rows, batch in self._batches(checked, batch_size, progress):
            hidden = self._model(**batch).last_hidden_state
            embeddings[rows] = pool(hidden, batch["attention_mask"].to(hidden), self.normalize).cpu()
        return embeddings

    @torch.no_grad()
    def before_last_block(
        self, texts: Iterable[str], *, batch_size: int = 32, progress: Progress | None = None
    ) -> Tensor:
        """The inputs of :meth:`last_block`: hidden states before the last layer, and the attention mask.

        Args:
            texts, batch_size, progress: as for :meth:`embed`.

        Returns:
            float32 [S, T, D + 1] on the CPU with T = :attr:`max_tokens`; the last channel is 1 for a token
            and 0 for padding, whose hidden states are 0. A thousand texts of 64 tokens and 384 channels take
            99 MB: choose no more tokens than the texts have.

        Raises:
            TypeError, ValueError: as for :meth:`embed`.
            NotImplementedError: the encoder is not one of :data:`BERT_LIKE`.
        """
        self._check_bert_like()
        checked = list(check_texts("texts", texts))
        packed = torch.zeros(len(checked), self.max_tokens, self.width + 1)
        for rows, batch in self._batches(checked, batch_size, progress):
            hidden = self._model(**batch, output_hidden_states=True).hidden_states[-2]
            mask = batch["attention_mask"].to(hidden).unsqueeze(-1)
            packed[rows, : hidden.shape[1]] = torch.cat([hidden * mask, mask], dim=-1).cpu()
        return packed

    def last_block(self, head: nn.Module) -> LastBlock:
        """The encoder's last layer (a copy), pooling and ``head``, on the CPU.

        ``last_block(head)(before_last_block(texts))`` is ``head(embed(texts))``.

        Raises:
            NotImplementedError: the encoder is not one of :data:`BERT_LIKE`, or its layer has parts that
                :class:`BertLayer` has not.
        """
        self._check_bert_like()
        config = self._model.config
        block = BertLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.hidden_act if isinstance(config.hidden_act, str) else repr(config.hidden_act),
            config.layer_norm_eps,
        )
        weights = {}
        for name, weight in self._model.encoder.layer[-1].state_dict().items():
            module, _, kind = name.rpartition(".")
            if module not in _NAMES:
                raise NotImplementedError(f"model type {self.model_type!r}: its layer has a part {name!r}")
            weights[f"{_NAMES[module]}.{kind}"] = weight
        block.load_state_dict(weights)
        return LastBlock(block.eval().requires_grad_(False), head, self.normalize)

    def _check_bert_like(self) -> None:
        config = self._model.config
        if self.model_type not in BERT_LIKE:
            raise NotImplementedError(
                f"model type {self.model_type!r}: its last layer cannot be taken apart; "
                f"expected one of {', '.join(BERT_LIKE)}"
            )
        position = getattr(config, "position_embedding_type", None) or "absolute"
        if position != "absolute":
            raise NotImplementedError(
                f"model type {self.model_type!r} with {position!r} positions: expected 'absolute'"
            )

    def _batches(
        self, texts: list[str], size: int, progress: Progress | None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        return token_batches(self._model, self._tokenizer, texts, self.max_tokens, size, progress)


_NAMES = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
}
"""Modules of Hugging Face's layer and of ours."""
