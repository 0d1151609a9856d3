"""Texts as batches of tokens for a Hugging Face model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Progress = Callable[[int, int], None]
"""Called after every batch with the texts done so far and the texts in all."""


def token_batches(
    model: Any, tokenizer: Any, texts: list[str], max_tokens: int, size: int, progress: Progress | None = None
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Rows int64 [B] and what the model takes, longest texts first, without texts that have no token.

    Args:
        model, tokenizer: Hugging Face's.
        texts: S strings.
        max_tokens: texts are cut off behind so many tokens, special ones included.
        size: B at most; texts of similar length run together.
        progress: see :data:`Progress`.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {size}")
    if not texts:
        return  # which tokenizers of some versions refuse
    # Half a surrogate pair is legal in a str and in JSON, but has no UTF-8 that a tokenizer could read.
    readable = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    tokens = tokenizer(
        readable, truncation=True, max_length=max_tokens, padding=False, return_attention_mask=True
    )
    lengths = torch.tensor([len(ids) for ids in tokens["input_ids"]], dtype=torch.int64)
    order = torch.argsort(lengths, descending=True, stable=True)
    order = order[lengths[order] > 0]
    device = next(model.parameters()).device
    done = len(texts) - len(order)
    columns = _columns(model, tokenizer, tokens)
    for rows in torch.split(order, size) if len(order) else ():
        width = int(lengths[rows[0]])
        yield (
            rows,
            {
                name: _padded([values[row] for row in rows.tolist()], width, padding).to(device)
                for name, (values, padding) in columns.items()
            },
        )
        done += len(rows)
        if progress is not None:
            progress(done, len(texts))


def _columns(
    model: Any, tokenizer: Any, tokens: Mapping[str, list[list[int]]]
) -> dict[str, tuple[list[list[int]], int]]:
    """Per argument of the model: its values per text, and what pads them."""
    padding = {
        "input_ids": tokenizer.pad_token_id,
        "token_type_ids": tokenizer.pad_token_type_id,
        "attention_mask": 0,
    }
    taken = inspect.signature(model.forward).parameters  # not all know token types
    return {name: (tokens[name], pad) for name, pad in padding.items() if name in tokens and name in taken}


def _padded(values: list[list[int]], width: int, padding: int) -> Tensor:
    return torch.tensor([row + [padding] * (width - len(row)) for row in values], dtype=torch.int64)
