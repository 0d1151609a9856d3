"""Runs on the folder of a fine-tuned classifier: what they leave, and what is refused; and scores of new
texts by these and other runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rledit.edits import Edit, apply_to_file
from rledit.experiments.console import PlainConsole
from rledit.recipes.debiasing import DebiasConfig, run
from rledit.recipes.debiasing.predict import predict
from rledit.recipes.debiasing.text_table import TextTable
from rledit.runtime import one_thread
from rledit.zoo.data import Comments, load_comments

if find_spec("transformers") is None:
    pytest.skip("classifiers of texts need transformers", allow_module_level=True)

import transformers
from hugging_face import save_classifier

from rledit.recipes.debiasing.transformer import label_of
from rledit.zoo.models.sequence_classifier import SequenceClassifier

QUIET = PlainConsole(quiet=True)
OUTPUT = "bert.encoder.layer.1.output.dense"
TEXTS = ["You awful gay person!", "A kind neighbour", "words that nobody knows", ""]
GROUPS = ("gay", "black", "muslim", "straight", "christian")
LABELS = ("neutral", "toxic", "spam")


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own, few texts, and no figures."""

    def fewer(name: str, step: int) -> Comments:
        comments = load_comments(name)
        part = comments.subset(torch.arange(0, len(comments), step))
        return replace(part, identities={group: part.identities[group] for group in GROUPS})

    few = {"synthetic": fewer("synthetic", 8), "synthetic-templates": fewer("synthetic-templates", 2)}
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("rledit.recipes.debiasing.data.load_comments", lambda name, _: few[name])
        patch.setattr("rledit.recipes.debiasing.data.TRANSFER", ())
        patch.setattr("rledit.objectives.paired.RESAMPLES", 2)
        patch.setattr("rledit.experiments.run.draw_all", lambda drawings: ([], []))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = sorted({word.lower() for text in load_comments("synthetic").texts for word in text.split()})[:300]
    return save_classifier(
        tmp_path_factory.mktemp("bert"), [*words, "gay", "awful"], labels=LABELS,
        problem_type="multi_label_classification",
    )  # fmt: skip


