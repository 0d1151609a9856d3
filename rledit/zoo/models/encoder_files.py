"""The folder of a Hugging Face encoder or classifier: read without a network, and checked before use."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


def read_encoder(folder: Path) -> tuple[Any, Any]:
    """Hugging Face's model and tokenizer. Only safetensors are read and no code of the folder is run.

    Raises:
        ModuleNotFoundError: the package transformers is not installed.
        FileNotFoundError: there is no such folder, or a file is missing in it.
        ValueError: the files are damaged, do not fit together or are not an encoder.
    """
    # What transformers does not find it fills with random numbers. Of an encoder we do not use the pooler.
    return _read(folder, "AutoModel", "an encoder", unused="pooler.")


def read_classifier(folder: Path) -> tuple[Any, Any]:
    """Hugging Face's model with a head for sequence classification, and its tokenizer; as
    :func:`read_encoder`.

    Raises:
        ModuleNotFoundError: the package transformers is not installed.
        FileNotFoundError: there is no such folder, or a file is missing in it.
        ValueError: the files are damaged, do not fit together, or are no fine-tuned classifier of texts.
    """
    return _read(folder, "AutoModelForSequenceClassification", "a classifier", unused="")


def _read(folder: Path, kind: str, what: str, unused: str) -> tuple[Any, Any]:
    """``unused``: how names of weights begin that may be absent; "" for none."""
    transformers = _transformers()
    _check_files(folder, what)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _no_progress_bars(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            model, report = getattr(transformers, kind).from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # of many kinds, by file and by version
        raise ValueError(f"{folder}: cannot be read as {what}: {error}") from error
    absent = sorted(name for name in report["missing_keys"] if not (unused and name.startswith(unused)))
    if absent:
        raise ValueError(f"{folder}: model.safetensors lacks {len(absent)} weights, such as {absent[0]}")
    _check_model(folder, model, tokenizer, what)
    return model, tokenizer


def tokenizer_hash(folder: Path) -> str:
    """A hash of the small files: they say how texts become tokens."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in {".json", ".txt", ".model"}:
            content = file.read_bytes()
            digest.update(f"{len(file.name)}:{file.name}|{len(content)}|".encode())
            digest.update(content)
    return digest.hexdigest()


def positions(model: Any, tokenizer: Any) -> int:
    """How many tokens the model can take."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        positions = table.num_embeddings - table.padding_idx - 1  # RoBERTa counts from there
    return int(min(positions, tokenizer.model_max_length))


def _transformers() -> ModuleType:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'sentence encoders and classifiers need the package transformers: pip install "rledit[text]"',
            name="transformers",
        ) from error
    module: ModuleType = transformers
    return module


@contextmanager
def _no_progress_bars(transformers: ModuleType) -> Iterator[None]:
    """Hide bars while reading, which takes a second; ``progress`` shows the rest."""
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _check_files(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected the folder of {what}, there is none")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: expected the folder of {what}, it has no config.json")
    if not any((folder / f"model.safetensors{suffix}").is_file() for suffix in ("", ".index.json")):
        raise FileNotFoundError(
            f"{folder}: expected model.safetensors (rledit never reads pickles such as pytorch_model.bin)"
        )


def _check_model(folder: Path, model: Any, tokenizer: Any, what: str) -> None:
    config = model.config
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ValueError(f"{folder}: expected finite weights, {name!r} has NaN or infinity")
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise ValueError(f"{folder}: expected {what}, got a {config.model_type!r} with a decoder")
    takes_mask = "attention_mask" in inspect.signature(model.forward).parameters
    if not (takes_mask and isinstance(getattr(config, "hidden_size", None), int)):
        raise ValueError(
            f"{folder}: expected {what} of texts with an attention mask, got a {config.model_type!r}"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{folder}: expected a tokenizer with a padding token, got one without")
    largest = max(tokenizer.get_vocab().values(), default=0)
    known = model.get_input_embeddings().num_embeddings
    if largest >= known:
        raise ValueError(f"{folder}: the tokenizer has token {largest}, the model knows 0..{known - 1}")
