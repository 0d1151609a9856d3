"""Vocabulary, the toxicity classifiers on real comments, and the activation cache against damaged files."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rledit
from rledit.storage import cache as activation_cache
from rledit.storage.cache import cached
from rledit.storage.files import read_tensors, write_tensors
from rledit.zoo.data import split
from rledit.zoo.models import HEAD_HYPERPARAMETERS, MLP_HYPERPARAMETERS, ToxicityHead, ToxicityMLP, Vocabulary
from rledit.zoo.models.bag_of_words import words_of
from rledit.zoo.training import train_classifier

TEXTS = ["The cat sat.", "the CAT, the dog!", "a dog's life", "Bird"]


def auc(scores: Tensor, labels: Tensor) -> float:
    """How often a positive sample scores higher than a negative one; ties count half."""
    values, inverse = scores.unique(return_inverse=True)
    counts = torch.bincount(inverse, minlength=len(values)).double()
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse]
    positive = labels == 1
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


# --- words ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's cat", ["the", "cat's", "cat"]),
        ("DON\u2019T stop_it 4ever!", ["don't", "stop", "it", "4ever"]),
        ("'quoted' rock'n'roll o''clock", ["quoted", "rock'n'roll", "o", "clock"]),
        ("Stra\u00dfe \u00c9t\u00e9 e\u0301t\u00e9", ["strasse", "\u00e9t\u00e9", "\u00e9t\u00e9"]),
        ("\U0001d400\uff22\uff23 \u4f60\u597d", ["abc", "\u4f60\u597d"]),
        ("-- _ ' \u2019 \U0001f600", []),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5), st.integers(1, 10))
def test_any_text_can_be_encoded(texts: list[str], size: int) -> None:
    if not any(words_of(text) for text in texts):
        with pytest.raises(ValueError, match="texts: expected at least one word"):
            Vocabulary.fit(texts, size)
        return
    vocabulary = Vocabulary.fit(texts, size)
    encoded = vocabulary.encode(texts)
    assert encoded.shape == (len(texts), len(vocabulary))
    assert len(vocabulary) <= size
    assert (encoded.sum(0) >= 1).all()
    for row, text in zip(encoded, texts, strict=True):
        known = {word for word, value in zip(vocabulary.words, row.tolist(), strict=True) if value}
        assert known == set(words_of(text)) & set(vocabulary.words)
    assert vocabulary.unknown(texts) == int((encoded.sum(1) == 0).sum())


def test_fit_takes_the_most_frequent_words() -> None:
    # the and cat in two texts each (twice in one text counts once), all others in one.
    assert Vocabulary.fit(TEXTS, 2).words == ("cat", "the")
    assert Vocabulary.fit(TEXTS, 4).words == ("cat", "the", "a", "bird")
    assert len(Vocabulary.fit(TEXTS, 100)) == 8
    assert Vocabulary.fit(reversed(TEXTS), 100) == Vocabulary.fit(TEXTS, 100)


def test_fit_always_has_the_required_words() -> None:
    vocabulary = Vocabulary.fit(TEXTS, 4, always=["Sat", "guinea pig"])
    assert vocabulary.words == ("cat", "sat", "guinea", "pig")
    assert vocabulary.encode(["a PIG sat"]).tolist() == [[0, 1, 0, 1]]
    assert Vocabulary.fit([], 2, always=["pig"]).words == ("pig",)
    with pytest.raises(ValueError, match="size: expected at least 2, the words in always; got 1"):
        Vocabulary.fit(TEXTS, 1, always=["guinea pig"])
    with pytest.raises(ValueError, match=r"always: expected terms with a letter or digit, got '\?!'"):
        Vocabulary.fit(TEXTS, 5, always=["pig", "?!"])


def test_encode_is_one_hot() -> None:
    vocabulary = Vocabulary(("cat", "the", "dog"))
    encoded = vocabulary.encode([*TEXTS, ""])
    assert encoded.dtype == torch.float32
    assert encoded.tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert vocabulary.unknown([*TEXTS, ""]) == 3
    assert vocabulary.encode([]).shape == (0, 3)
    assert vocabulary.unknown([]) == 0


def test_vocabulary_rejects() -> None:
    for words, error, message in (
        ((), ValueError, "at least one"),
        (("a", "b", "a"), ValueError, "each once, got 'a' twice"),
        (("a", ""), ValueError, "an empty one"),
        (("a", 3), TypeError, "words: expected strings, got int in row 1"),
    ):
        with pytest.raises(error, match=message):
            Vocabulary(words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        Vocabulary.fit(TEXTS, 0)
    with pytest.raises(TypeError, match="texts: expected several texts, got one string"):
        Vocabulary.fit("The cat", 2)
    with pytest.raises(TypeError, match="texts: expected strings, got float in row 1"):
        Vocabulary(("a",)).encode(["a", float("nan")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="texts: expected strings, got NoneType in row 0"):
        Vocabulary(("a",)).unknown([None])  # type: ignore[list-item]


def test_vocabulary_file(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    vocabulary = Vocabulary.fit([*TEXTS, "\u00e9t\u00e9"], 100)
    vocabulary.save(path)
    assert json.loads(path.read_text("utf-8")) == list(vocabulary.words)
    loaded = Vocabulary.load(path)
    assert loaded == vocabulary
    assert torch.equal(loaded.encode(TEXTS), vocabulary.encode(TEXTS))
    for content in (b"", b"[", b"{}", b'["a", 1]', b'["a", "a"]', b"[]", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"words\.json: ") as raised:
            Vocabulary.load(path)
        assert str(raised.value).startswith(str(path))
    with pytest.raises(FileNotFoundError):
        Vocabulary.load(tmp_path / "none.json")


# --- classifiers ---


def test_classifiers_have_the_papers_shapes() -> None:
    model = ToxicityMLP(50)
    assert [tuple(layer.weight.shape) for layer in (model.fc1, model.fc2, model.fc3)] == [
        (64, 50),
        (16, 64),
        (2, 16),
    ]
    assert model(torch.zeros(3, 50)).shape == (3, 2)
    assert ToxicityMLP(50, hidden=(5, 4), classes=3)(torch.zeros(1, 50)).shape == (1, 3)
    assert ToxicityHead(384)(torch.zeros(3, 384)).shape == (3, 2)
    for arguments, message in (
        ({"inputs": 0}, "inputs: expected at least 1, got 0"),
        ({"inputs": 5, "hidden": (64, 0)}, "hidden: expected at least 1, got 0"),
        ({"inputs": 5, "hidden": (64,)}, r"hidden: expected two widths, got \[64\]"),
        ({"inputs": 5, "classes": 1}, "classes: expected at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ToxicityMLP(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hidden: expected at least 1, got -1"):
        ToxicityHead(5, -1)


@pytest.mark.parametrize("target", ["fc1", "fc2", "fc3"])
def test_every_layer_is_scored_by_the_fused_op(target: str) -> None:
    vocabulary = Vocabulary.fit(TEXTS, 8)
    labels = torch.tensor([0, 1, 0, 1])
    samples = rledit.Samples(vocabulary.encode(TEXTS), labels, {"all": torch.ones(4, dtype=torch.bool)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = rledit.Task(ToxicityMLP(8), [target], samples, lambda tally: tally.accuracy("all"))
    names = ("fc1", "fc2", "fc3")
    assert task.editable.tail is not None
    assert task.editable.tail.names == names[names.index(target) :]


@pytest.mark.exhaustive
def test_mlp_learns_real_comments(shared_data: Path) -> None:
    with open(
        shared_data / "text" / "jigsaw_toxic_comments_sample.csv", encoding="utf-8", newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    texts = [row["text"] for row in rows]
    labels = torch.tensor([int(row["toxic"]) for row in rows])
    train, test = split(labels, [0.8, 0.2], seed=0)
    vocabulary = Vocabulary.fit([texts[i] for i in train.tolist()], 5000, always=["zoroastrian"])
    assert len(vocabulary) == 5000
    assert "zoroastrian" in vocabulary.words
    encoded = vocabulary.encode(texts)
    assert vocabulary.unknown(texts) == int((encoded.sum(1) == 0).sum()) < 50
    torch.manual_seed(0)
    model = ToxicityMLP(len(vocabulary))
    train_classifier(model, encoded[train], labels[train], seed=0, **asdict(MLP_HYPERPARAMETERS))
    with torch.inference_mode():
        logits = model.eval()(encoded[test])
    # 0.90 with one seed or another; a bag of words cannot do much better on 8,000 comments.
    assert auc(logits[:, 1] - logits[:, 0], labels[test]) > 0.87
    assert auc(torch.zeros(len(test)), labels[test]) == 0.5


def test_head_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    centers = torch.nn.functional.normalize(torch.randn(2, 32, generator=generator), dim=-1)
    points = centers[labels] + 0.2 * torch.randn(2000, 32, generator=generator)
    inputs = torch.nn.functional.normalize(points, dim=-1)
    torch.manual_seed(0)
    head = ToxicityHead(32, 16)
    train_classifier(head, inputs[:1000], labels[:1000], seed=0, **asdict(HEAD_HYPERPARAMETERS))
    with torch.inference_mode():
        right = head.eval()(inputs[1000:]).argmax(1) == labels[1000:]
    assert float(right.double().mean()) > 0.97


# --- the cache ---


class Counted:
    """A computation that counts how often it runs."""

    def __init__(self, rows: int = 10) -> None:
        self.runs = 0
        self.value = torch.randn(rows, 3, generator=torch.Generator().manual_seed(rows))

    def __call__(self) -> Tensor:
        self.runs += 1
        return self.value


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_cache_computes_once(tmp_path: Path) -> None:
    compute = Counted()
    folder = tmp_path / "new" / "folder"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert torch.equal(cached(folder, ["embed", {"b": 1, "a": 2}, TEXTS], compute), compute.value)
        assert torch.equal(cached(folder, ["embed", {"a": 2, "b": 1}, TEXTS], compute), compute.value)
    assert compute.runs == 1
    assert len(files_in(folder)) == 1
    for other in (
        ["embed", {"b": 1, "a": 2}, TEXTS[1:]],
        ["embed", TEXTS],
        ["embed", {"b": 1, "a": 3}, TEXTS],
    ):
        cached(folder, other, compute)
    assert compute.runs == 4
    # Neither the way texts are cut nor half a surrogate pair leads to a wrong hit or an error.
    for texts in (["a", "b"], ["ab"], ["a b"], ["\ud800"]):
        cached(folder, ["embed", texts], compute)
    assert compute.runs == 8


def test_cache_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_cache, "_PART_BYTES", 3 * 4 * 4)
    for rows, parts in ((10, 3), (8, 2), (1, 1), (0, 1)):
        compute = Counted(rows)
        for _ in range(2):
            assert torch.equal(cached(tmp_path / str(rows), ["x"], compute), compute.value)
        assert compute.runs == 1
        assert len(files_in(tmp_path / str(rows))) == parts
    last = files_in(tmp_path / "10")[-1]
    last.unlink()
    compute = Counted(10)
    with pytest.warns(UserWarning, match="computed again"):
        assert torch.equal(cached(tmp_path / "10", ["x"], compute), compute.value)
    assert compute.runs == 1
    assert last.exists()


@pytest.mark.parametrize(
    "fault", ["empty", "cut off", "a bit", "pickle", "another key", "other tensors", "plain"]
)
def test_damaged_cache_is_computed_again(tmp_path: Path, fault: str) -> None:
    compute = Counted()
    cached(tmp_path, ["x"], compute)
    (path,) = files_in(tmp_path)
    content = bytearray(path.read_bytes())
    tensors, metadata = read_tensors(path)
    if fault == "a bit":
        content[-1] ^= 1
        path.write_bytes(content)
    elif fault == "another key":
        write_tensors(path, tensors, metadata | {"key": "0" * 64})
    elif fault == "other tensors":
        write_tensors(path, {**tensors, "more": torch.zeros(1)}, metadata)
    elif fault == "plain":
        write_tensors(path, tensors)
    else:
        path.write_bytes({"empty": b"", "cut off": content[:-5], "pickle": b"PK\x03\x04" + content}[fault])
    with pytest.warns(UserWarning, match="computed again"):
        assert torch.equal(cached(tmp_path, ["x"], compute), compute.value)
    assert compute.runs == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached(tmp_path, ["x"], compute)
    assert compute.runs == 2


def test_cache_that_cannot_be_written_is_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    compute = Counted()
    with pytest.warns(UserWarning, match="activations are not cached"):
        assert torch.equal(cached(tmp_path / "file" / "below", ["x"], compute), compute.value)
    with pytest.raises(NotADirectoryError, match="folder: expected a folder"):
        cached(tmp_path / "file", ["x"], compute)
    assert compute.runs == 1


def test_cache_rejects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="key_parts: expected JSON"):
        cached(tmp_path, [object()], Counted())  # type: ignore[list-item]
    with pytest.raises(ValueError, match="key_parts: expected JSON"):
        cached(tmp_path, [float("nan")], Counted())
    for wrong in (None, torch.tensor(1.0), torch.eye(2).to_sparse()):
        with pytest.raises(TypeError, match="compute: expected to return a dense tensor"):
            cached(tmp_path, ["x"], lambda wrong=wrong: wrong)  # type: ignore[misc]
    assert files_in(tmp_path) == []


def test_default_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rledit.storage.cache.user_cache", lambda: tmp_path / "rledit")
    cached(None, ["x"], Counted())
    assert [path.parent for path in files_in(tmp_path)] == [tmp_path / "rledit" / "activations"]