@pytest.fixture(scope="module")
def config(folder: Path) -> DebiasConfig:
    return DebiasConfig(
        model="transformer", classifier=str(folder), label="toxic", layer=("classifier", OUTPUT),
        candidates=64, num_envs=32, rank=1, search="random", budget=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(config: DebiasConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("transformer") / "run"
    result = run(config, out, console=QUIET)
    assert result.missing == ()
    return out


def toxic(folder: Path, texts: list[str]) -> Tensor:
    """Probabilities by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    tokens.pop("token_type_ids", None)
    with torch.no_grad():
        return torch.sigmoid(model(**tokens).logits[:, 1])


@pytest.mark.slow
def test_the_edited_model_is_a_folder_to_load(finished: Path, folder: Path) -> None:
    scores = predict(finished, TEXTS)
    torch.testing.assert_close(scores.before, toxic(folder, TEXTS), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.after, toxic(finished / "edited_model", TEXTS), atol=1e-4, rtol=0)
    assert float((scores.after - scores.before).abs().max()) > 1e-3
    assert torch.equal(scores.labels, (scores.after > 0.5).long())


def test_apply_makes_the_same_folder(finished: Path, folder: Path, tmp_path: Path) -> None:
    edit = Edit.load(finished / "edit.safetensors")
    assert set(edit.targets) <= {"classifier", OUTPUT}
    apply_to_file(edit, folder, tmp_path / "edited")
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in (tmp_path / "edited").iterdir()}
    for name in names:
        own, left = (tmp_path / "edited" / name), (finished / "edited_model" / name)
        assert own.read_bytes() == left.read_bytes(), name


def test_other_labels_keep_their_rows(finished: Path) -> None:
    left = Edit.load(finished / "edit.safetensors").factors["classifier"][0]
    assert left[..., [0, 2], :].abs().sum() == 0
    assert left[..., 1, :].abs().sum() > 0


@pytest.mark.slow
def test_a_run_repeats_and_is_made_anew(finished: Path, config: DebiasConfig, tmp_path: Path) -> None:
    again = Path(shutil.copytree(finished, tmp_path / "again"))
    metrics = json.loads((again / "metrics.json").read_text())
    (again / "edited_model" / "model.safetensors").unlink()
    assert run(config, again, resume=True, console=QUIET).metrics["test"] == metrics["test"]
    assert (again / "edited_model" / "model.safetensors").is_file()
    assert run(config, again, overwrite=True, console=QUIET).metrics["test"] == metrics["test"]


@pytest.mark.slow
def test_layers_are_tried_where_none_is_named(config: DebiasConfig, tmp_path: Path) -> None:
    result = run(replace(config, layer=()), tmp_path / "run", console=QUIET)
    tried = [trial["layer"] for trial in result.metrics["layers_tried"]]
    assert tried == [["classifier"], ["bert.pooler.dense", "classifier"], [OUTPUT], [OUTPUT, "classifier"]]


@pytest.mark.exhaustive
def test_attention_is_edited_as_well(config: DebiasConfig, tmp_path: Path, folder: Path) -> None:
    layer = ("bert.encoder.layer.1.attention.self.value",)
    run(replace(config, layer=layer), tmp_path / "run", console=QUIET)
    scores = predict(tmp_path / "run", TEXTS)
    torch.testing.assert_close(scores.before, toxic(folder, TEXTS), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        scores.after, toxic(tmp_path / "run" / "edited_model", TEXTS), atol=1e-4, rtol=0
    )


def test_another_folder_is_noticed(finished: Path, config: DebiasConfig, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(finished, tmp_path / "run"))
    asked = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**asked, "classifier": str(moved / "edited_model")}))
    with pytest.raises(ValueError, match="this run began with another classifier than that in"):
        predict(moved, TEXTS)


def test_a_bag_of_words_scores_new_texts(tmp_path: Path) -> None:
    config = DebiasConfig(layer=("fc3",), candidates=64, num_envs=32, vocabulary=300, search="random")
    run(config, tmp_path / "run", console=QUIET)
    scores = predict(tmp_path / "run", TEXTS)
    assert scores.before.shape == scores.after.shape == (4,)
    assert bool(((scores.before >= 0) & (scores.before <= 1)).all())


def test_runs_that_cannot_score(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        predict(tmp_path, TEXTS)
    half = Path(shutil.copytree(finished, tmp_path / "half"))
    (half / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"not finished, it has no metrics\.json"):
        predict(half, TEXTS)
    for config, message in (
        ({"forget": [1], "dataset": "mnist5k"}, "one of another kind"),
        ({"model": "own"}, "given from memory"),
    ):
        (half / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=message):
            predict(half, TEXTS)


def refused(message: str, error: type[Exception] = ValueError, **changed: Any) -> None:
    with pytest.raises(error, match=message):
        DebiasConfig(**changed)


def test_options_that_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    refused("classifier: expected a folder with --model transformer", model="transformer")
    refused("classifier: expected a folder with --model transformer", classifier=str(folder))
    refused("label: expected none without --model transformer", label="toxic")
    own = {"model": "transformer", "classifier": str(folder)}
    refused(r"layer: expected some of classifier, bert\.pooler\.dense, .*; got fc1", **own, layer=("fc1",))
    refused("encoder: expected a folder with --model encoder, and none", **own, encoder=str(folder))
    nowhere = {"model": "transformer", "classifier": str(tmp_path)}
    refused(r"it has no config\.json", FileNotFoundError, **nowhere)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    refused("layer: expected the name of the Linear that makes the logits", **nowhere)
    DebiasConfig(**nowhere, layer=("score",))  # type: ignore[arg-type]


def test_labels(folder: Path, tmp_path: Path) -> None:
    several = SequenceClassifier.from_folder(folder)
    assert label_of(several, "spam") == 2
    with pytest.raises(ValueError, match="expected one of neutral, toxic, spam"):
        label_of(several, "rude")
    with pytest.raises(ValueError, match="which of neutral, toxic, spam means toxic"):
        label_of(several, "")
    two = SequenceClassifier.from_folder(save_classifier(tmp_path / "two", ["a"]))
    assert label_of(two, "") == 1
    assert label_of(two, "LABEL_0") == 0
    one = SequenceClassifier.from_folder(save_classifier(tmp_path / "one", ["a"], labels=["toxic"]))
    assert label_of(one, "") is None


def test_a_table_computes_each_text_once() -> None:
    asked: list[list[str]] = []

    def lengths(texts: list[str]) -> Tensor:
        asked.append(texts)
        return torch.tensor([[float(len(text))] for text in texts])

    table = TextTable(["lengths"], lengths, ["a", "bb"])
    assert table(["bb", "a", "bb"]).flatten().tolist() == [2, 1, 2]
    assert table(["ccc", "a", "ccc"]).flatten().tolist() == [3, 1, 3]
    assert asked == [["a", "bb"], ["ccc"]]
    assert TextTable(["lengths"], lengths)(["dddd", "dddd"]).flatten().tolist() == [4, 4]
    assert asked[2:] == [["dddd"]]
