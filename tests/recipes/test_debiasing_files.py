"""Debiasing a user's own files: which set comes from where, bias on the same comments, bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rledit
from rledit.experiments.console import PlainConsole
from rledit.experiments.verification import config_of, verify
from rledit.objectives.paired import Resamples
from rledit.recipes.debiasing import DebiasConfig, run
from rledit.recipes.debiasing import data as debiasing_data
from rledit.recipes.debiasing.classifier import BagOfWords
from rledit.recipes.debiasing.data import CommentSets, DebiasData, Split, load_sets
from rledit.recipes.debiasing.group_names import without_reserved_names
from rledit.recipes.debiasing.run import DebiasRecipe
from rledit.zoo.data import DEFAULT_TERMS, IDENTITY_TERMS, Comments, load_comments
from rledit.zoo.data.comments import normalize
from rledit.zoo.models.bag_of_words import words_of

pytest.importorskip("pandas")

Row = Mapping[str, Any]


def write(path: Path, rows: Sequence[Row], separator: str = ",") -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def rows_of(comments: Comments) -> list[dict[str, Any]]:
    """With a column of words for the label, and one with the names of groups."""
    return [
        {
            "body": text,
            "verdict": "hate" if comments.labels[i] else "fine",
            "who": "|".join(group for group, mask in comments.identities.items() if mask[i]) or "None",
            "kind": comments.templates[i] if comments.templates else "",
        }
        for i, text in enumerate(comments.texts)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The synthetic comments and templates, a part of them."""
    folder = tmp_path_factory.mktemp("files")
    train = rows_of(load_comments("synthetic"))[:1500]
    bias = rows_of(load_comments("synthetic-templates"))[::4]
    return {"train": write(folder / "train.csv", train, ";"), "bias": write(folder / "bias.csv", bias)}


COLUMNS: dict[str, Any] = {"text_column": "body", "label_column": "verdict", "positive": ("hate",)}
QUICK: dict[str, Any] = {
    "candidates": 64,
    "num_envs": 32,
    "vocabulary": 400,
    "layer": ("fc3",),
    "least_group": 1,
}


def own(files: Mapping[str, str], names: Iterable[str] = ("train",), **options: Any) -> DebiasConfig:
    return DebiasConfig(**QUICK, **COLUMNS, **{name: (files[name],) for name in names}, **options)


# --- which set comes from where ---


def test_bias_on_the_same_comments(files: dict[str, str]) -> None:
    config = own(files, group_column="who")
    sets = load_sets(config, None)
    assert sets.bias is sets.comments
    data = DebiasData(sets, 0)
    assert "white" in data.identities
    for name, split in data.splits.items():
        assert split.bias is split.utility, name
        assert split.both is split.utility
        samples = split.samples(lambda texts: torch.zeros(len(texts), 1), data.identities)
        assert len(samples) == len(split.utility)
        assert bool(samples.groups["utility"].all())
        assert bool(samples.groups["bias"].all())
        assert torch.equal(samples.groups["white"], split.both.identities["white"])
        if name != "test":
            config.objective().check(samples)
    keys = [
        {normalize(text) for text in part.texts}
        for part in (data.train, *(split.both for split in data.splits.values()))
    ]
    assert sum(map(len, keys)) == len(set().union(*keys)) == 1500
    assert data.unseen is None
    assert data.transfer == {}


def test_bias_from_another_file_with_templates_and_transfer(files: dict[str, str]) -> None:
    config = own(files, ("train", "bias"), template_column="kind", transfer=(files["bias"], files["train"]))
    sets = load_sets(config, None)
    assert sets.comments.identities == {}  # nothing is measured by group there
    assert list(sets.bias.identities) == list(DEFAULT_TERMS)
    kinds = set(load_comments("synthetic-templates").templates)
    assert len(sets.unseen_templates) == round(0.2 * len(kinds)) == 2
    data = DebiasData(sets, 0)
    assert data.unseen is not None
    assert set(data.unseen.templates) == set(sets.unseen_templates) < kinds
    seen = {kind for split in data.splits.values() for kind in split.bias.templates}
    assert seen == kinds - set(sets.unseen_templates)
    assert list(data.transfer) == ["bias", "train"]
    assert set(data.test_sets()) == {"test", "unseen templates", "bias", "train"}


def test_templates_of_the_same_comments_are_held_out_of_training_too(files: dict[str, str]) -> None:
    data = DebiasData(load_sets(own(files | {"train": files["bias"]}, template_column="kind"), None), 0)
    assert data.unseen is not None
    assert len(set(data.unseen.templates)) == 2
    for part in (data.train, *(split.both for split in data.splits.values())):
        assert not set(part.templates) & set(data.unseen.templates)


