"""The model file of a run on a sentence encoder holds what its edit changes, by the edit's names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rledit.edits import Edit, apply_to_file
from rledit.recipes.debiasing import classifier as classifiers
from rledit.recipes.debiasing.classifier import EncoderWithHead
from rledit.storage import fingerprint, read_tensors, write_tensors
from rledit.zoo.models import SentenceEncoder, ToxicityHead

if find_spec("transformers") is None:
    pytest.skip("sentence encoders need transformers", allow_module_level=True)

import transformers


def tiny_encoder() -> SentenceEncoder:
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=8,
    )  # fmt: skip
    return SentenceEncoder(transformers.BertModel(config), None, "tokenizer", 8, True)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> SentenceEncoder:
    encoder = tiny_encoder()
    monkeypatch.setattr(SentenceEncoder, "from_folder", lambda *_, **__: encoder)
    monkeypatch.setattr(classifiers, "Embeddings", lambda encoder, _: SimpleNamespace(encoder=encoder))
    return encoder


def load(path: Path, *layer: str) -> tuple[EncoderWithHead, float]:
    config: Any = SimpleNamespace(encoder="folder", layer=layer)
    return EncoderWithHead.load(config, None, path)  # type: ignore[arg-type]


CASES = [("head.fc1",), ("head.fc1", "head.fc2"), ("block.output",), ("block.attention.value", "head.fc2")]


@pytest.mark.parametrize("layer", CASES)
def test_apply_finds_the_layers_of_the_edit(
    encoder: SentenceEncoder, tmp_path: Path, layer: tuple[str, ...]
) -> None:
    edits_block = any(name.startswith("block.") for name in layer)
    embeddings: Any = SimpleNamespace(encoder=encoder)
    before = EncoderWithHead(ToxicityHead(8), embeddings, edits_block)
    before.save(tmp_path / "model.safetensors", 1.5)
    weights: dict[str, Tensor] = {n: before.model.get_submodule(n).weight for n in layer}  # type: ignore[misc]
    factors = {n: (torch.randn(len(w), 1), torch.randn(1, w.shape[1])) for n, w in weights.items()}
    edit = Edit(factors, "shift", 0.1, fingerprint(weights))
    apply_to_file(edit, tmp_path / "model.safetensors", tmp_path / "edited")

    loaded, seconds = load(tmp_path / "model.safetensors", *layer)
    assert seconds == 1.5
    edit.apply_(loaded.model)
    edited, _ = read_tensors(tmp_path / "edited")
    assert edited.keys() == loaded.model.state_dict().keys()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(edited[name], value), name


def test_files_of_the_first_versions(encoder: SentenceEncoder, tmp_path: Path) -> None:
    head = ToxicityHead(8)
    write_tensors(tmp_path / "model", head.state_dict(), {"pretrain_seconds": "2.0"})  # without "head."
    for layer in ("head.fc1", "block.output"):
        loaded, seconds = load(tmp_path / "model", layer)
        assert seconds == 2.0
        assert torch.equal(loaded.model.head.fc1.weight, head.fc1.weight)  # type: ignore[union-attr]
    weights = {"head.fc1": head.fc1.weight}
    edit = Edit({"head.fc1": (torch.ones(64, 1), torch.ones(1, 8))}, "shift", 1.0, fingerprint(weights))
    apply_to_file(edit, tmp_path / "model", tmp_path / "out")
    assert torch.equal(read_tensors(tmp_path / "out")[0]["fc1.weight"], head.fc1.weight.detach() + 1)


def test_another_encoder_is_noticed(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings: Any = SimpleNamespace(encoder=encoder)
    EncoderWithHead(ToxicityHead(8), embeddings, True).save(tmp_path / "model", 0.0)
    load(tmp_path / "model", "block.output")
    other = tiny_encoder()
    monkeypatch.setattr(SentenceEncoder, "from_folder", lambda *_, **__: other)
    with pytest.raises(ValueError, match="another encoder"):
        load(tmp_path / "model", "block.output")
