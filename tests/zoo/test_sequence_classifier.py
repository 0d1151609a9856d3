"""Hugging Face classifiers, cut before their head or in their last block, against the whole models."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

if find_spec("transformers") is None:
    pytest.skip("classifiers of texts need transformers", allow_module_level=True)

import transformers
from hugging_face import save_classifier

from rledit.edits import Edit
from rledit.storage import fingerprint
from rledit.zoo.models import SequenceClassifier
from rledit.zoo.models.architectures import last_layers_of

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog"]
TEXTS = ["the cat sat on the mat", "a dog", "", "unheard words only", "cat " * 50]
DEBERTA = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {"dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 40},
    "roberta": {},
    "electra": {"embedding_size": 24},
    "deberta-v2": {**DEBERTA, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "mpnet": {},
}
BERT_LAST = "bert.encoder.layer.1"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        kind: save_classifier(tmp_path_factory.mktemp(kind), WORDS, kind, **changes)
        for kind, changes in KINDS.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_model_is_the_whole_model(folders: dict[str, Path], kind: str) -> None:
    classifier = SequenceClassifier.from_folder(folders[kind], max_tokens=12)
    whole = classifier.logits(TEXTS, batch_size=2)
    assert whole.std() > 0.1
    layers = classifier.layers
    stages = {"head": layers.head, "block": layers.block, "attention": layers.attention}
    assert {stage for stage, names in stages.items() if names} == {
        "mpnet": {"head"},
        "deberta-v2": {"head", "block"},
    }.get(kind, {"head", "block", "attention"})
    for stage, names in stages.items():
        if names:
            tail = classifier.tail(stage)  # type: ignore[arg-type]
            cut = tail(classifier.before(TEXTS, stage, batch_size=3))  # type: ignore[arg-type]
            torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-5)
            assert all(isinstance(tail.get_submodule(name), torch.nn.Linear) for name in names)
            classifier.check_cut(stage, TEXTS)  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match=f"cannot be cut at its {stage}"):
                classifier.before(TEXTS, stage)  # type: ignore[arg-type]
    if layers.block:
        assert last_layers_of(folders[kind]) == layers


def test_logits_are_those_of_transformers(folders: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["bert"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders["bert"]).eval()
    rows = []
    for text in TEXTS:  # one at a time, so without any padding
        tokens = tokenizer(text, truncation=True, max_length=12, return_tensors="pt")
        tokens.pop("token_type_ids", None)
        with torch.no_grad():
            rows.append(model(**tokens).logits[0])
    ours = SequenceClassifier.from_folder(folders["bert"], max_tokens=12).logits(TEXTS)
    torch.testing.assert_close(ours, torch.stack(rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", ["classifier", f"{BERT_LAST}.output.dense", f"{BERT_LAST}.attention.self.value"]
)
def test_an_edit_of_the_tail_is_one_of_the_model(folders: dict[str, Path], name: str) -> None:
    classifier = SequenceClassifier.from_folder(folders["bert"], max_tokens=12)
    stage = classifier.layers.stage((name,))
    tail = classifier.tail(stage)
    weight: Tensor = tail.get_submodule(name).weight  # type: ignore[assignment]
    factors = (torch.randn(len(weight), 2), torch.randn(2, weight.shape[1]))
    edit = Edit({name: factors}, "shift", 0.1, fingerprint({name: weight}))
    inputs = classifier.before(TEXTS, stage)
    unedited = tail(inputs)

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders["bert"]).eval()
    edit.apply_(model)  # without force: it knows the weights by their names
    model.save_pretrained(folders["bert"].parent / "edited")
    transformers.AutoTokenizer.from_pretrained(folders["bert"]).save_pretrained(
        folders["bert"].parent / "edited"
    )
    edit.apply_(tail)
    again = SequenceClassifier.from_folder(folders["bert"].parent / "edited", max_tokens=12)
    torch.testing.assert_close(tail(inputs), again.logits(TEXTS), atol=1e-5, rtol=1e-5)
    assert float((tail(inputs) - unedited).abs().max()) > 0.01


def test_labels_and_kind_of_head(tmp_path: Path) -> None:
    names = ["toxic", "insult", "threat"]
    save_classifier(tmp_path, WORDS, labels=names, problem_type="multi_label_classification")
    classifier = SequenceClassifier.from_folder(tmp_path)
    assert classifier.labels == tuple(names)
    assert classifier.multi_label
    assert classifier.max_tokens == 32  # all positions that there are


def test_a_cut_that_is_not_the_model_is_refused(folders: dict[str, Path]) -> None:
    classifier = SequenceClassifier.from_folder(folders["bert"], max_tokens=12)
    classifier._model.classifier.register_forward_hook(lambda _, __, out: 2 * out)  # of its own making
    classifier.check_cut("head", TEXTS)  # the module is the same, with its hook
    classifier._model.dropout.register_forward_hook(lambda _, __, out: 2 * out)
    with pytest.raises(ValueError, match=r"'bert': cut at the head, its logits differ by"):
        classifier.check_cut("head", TEXTS)


def test_folders_that_are_no_classifiers(folders: dict[str, Path], tmp_path: Path) -> None:
    encoder = transformers.AutoModel.from_pretrained(folders["bert"])
    encoder.save_pretrained(tmp_path / "encoder")
    transformers.AutoTokenizer.from_pretrained(folders["bert"]).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match=r"lacks 2 weights, such as classifier\.bias"):
        SequenceClassifier.from_folder(tmp_path / "encoder")
    with pytest.raises(FileNotFoundError, match="expected the folder of a classifier, there is none"):
        SequenceClassifier.from_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        last_layers_of(tmp_path)