def test_own_comments_and_named_sentences_and_the_other_way_round(files: dict[str, str]) -> None:
    named = load_sets(own(files, bias_set="synthetic-templates"), None)
    assert (named.comments.name, named.bias.name) == ("train", "synthetic-templates")
    assert len(named.unseen_templates) == 3
    other = load_sets(own(files, ("bias",)), None)
    assert (other.comments.name, other.bias.name) == ("synthetic", "bias")


def test_files_are_read_by_the_layout_that_fits(tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.csv",
        [{"id": i, "comment_text": f"comment {i}", "target": i % 3 / 2, "male": i % 2} for i in range(40)],
    )
    bias = write(
        tmp_path / "hatecheck.csv",
        [
            {"test_case": f"case {i}", "label_gold": ("hateful", "non-hateful")[i % 2],
             "target_ident": ("women", "gay people")[i // 2 % 2], "templ_id": i // 4}
            for i in range(40)
        ],
    )  # fmt: skip
    other = write(tmp_path / "other.csv", [{"t": f"text {i} of a woman", "y": i % 2} for i in range(4)])
    options: dict[str, Any] = {"layout": ("jigsaw-unintended-bias", "hatecheck")}
    sets = load_sets(DebiasConfig(train=(train,), bias=(bias,), **options), None)
    assert int(sets.comments.labels.sum()) == 26  # 0.5 and 1
    assert list(sets.bias.identities) == ["women", "gay people"]
    assert len(sets.unseen_templates) == 2
    same = load_sets(DebiasConfig(train=(train,), threshold=0.6, **options), None)
    assert int(same.comments.labels.sum()) == 13
    assert list(same.bias.identities) == ["male"]
    with pytest.raises(ValueError, match=r"other\.csv: the columns are those of no --layout.*'t', 'y'"):
        load_sets(DebiasConfig(train=(train,), transfer=(other,), **options), None)
    mixed = DebiasConfig(train=(train,), transfer=(other,), text_column="t", label_column="y", **options)
    assert "other" not in load_sets(mixed, None).transfer  # all of them mention women: there is nobody else
    reread = config_of(DebiasConfig, json.loads(json.dumps(mixed.asked())))
    assert reread == mixed


def test_terms_replace_or_extend_the_default(files: dict[str, str], tmp_path: Path) -> None:
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"cooks": ["cook", "chefdecuisine"], "gay": ["zzz"]}))
    config = own(files, terms=str(terms))
    replaced = load_sets(config, None)
    assert list(replaced.bias.identities) == ["cooks", "gay"]
    assert int(replaced.bias.identities["cooks"].sum()) > 100
    assert not bool(replaced.bias.identities["gay"].any())
    longer = load_sets(replace(config, extend_terms=True), None)
    assert list(longer.bias.identities) == [*DEFAULT_TERMS, "cooks"]
    assert bool(longer.bias.identities["gay"].any())
    vocabulary = BagOfWords.fit_vocabulary(config, DebiasData(replaced, 0))
    assert {"chefdecuisine", "zzz"} <= set(vocabulary.words)  # however rare
    least = len({word for terms in IDENTITY_TERMS.values() for term in terms for word in words_of(term)})
    with pytest.raises(ValueError, match=rf"vocabulary: expected at least {least + 3}, .*; got {least}"):
        load_sets(replace(config, vocabulary=least), None)


def test_the_default_run_knows_the_words_that_it_knew() -> None:
    sets = load_sets(DebiasConfig(), None)
    assert sets.terms == tuple(term for terms in IDENTITY_TERMS.values() for term in terms)
    assert list(sets.bias.identities) == list(IDENTITY_TERMS)


def test_a_sample_of_the_comments_is_the_same_for_every_seed(files: dict[str, str]) -> None:
    config = own(files, sample=700)
    some = load_sets(config, None).comments
    assert len(some) == 700
    assert some.texts == load_sets(replace(config, seed=5), None).comments.texts


def test_a_file_that_was_moved_into_the_data_root(files: dict[str, str], tmp_path: Path) -> None:
    moved = own({"train": f"nowhere/{Path(files['train']).name}"}, group_column="who")
    assert len(load_sets(moved, Path(files["train"]).parent).comments) == 1500
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere/train\.csv or .*train\.csv"):
        load_sets(moved, tmp_path)


