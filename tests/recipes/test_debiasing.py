"""A debiasing run on synthetic comments: what it leaves, that it repeats, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import rledit
from rledit.experiments import RunResult
from rledit.experiments.console import PlainConsole
from rledit.objectives import PER_GROUP
from rledit.objectives.paired import ranks_of
from rledit.objectives.resampling import resample
from rledit.recipes.debiasing import DebiasConfig, run
from rledit.recipes.debiasing import data as debiasing_data
from rledit.recipes.debiasing.changes import RATES
from rledit.recipes.debiasing.classifier import BagOfWords
from rledit.recipes.debiasing.config import LAYER_SETS
from rledit.recipes.debiasing.data import DebiasData, Split, load_sets
from rledit.recipes.debiasing.evaluation import evaluate, margins_of
from rledit.recipes.debiasing.figures import error_rates
from rledit.recipes.debiasing.layers import choose_layers
from rledit.recipes.debiasing.report import per_group_table
from rledit.recipes.debiasing.run import measure
from rledit.recipes.debiasing.task import editing_samples, make_task
from rledit.samples import Samples
from rledit.zoo.data import Comments
from rledit.zoo.data.comments import normalize
from rledit.zoo.models.bag_of_words import Vocabulary
from rledit.zoo.models.toxicity import ToxicityMLP

QUICK = DebiasConfig(candidates=768, num_envs=64, vocabulary=400)
QUIET = PlainConsole(quiet=True)
VOCABULARY = Vocabulary.fit(["some words of a sentence set"], 10)
FIGURES = {"accuracy", "utility_auc", "subgroup_auc", "bpsn_auc", "bnsp_auc", "fped", "fned", "per_group"}


@pytest.fixture(scope="module")
def data() -> DebiasData:
    return DebiasData(load_sets(QUICK, None), QUICK.seed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    out = tmp_path_factory.mktemp("debias") / "run"
    return out, run(QUICK, out)


def test_no_sentence_is_in_two_splits(data: DebiasData) -> None:
    parts = {"train": data.train.texts}
    for name, split in data.splits.items():
        parts[f"{name} utility"], parts[f"{name} bias"] = split.utility.texts, split.bias.texts
    assert data.unseen is not None
    parts["unseen"] = data.unseen.texts
    keys = {name: {normalize(text) for text in texts} for name, texts in parts.items()}
    assert all(keys.values())
    names = list(keys)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert not keys[one] & keys[other], (one, other)
    seen = {template for split in data.splits.values() for template in split.bias.templates}
    assert not seen & set(data.unseen.templates)


def test_groups_of_the_samples(data: DebiasData) -> None:
    split = data.splits["reward"]
    samples = split.samples(lambda texts: torch.zeros(len(texts), 3), data.identities)
    assert int(samples.groups["utility"].sum()) == len(split.utility)
    assert int(samples.groups["bias"].sum()) == len(split.bias)
    for name in data.identities:
        assert bool((samples.groups[name] <= samples.groups["bias"]).all())


@pytest.mark.slow
def test_a_run_improves_bias_within_its_budget(finished: tuple[Path, RunResult]) -> None:
    out, _ = finished
    for name in ("config.json", "model.safetensors", "edit.safetensors", "history.csv", "report.html"):
        assert (out / name).stat().st_size > 0
    kept = json.loads((out / "metrics.json").read_text())
    before, after = kept["test"]["before"], kept["test"]["after"]
    assert set(before) >= FIGURES
    assert after["bpsn_auc"] > before["bpsn_auc"]
    assert after["utility_auc"] > before["utility_auc"] - 0.02
    assert after["accuracy"] > before["accuracy"] - 0.02
    figures = next(iter(after["per_group"].values()))
    assert {"subgroup_auc", "bpsn_auc", "bnsp_auc", "false_positive_rate"} <= set(figures)
    low, high = after["interval"]["bpsn_auc"]
    assert low <= after["bpsn_auc"] <= high
    assert "unseen templates" in kept["test"]["other"]
    assert kept["data"]["classifier"]["useless"] is False
    assert kept["data"]["sets"]["bias, test"]["groups"].keys() >= kept["test"]["after"]["per_group"].keys()
    assert {"word", "count", "before", "after", "change"} == set(kept["words"][0])
    change = kept["test"]["change"]
    assert change["bpsn_auc"] == pytest.approx(after["bpsn_auc"] - before["bpsn_auc"])
    low, high = change["interval"]["bpsn_auc"]
    assert low <= change["bpsn_auc"] <= high
    assert set(kept["test"]["sizes"]["per_group"]) == set(after["per_group"])
    assert [budget["name"] for budget in kept["budgets"]] == list(QUICK.objective().held)
    for budget in kept["budgets"]:
        assert budget["validation"]["bound"] <= budget["asked"] + 1e-9
        assert budget["held"] == (budget["test"]["spent"] <= budget["asked"] + 1e-9)
    assert rledit.Edit.load(out / "edit.safetensors").targets


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_run_repeats_and_resumes(finished: tuple[Path, RunResult], tmp_path: Path) -> None:
    out, metrics = finished
    again = run(QUICK, tmp_path / "again")
    assert again.test == metrics.test
    resumed = run(QUICK, out, resume=True)
    assert resumed.test == metrics.test


def test_evaluation_is_scikit_learns(data: DebiasData) -> None:
    torch.manual_seed(0)
    samples = data.splits["test"].samples(lambda texts: torch.zeros(len(texts), 1), data.identities)
    margins = torch.randn(len(samples)) + samples.labels
    figures = evaluate(margins, samples, data.identities)
    utility = samples.groups["utility"]
    assert figures["utility_auc"] == pytest.approx(
        roc_auc_score(samples.labels[utility], margins[utility]), abs=1e-4
    )
    per_group = figures["per_group"]
    assert isinstance(per_group, dict)
    for name, group in per_group.items():
        own = samples.groups[name]
        assert isinstance(group, dict)
        assert group["subgroup_auc"] == pytest.approx(
            roc_auc_score(samples.labels[own], margins[own]), abs=1e-3
        )


def test_a_group_of_one_label_has_the_figures_that_it_can_have() -> None:
    labels = torch.arange(80) % 2
    place = torch.arange(80)
    harmless = (place < 20) & (labels == 0)
    groups = {"bias": place >= 0, "mixed": (place >= 20) & (place < 60), "harmless": harmless}
    samples = rledit.Samples(torch.zeros(80, 1), labels, groups)
    figures: Any = evaluate(torch.randn(80) + labels, samples, ("mixed", "harmless", "absent"))
    assert set(figures["per_group"]["harmless"]) == {"accuracy", "false_positive_rate", "selection_rate"}
    assert len(figures["per_group"]["mixed"]) == len(PER_GROUP)
    for where in (figures["per_group"], figures["interval"]["per_group"]):
        assert list(where) == ["mixed", "harmless"]
    assert "n/a" in per_group_table("Per group", figures, figures)
    test = {"before": figures, "after": figures}
    plots = [error_rates(test, name) for name in RATES]
    assert all(plot is not None for plot in plots)


def test_ranks_keep_order_and_signs() -> None:
    margins = torch.tensor([0.5, -1e9, 0.0, 0.5, float("nan"), 1e-3, -2.0])
    ranks = ranks_of(margins)
    assert bool(ranks[4].isnan())
    kept = [0, 1, 2, 3, 5, 6]
    assert torch.equal(ranks[kept] > 0, margins[kept] > 0)
    assert ranks[0] == ranks[3]
    assert (
        torch.argsort(ranks[kept], stable=True).tolist() == torch.argsort(margins[kept], stable=True).tolist()
    )


def test_resamples_keep_labels_and_sizes(data: DebiasData) -> None:
    samples = data.splits["validation"].samples(lambda texts: torch.zeros(len(texts), 1), data.identities)
    positions = torch.stack(list(resample(samples, 5, seed=1)))
    assert positions.shape == (5, len(samples))
    for row in positions:
        assert torch.equal(samples.labels[row], samples.labels)
        for name in ("utility", "bias"):
            assert torch.equal(samples.groups[name][row], samples.groups[name])
    sizes = samples.masks[:, positions].sum(-1)
    assert len(sizes[samples.group_names.index(data.identities[0])].unique()) > 1
    assert len(positions[0].unique()) < len(samples)
    assert torch.equal(positions, torch.stack(list(resample(samples, 5, seed=1))))


@pytest.mark.exhaustive
def test_intervals_of_overlapping_groups_are_as_wide_as_those_of_each_group_alone() -> None:
    """Where groups overlap, only a sample or two may share a label and all groups."""
    generator = torch.Generator().manual_seed(3)
    size, names = 500, [f"group {i}" for i in range(20)]
    labels = (torch.rand(size, generator=generator) < 0.5).long()
    margins = torch.randn(size, generator=generator) + labels
    groups = {name: torch.rand(size, generator=generator) < 0.15 for name in names}
    everyone = torch.ones(size, dtype=torch.bool)
    samples = Samples(torch.zeros(size, 1), labels, {"bias": everyone, **groups})
    interval: Any = evaluate(margins, samples, names)["interval"]
    ratios = []
    for name in names[:5]:
        rows = groups[name].nonzero().flatten()
        aucs = []
        while len(aucs) < 200:
            drawn = rows[torch.randint(len(rows), (len(rows),), generator=generator)]
            if 0 < int(labels[drawn].sum()) < len(drawn):
                aucs.append(roc_auc_score(labels[drawn], margins[drawn]))
        low, high = np.quantile(aucs, [0.025, 0.975])
        own = interval["per_group"][name]["subgroup_auc"]
        ratios.append((own[1] - own[0]) / (high - low))
    assert 0.85 < float(np.mean(ratios)) < 1.2, ratios
    low, high = interval["bias_auc"]
    assert low < roc_auc_score(labels, margins) < high


def test_a_group_that_most_resamples_lack() -> None:
    labels = torch.tensor([0, 1] * 30)
    one = torch.zeros(60, dtype=torch.bool)
    one[:2] = True
    samples = Samples(
        torch.zeros(60, 1),
        labels,
        {"bias": torch.ones(60, dtype=torch.bool), "one": one, "half": labels.bool() | one},
    )
    figures: Any = evaluate(torch.arange(60.0), samples, ["one", "half"])
    assert figures["per_group"]["one"]["subgroup_auc"] == 1.0
    assert figures["interval"]["per_group"]["one"]["subgroup_auc"] == [1.0, 1.0]


def test_group_names_are_data_and_never_markup() -> None:
    group = {"subgroup_auc": 0.5}
    figures = {
        "per_group": {"<script>": group},
        "interval": {"per_group": {"<script>": {"subgroup_auc": [0, 1]}}},
    }
    table = per_group_table("Per group", figures, figures)
    assert "<script>" not in table
    assert "&lt;script&gt;" in table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": ("x",)}, "expected some of jigsaw"),
        ({"dataset": ()}, "dataset: expected one set or several"),
        ({"bias_set": "synthetic"}, "expected another set"),
        ({"world": "x"}, "world: expected one of"),
        ({"model": "encoder"}, "encoder: expected a folder"),
        ({"encoder": "x"}, "encoder: expected a folder"),
        ({"budget": -0.1}, "budget: expected a number"),
        ({"budget": ("f2=0.1",)}, "budget: expected the name of a metric"),
        ({"least_group": -1}, "least_group: expected at least 1"),
        ({"candidates": 0}, "candidates: expected at least 1"),
        ({"layer": ("fc2", "fc2")}, "layer: expected different ones"),
        ({"vocabulary": 10}, "vocabulary: expected at least 5"),
        ({"layer": ("fc9",)}, "layer: expected some of fc1, fc2, fc3; got fc9"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"device": "tpu"}, "device: expected cpu or cuda"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **changes)


def test_budgets_of_a_config() -> None:
    config = replace(QUICK, budget=("0.01", "f1=0.02", "fnr.worst=inf"), least_group=7)
    objective = config.objective()
    assert objective.held == {
        "utility_auc": 0.01,
        "utility_accuracy": 0.01,
        "false_positive_rate.worst": 0.02,
        "bias_balanced_accuracy": 0.0,
        "utility_f1": 0.02,
    }
    assert objective.least_group == 7
    assert config.asked()["budget"] == ("0.01", "f1=0.02", "fnr.worst=inf")


def test_folders_from_before_there_were_names_of_budgets_fit() -> None:
    assert QUICK.asked()["budget"] == 0.005
    assert "least_group" not in QUICK.asked()
    once = replace(QUICK, budget=0.02)  # type: ignore[arg-type]
    assert once.asked()["budget"] == 0.02
    assert once.objective() == replace(QUICK, budget=("0.02",)).objective()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="jigsaw"):
        run(replace(QUICK, dataset=("jigsaw",)), tmp_path / "a", data_root=tmp_path)
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_layers_are_tried_once_and_the_best_is_edited(finished: tuple[Path, RunResult]) -> None:
    out, metrics = finished
    tried = json.loads((out / "layers.json").read_text())
    assert [tuple(trial["layer"]) for trial in tried] == list(LAYER_SETS["bag-of-words"])
    best = max(tried, key=lambda trial: trial["after"]["value"])
    assert metrics.metrics["layer"] == best["layer"]
    assert rledit.Edit.load(out / "edit.safetensors").targets == best["layer"]
    assert "Layers tried" in (out / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_layers_that_are_said_are_not_tried(tmp_path: Path) -> None:
    metrics = run(replace(QUICK, layer=("fc3",), candidates=64), tmp_path / "run")
    assert metrics.metrics["layer"] == ["fc3"]
    assert not (tmp_path / "run" / "layers.json").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"layer": ["fc1"]}]', '[{"after": {"value": "x"}}]'])
def test_damaged_trials_are_named(content: str, data: DebiasData, tmp_path: Path) -> None:
    (tmp_path / "layers.json").write_text(content)
    classifier = BagOfWords(ToxicityMLP(len(VOCABULARY)), VOCABULARY)
    with pytest.raises(ValueError, match=r"layers.json: not a list of trials"):
        choose_layers(QUICK, classifier, {}, tmp_path / "layers.json", QUIET)


def sentences(labels: Sequence[int], groups: Mapping[str, Sequence[int]]) -> Comments:
    texts = tuple(f"sentence {i} of another set" for i in range(len(labels)))
    masks = {name: torch.tensor(mask, dtype=torch.bool) for name, mask in groups.items()}
    return Comments("toxigen", texts, torch.tensor(labels), masks)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (sentences([1, 0, 1, 0], {"old": [0, 0, 0, 0]}), "no identity group"),
        (sentences([1, 0, 1, 0], {"old": [1, 0, 1, 0], "blind": [0, 1, 0, 1]}), "no identity group"),
        (sentences([1, 1, 1, 1], {"old": [1, 1, 0, 0]}), "no identity group"),
        (sentences([1, 0, 1, 0], {"old": [1, 1, 1, 1]}), "no identity group"),
        (ValueError("toxigen.csv: line 3: damaged CSV"), "line 3: damaged CSV"),
        (PermissionError(13, "Permission denied", "toxigen.csv"), "Permission denied"),
    ],
)
def test_a_transfer_set_that_cannot_be_used_is_skipped_before_training(
    found: Comments | Exception,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    load = debiasing_data.load_comments

    def with_transfer(name: str, data_root: Any = None) -> Comments:
        if name != "toxigen":
            return load(name, data_root)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(debiasing_data, "load_comments", with_transfer)
    data = DebiasData(load_sets(QUICK, None), QUICK.seed)
    assert data.transfer == {}
    assert "toxigen: left out of the evaluation" in caplog.text
    assert reason in caplog.text
    assert set(data.test_sets()) == {"test", "unseen templates"}


@pytest.mark.slow
def test_a_transfer_set_with_a_group_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sentences([1, 0, 1, 0], {"old": [1, 1, 0, 0], "blind": [0, 0, 0, 1]})
    load = debiasing_data.load_comments
    monkeypatch.setattr(
        debiasing_data,
        "load_comments",
        lambda name, root=None: found if name == "toxigen" else load(name, root),
    )
    data = DebiasData(load_sets(QUICK, None), QUICK.seed)
    assert "toxigen" in data.test_sets()
    classifier = BagOfWords(ToxicityMLP(len(VOCABULARY)), VOCABULARY)
    figures = measure(classifier, classifier.model, data, seed=0)
    assert set(figures["other"]["toxigen"]["before"]["per_group"]) >= {"old"}


def test_an_optional_set_that_fails_in_the_evaluation_is_skipped(
    data: DebiasData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = BagOfWords(ToxicityMLP(len(VOCABULARY)), VOCABULARY)
    assert data.unseen is not None
    unseen = set(data.unseen.texts)
    encode = classifier.encode

    def failing(texts: Sequence[str]) -> torch.Tensor:
        if unseen & set(texts):
            raise RuntimeError("these texts are too long")
        return encode(texts)

    monkeypatch.setattr(classifier, "encode", failing)
    figures = measure(classifier, classifier.model, data, seed=0)
    assert figures["other"] == {}
    assert figures["after"]["bpsn_auc"] > 0
    assert "unseen templates: left out" in caplog.text
    assert "too long" in caplog.text


def test_a_set_without_identities_is_refused(data: DebiasData) -> None:
    split = data.splits["reward"]
    empty = Split(split.utility, split.utility)
    samples = empty.samples(lambda texts: torch.zeros(len(texts), 1), ())
    with pytest.raises(ValueError, match="identity groups"):
        rledit.Debias().check(samples)


REAL = DebiasConfig(("jigsaw",), vocabulary=1500, layer=("fc2",))


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[DebiasData, BagOfWords]:
    """Real comments, and a classifier of them."""
    data = DebiasData(load_sets(REAL, shared_data), REAL.seed)
    return data, BagOfWords.train(REAL, data, lambda *_: None)


@pytest.mark.slow
def test_aucs_from_bins_are_exact_to_a_thousandth_on_real_comments(
    real: tuple[DebiasData, BagOfWords], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rledit.objectives.paired.RESAMPLES", 2)  # intervals are not looked at
    data, classifier = real
    for name, (texts, samples, identities) in data.test_sets().items():
        margins = margins_of(classifier.model, classifier.encode, texts)
        figures = evaluate(margins, samples, identities)
        assert isinstance(figures["per_group"], dict)
        for group, known in figures["per_group"].items():
            mask = samples.groups[group]
            assert isinstance(known, dict)
            exact = roc_auc_score(samples.labels[mask], margins[mask])
            assert known["subgroup_auc"] == pytest.approx(exact, abs=1e-3), (name, group)


@pytest.mark.slow
def test_the_scorers_coarser_bins_are_good_enough_for_a_reward(real: tuple[DebiasData, BagOfWords]) -> None:
    """Sentences of one template have few different margins, and two of them may fall into one bin."""
    data, classifier = real
    scorer = make_task(REAL, classifier, editing_samples(classifier, data)).scorer()
    tally = scorer.score({})
    margins = margins_of(classifier.model, classifier.encode, data.splits["reward"].both.texts)
    errors = []
    for group, mask in scorer.samples.groups.items():
        exact = roc_auc_score(scorer.samples.labels[mask], margins[mask])
        errors.append(abs(float(tally.auc(group)[0]) - exact))
    assert max(errors) < 0.1
    assert sorted(errors)[len(errors) // 2] < 0.003


def test_a_gpu_that_is_not_there() -> None:
    if torch.cuda.is_available():
        assert replace(QUICK, device="cuda").device == "cuda"
    else:
        with pytest.raises(ValueError, match="device: expected cpu, there is no GPU"):
            replace(QUICK, device="cuda")


def test_a_run_scores_on_the_device_that_was_asked_for(
    data: DebiasData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy goes there: the classifier itself is trained and tested on the CPU."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, device: asked.append(device) or model)
    config = replace(QUICK, device="cuda", layer=("fc3",))
    classifier = BagOfWords.train(QUICK, data, lambda *_: None)
    task = make_task(config, classifier, editing_samples(classifier, data))
    assert asked == ["cuda"]
    assert task.editable.model is not classifier.model
