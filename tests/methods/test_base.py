"""The protocol of methods: what is refused, and how they are entered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blob_problems import make_problem

import rledit
from rledit.methods import METHODS, Budget, MethodResult, UnlearningProblem, method


@pytest.fixture(scope="module")
def problem() -> UnlearningProblem:
    return make_problem()[0]


def test_table_order_begins_with_the_mask_and_ends_with_ours() -> None:
    names = list(METHODS)
    assert names[:2] == ["logit_mask", "retrain"]
    assert all(name.startswith("rledit_") for name in names[-7:])
    assert set(names[2:-7]) == {
        "finetune", "finetune_last", "gradient_ascent", "neggrad_plus", "random_labels", "l1_sparse",
        "fisher", "scrub", "salun", "bad_teacher", "ssd", "unsir", "projection", "prototype_projection",
    }  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_its_source_and_is_documented(name: str) -> None:
    entry = METHODS[name]
    assert entry.name == name
    assert entry.title
    assert entry.source
    if not name.startswith("rledit"):
        assert "arXiv" in (entry.run.__doc__ or "") or name == "retrain"


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if "training" in entry.needs])
@pytest.mark.parametrize("lacking", ["build", "training"])
def test_missing_recipe_is_refused(name: str, lacking: str, problem: UnlearningProblem) -> None:
    with pytest.raises(ValueError, match="expected a problem with build and training"):
        METHODS[name](replace(problem, **{lacking: None}), Budget(), 0)


def test_missing_architecture_is_refused(problem: UnlearningProblem) -> None:
    with pytest.raises(ValueError, match="bad_teacher: expected a problem with build"):
        METHODS["bad_teacher"](replace(problem, build=None), Budget(), 0)


@pytest.mark.parametrize("name", ["logit_mask", "unsir"])
def test_methods_for_classes_refuse_single_samples(name: str, problem: UnlearningProblem) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a problem with classes to forget"):
        METHODS[name](replace(problem, forget=()), Budget(), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": (4,)}, r"forget: expected classes 0..3, got \[4\]"),
        ({"forget": (0, 1, 2, 3)}, "forget: expected at least one class to remain"),
        ({"classes": 1}, "classes: expected at least 2, got 1"),
    ],
)
def test_problems_that_make_no_sense(changes: dict, message: str, problem: UnlearningProblem) -> None:
    with pytest.raises(ValueError, match=message):
        replace(problem, **changes)


def test_samples_without_a_group(problem: UnlearningProblem) -> None:
    lone = rledit.Samples(torch.zeros(2, 8), [0, 1], {"forget": [True, False]})
    with pytest.raises(ValueError, match="validation: expected samples with the groups forget and retain"):
        replace(problem, validation=lone)


@pytest.mark.parametrize("numbers", [{"candidates": 0}, {"epochs": 0}])
def test_empty_budget(numbers: dict) -> None:
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        Budget(**numbers)


def test_a_method_of_ones_own(problem: UnlearningProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rledit.methods.base.METHODS", table := dict(METHODS))

    @method("keep", title="keep", source="nobody", needs=("forget classes",))
    def keep(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
        assert torch.is_grad_enabled()
        return MethodResult(problem.model, evaluations=seed)

    with torch.inference_mode():  # torch's modes are plain inside
        assert table["keep"](problem, Budget(), 3).evaluations == 3
        assert keep(problem, Budget(), 4).evaluations == 4
    with pytest.raises(ValueError, match="keep: expected a problem with classes"):
        keep(replace(problem, forget=()), Budget(), 0)
    with pytest.raises(ValueError, match="'keep' is taken"):
        method("keep", title="", source="", needs=())(keep)