def test_a_large_set_is_named_with_the_memory_that_it_takes(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load_sets(own(files), None)
    assert "memory" not in caplog.text
    monkeypatch.setattr("rledit.recipes.debiasing.data.MANY_GIGABYTES", 0.001)
    load_sets(own(files), None)
    assert "to train on 1,500 comments takes up to 0 GB of memory; --sample" in caplog.text


def test_files_beside_named_sets_leave_these_as_they_are(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = debiasing_data.load_comments
    monkeypatch.setattr(
        debiasing_data,
        "load_comments",
        lambda name, root=None: grouped("a") if name == "toxigen" else load(name, root),
    )
    config = DebiasConfig(**QUICK, **COLUMNS, transfer=(files["bias"],))
    sets = load_sets(config, None)
    assert (sets.comments.name, sets.bias.name) == ("synthetic", "synthetic-templates")
    assert list(sets.transfer) == ["toxigen", "bias"]
    assert list(load_sets(replace(config, train=(files["train"],)), None).transfer) == ["bias"]


# --- options ---


def test_options_of_files_leave_no_trace_where_there_are_none() -> None:
    asked = DebiasConfig().asked()
    assert set(asked) == {
        *("world", "rank", "seed", "candidates", "num_envs", "episode_length", "directions", "precision"),
        *("device", "ppo", "dataset", "bias_set", "model", "encoder", "layer", "budget", "vocabulary"),
    }
    resolved = DebiasConfig().resolved()
    assert not {"train", "bias", "terms", "sample", "positive"} & set(resolved)


def test_what_people_read_of_the_settings(files: dict[str, str]) -> None:
    resolved = own(files, group_column="who").resolved()
    assert resolved["bias"] == "the same comments"
    assert resolved["positive"] == ("hate",)
    assert not {"dataset", "bias_set", "sample", "group_columns"} & set(resolved)
    assert own(files).data_name == "train.csv"
    assert DebiasConfig(train="a.csv", positive="x").train == ("a.csv",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train": ("a",), "dataset": ("jigsaw",)},
            "dataset, train: expected one of them, got both jigsaw and a",
        ),
        (
            {"bias": ("a",), "bias_set": "madlibs"},
            "bias_set, bias: expected one of them, got both madlibs and a",
        ),
        ({"text_column": "a"}, "text_column: expected --train, --bias or --transfer with it"),
        ({"sample": 5}, "sample: expected --train"),
        ({"train": ("a", "a")}, "train: expected different files, got a, a"),
        ({"train": ("a",), "layout": ("x",)}, "layout: expected some of jigsaw-unintended-bias, .*; got 'x'"),
        ({"train": ("a",), "sample": -1}, "sample: expected at least 0"),
        ({"train": ("a",), "extend_terms": True}, "extend_terms: expected --terms with it"),
        ({"train": ("a",), "group_column": "a", "group_columns": ("b",)}, "expected one of them, got both"),
        ({"train": ("a",), "threshold": float("inf")}, "threshold: expected a finite number"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DebiasConfig(**options)


# --- names of groups ---


def grouped(*names: str, size: int = 400) -> Comments:
    """Comments with groups of these names, a third of them each, with both labels."""
    place = torch.arange(size)
    masks = {name: place // 2 % 3 == i % 3 for i, name in enumerate(names)}
    return Comments("mine", tuple(f"comment number {i}" for i in place.tolist()), place % 2, masks)


def test_groups_called_like_those_of_a_run(caplog: pytest.LogCaptureFixture) -> None:
    comments = grouped("bias", "utility", "bias (group)")
    data = DebiasData(CommentSets(comments, comments), 0)
    assert set(data.identities) == {"bias (group 2)", "utility (group)", "bias (group)"}
    assert "the identity group 'bias' is called 'bias (group 2)' here" in caplog.text
    split = data.splits["test"]
    samples = split.samples(lambda texts: torch.zeros(len(texts), 1), data.identities)
    assert set(samples.groups) == {"utility", "bias", *data.identities}
    assert bool(samples.groups["bias"].all())
    assert 0 < int(samples.groups["bias (group 2)"].sum()) < len(samples)
    untouched = grouped("a", "--out", "before", "per_group")
    assert without_reserved_names(untouched) is untouched
    assert set(DebiasData(CommentSets(untouched, untouched), 0).identities) == set(untouched.identities)


def test_transfer_sets_called_like_those_of_a_run() -> None:
    comments = grouped("a", "b")
    sets = CommentSets(
        comments, comments, transfer={"test": grouped("bias"), "unseen templates": grouped("c")}
    )
    data = DebiasData(sets, 0)
    assert list(data.test_sets()) == ["test", "test (set)", "unseen templates (set)"]
    assert list(data.transfer["test (set)"].identities) == ["bias (group)"]


# --- bad input ---


def table(tmp_path: Path, rows: Sequence[Row], **options: Any) -> DebiasData:
    config = DebiasConfig(train=(write(tmp_path / "mine.csv", rows),), **options)
    return DebiasData(load_sets(config, None), 0)


def some_rows(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"some words {i}", "label": i % 2, **more} for i in range(count)]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (some_rows(label=1), {}, "got 60 that are all toxic"),
        (some_rows(text=" "), {}, "expected comments, got none but 60 empty ones"),
        (some_rows(label="so"), {}, "row 1: expected 0, 1, True, False or a number, got 'so'.*--positive"),
        (some_rows(toxic=1), {}, "'label' and 'toxic' could all be .*--label-column"),
        (some_rows(), {}, "mine has none; --group-columns, --group-column or --terms"),
        (some_rows(who="men"), {"group_column": "who"}, "mine has none; --group-columns"),
        (some_rows(), {"group_column": "who"}, "no column 'who'; the file has 'text', 'label'"),
        (some_rows(w=-1), {"weight_column": "w"}, "row 1: expected a finite weight"),
    ],
)
def test_bad_files_are_named(
    rows: Sequence[Row], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path, rows, **options)


def test_a_group_of_one_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = some_rows(300)
    for i, row in enumerate(rows):
        row["who"] = "everyone else" if i // 2 % 2 else "half"
    rows[0]["who"] = "lonely"
    data = table(tmp_path, rows, group_column="who")
    assert set(data.identities) == {"half", "everyone else"}
    assert "lacks toxic or harmless sentences of them: lonely" in " ".join(caplog.text.split())


def test_bias_sentences_that_are_all_among_the_comments(files: dict[str, str]) -> None:
    sets = load_sets(own({**files, "bias": files["train"]}, ("train", "bias"), group_column="who"), None)
    with pytest.raises(ValueError, match="bias: expected sentences that are not among the comments"):
        DebiasData(sets, 0)


def test_what_learns_is_drawn_by_weights_and_what_judges_weighs(tmp_path: Path) -> None:
    rows = [{"text": f"words {i}", "label": i % 2, "who": "ab"[i // 2 % 2], "w": i % 7} for i in range(200)]
    data = table(tmp_path, rows, group_column="who", weight_column="w")

    def own(text: str) -> int:
        return int(text.split()[1]) % 7

    for name in ("validation", "test"):
        part = data.splits[name].both
        assert part.weights is not None
        assert part.weights.tolist() == [own(text) for text in part.texts]
    for part in (data.train, data.splits["reward"].both):
        assert part.weights is None
        assert min(own(text) for text in part.texts) > 0
        assert sum(own(text) for text in set(part.texts)) / len(part) == pytest.approx(3, abs=1.2)
    _, samples, identities = data.test_sets()["test"]
    resamples = Resamples(samples, identities, count=4)
    hits = torch.tensor([own(text) > 3 for text in data.splits["test"].both.texts]) == samples.labels.bool()
    margins = torch.where(hits, 1.0, -1.0) * (2 * samples.labels - 1)
    assert samples.weights is not None
    expected = float(samples.weights[hits].sum() / samples.weights.sum())
    assert float(resamples.measure(margins).whole.overall["bias_accuracy"]) == pytest.approx(expected)


# --- whole runs ---


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("resumed", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_a_run_on_own_files_is_verified(files: dict[str, str], tmp_path: Path, resumed: bool) -> None:
    out = tmp_path / "run"
    config = own(files, group_column="who")
    first = run(config, out)
    if resumed:
        assert run(config, out, resume=True).test == first.test
    assert rledit.Edit.load(out / "edit.safetensors").targets == ["fc3"]
    assert load_file(out / "model.safetensors")
    record = json.loads((out / "record.json").read_text())
    assert record["data"]["test"]["samples"] == len(
        DebiasData(load_sets(config, None), 0).splits["test"].both
    )

    def open_recipe(kind: str, values: Mapping[str, Any], model: Path | None) -> DebiasRecipe:
        return DebiasRecipe(config_of(DebiasConfig, values), None)

    console = PlainConsole(quiet=True)
    assert verify(out, open_recipe, None, console).differs == []
    content = Path(files["train"]).read_text()
    Path(files["train"]).write_text(content.replace("driver", "pilot", 40))
    try:
        differing = verify(out, open_recipe, None, console).differs
    finally:
        Path(files["train"]).write_text(content)
    assert any("data" in line for line in differing)


def test_a_split_of_one_set_is_not_joined_with_itself() -> None:
    comments = grouped("a")
    assert len(Split(comments, comments).both) == 400
    assert len(Split(comments, comments.subset(torch.arange(400))).both) == 800
