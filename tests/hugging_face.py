"""Tiny random Hugging Face classifiers with a tokenizer of whole words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LENGTH = 32
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": LENGTH + 2,
    "pad_token_id": 0,
    # Far above BERT's: attention and activations must not be nearly linear for comparisons to mean a lot.
    "initializer_range": 0.5,
}


def save_tokenizer(folder: Path, words: Sequence[str]) -> None:
    import tokenizers
    import transformers

    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


def save_classifier(
    folder: Path, words: Sequence[str], model_type: str = "bert", labels: Sequence[str] = (), **changes: Any
) -> Path:
    """A random classifier with every bias and norm off its initial value."""
    import transformers

    names = list(labels) or ["LABEL_0", "LABEL_1"]
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=len(words) + len(SPECIAL),
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        **{**SIZES, **changes},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    save_tokenizer(folder, words)
    return folder
