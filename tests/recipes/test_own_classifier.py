"""rledit.debias: a classifier of the caller's, on texts and on rows of a table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.zoo.data import Comments

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {
    "targets": ["0"], "candidates": 128, "num_envs": 32, "rank": 1, "search": "random",
}  # fmt: skip


def table(count: int = 800, seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Features, labels, and a group that the second feature tells."""
    numbers = np.random.default_rng(seed)
    rows = numbers.normal(size=(count, 3)).astype(np.float32)
    member = numbers.random(count) < 0.4
    rows[:, 1] = member
    labels = (rows[:, 0] + 0.3 * rows[:, 2] > 0).astype(int)
    return rows, labels, {"member": member, "other": ~member}


def unfair(outputs: int = 2, label: int = 1) -> nn.Sequential:
    """Right but for the group, of which it believes the worst."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, outputs))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[0] = torch.tensor([1.0, 1.0, 0.3])
        model[0].weight[1] = -model[0].weight[0]
        model[2].weight[label, 0], model[2].weight[label, 1] = 1.0, -1.0
        model[2].bias.add_(0.01 * torch.arange(outputs))
    return model


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rledit.objectives.paired.RESAMPLES", 2)  # intervals are not looked at


@pytest.mark.parametrize("search", ["hill-climbing", "gradient"])
def test_a_table_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str) -> None:
    monkeypatch.chdir(tmp_path)
    model = unfair().train()
    kept = deepcopy(model.state_dict())
    options = {
        **QUICK,
        "objective": rledit.Debias(bias={"fped": 1.0}, budget=0.02),
        "candidates": 640,
        "search": search,
    }
    result = rledit.debias(model, torch.from_numpy, table(), **options)
    assert list(tmp_path.iterdir()) == []
    assert model.training
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    before, after = result.metrics["test"]["before"], result.metrics["test"]["after"]
    assert after["fped"] < before["fped"] - 0.1
    assert after["accuracy"] > before["accuracy"]
    assert set(after["per_group"]) == {"member", "other"}
    assert result.folder is None
    json.dumps(result.metrics)

    edited = result.apply()
    assert edited is not model
    assert not torch.equal(edited[0].weight, model[0].weight)  # type: ignore[index]
    result.edit.apply_(model)
    assert torch.equal(edited[0].weight, model[0].weight)  # type: ignore[index]


def test_the_kind_of_rows_makes_no_difference() -> None:
    rows, labels, groups = table()
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows, columns=["a", "b", "c"], index=np.arange(800)[::-1])

    def of_frame(some: Any) -> Tensor:
        assert list(some.columns) == ["a", "b", "c"]
        return torch.tensor(some.to_numpy())

    given: list[tuple[Any, Any]] = [
        (torch.from_numpy, rows),
        (lambda some: some, torch.from_numpy(rows)),
        (of_frame, frame),
        (lambda some: np.array([[row["a"], row["b"], row["c"]] for row in some], np.float32),
         frame.to_dict("records")),
    ]  # fmt: skip
    series = {name: pandas.Series(mask) for name, mask in groups.items()}
    results = [rledit.debias(unfair(), encode, (some, labels, series), **QUICK) for encode, some in given]
    for result in results[1:]:
        assert result.metrics["test"] == results[0].metrics["test"]


@pytest.mark.usefixtures("no_figures")
def test_a_folder_is_that_of_a_run(tmp_path: Path) -> None:
    result = rledit.debias(unfair(1, 0), torch.from_numpy, table(), out=tmp_path / "run", **QUICK)
    assert result.missing == ()
    assert result.folder == tmp_path / "run"
    for name in ("config.json", "model.safetensors", "edit.safetensors", "metrics.json", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 0, name
    loaded = rledit.Edit.load(tmp_path / "run" / "edit.safetensors")
    loaded.apply_(unfair(1, 0))
    memory = rledit.debias(unfair(1, 0), torch.from_numpy, table(), **QUICK)
    assert memory.metrics["test"] == result.metrics["test"]
    with pytest.raises(FileExistsError):
        rledit.debias(unfair(1, 0), torch.from_numpy, table(), out=tmp_path / "run", **QUICK)


def test_texts_with_a_bias_set_and_transfer() -> None:
    numbers = np.random.default_rng(0)

    def texts(
        count: int, who: Sequence[str], mark: str
    ) -> tuple[list[str], list[int], dict[str, list[bool]]]:
        toxic = numbers.random(count) < 0.5
        named = [who[i] for i in numbers.integers(len(who), size=count)]
        words = [
            f"{mark} {i} {name} {'rude' if bad else 'kind'}"
            for i, (name, bad) in enumerate(zip(named, toxic, strict=True))
        ]
        return (
            words,
            toxic.astype(int).tolist(),
            {name: [n == name for n in named] for name in dict.fromkeys(who)},
        )

    def encode(some: list[str]) -> Tensor:
        assert all(isinstance(text, str) for text in some)
        known = ("rude", "ann", "kind")
        return torch.tensor([[float(word in text) for word in known] for text in some])

    words, labels, _ = texts(400, ["nobody"], "comment")
    bias, transfer = texts(400, ["ann", "bob"], "sentence"), texts(100, ["ann", "bob"], "other")
    comments = Comments("mine", tuple(words), torch.tensor(labels), {})
    options = {**QUICK, "objective": rledit.Debias(bias={"fped": 1.0})}
    model = unfair()
    result = rledit.debias(model, encode, comments, bias=bias, transfer={"elsewhere": transfer}, **options)
    test = result.metrics["test"]
    assert set(test["before"]["per_group"]) == {"ann", "bob"}
    assert set(test["other"]) == {"elsewhere"}


def test_other_labels_keep_their_logits() -> None:
    rows, labels, groups = table()
    model = unfair(3, label=1)
    with torch.no_grad():
        model[2].weight[2] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    options = {**QUICK, "targets": ["2"], "candidates": 256}
    result = rledit.debias(
        model, torch.from_numpy, (rows, labels, groups), label=1, multi_label=True, **options
    )
    left = result.edit.factors["2"][0]
    assert float(left.abs().sum()) > 0
    with torch.no_grad():
        edited, unedited = result.apply()(torch.from_numpy(rows)), model(torch.from_numpy(rows))
    assert torch.equal(edited[:, [0, 2]], unedited[:, [0, 2]])
    assert not torch.equal(edited[:, 1], unedited[:, 1])


def nothing_but(value: float) -> nn.Module:
    model = unfair()
    with torch.no_grad():
        model[0].bias.fill_(value)
    return model


ROWS, LABELS, GROUPS = table()
GIVEN = (ROWS, LABELS, GROUPS)
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": lambda x: x}, TypeError, "model: expected an nn.Module"),
    ({"targets": "0"}, TypeError, "targets: expected several names"),
    ({"targets": []}, ValueError, "targets: expected names of one module or of several"),
    ({"targets": ["9"]}, ValueError, "'9'"),
    ({"objective": rledit.Unlearning()}, TypeError, "objective: expected rledit.Debias"),
    ({"comments": (ROWS, LABELS)}, TypeError, r"comments: expected Comments, or \(rows, .*; got 2"),
    ({"comments": (ROWS, LABELS[:-1], GROUPS)}, ValueError, "labels: expected one for each of the 800"),
    ({"comments": (ROWS, 2 * LABELS, GROUPS)}, ValueError, "comments: expected labels 0 and 1, got 2 in row"),
    ({"comments": (ROWS, LABELS, {"a": LABELS})}, TypeError, "group 'a': expected a bool mask"),
    ({"comments": (ROWS, LABELS, {})}, ValueError, "comments: expected groups"),
    ({"comments": (ROWS, LABELS, {"bias": LABELS > 0})}, ValueError, "expected other names of groups"),
    ({"comments": (ROWS, 0 * LABELS, GROUPS)}, ValueError, "expected identity groups with toxic"),
    ({"bias": "rude"}, TypeError, "bias: expected Comments"),
    ({"encode": list}, TypeError, "encode: expected it to return one tensor or array"),
    ({"encode": lambda rows: torch.zeros(3, 3)}, ValueError, "encode: expected an entry for each of"),
    ({"model": nothing_but(float("nan"))}, ValueError, "model: expected finite logits, got NaN"),
    ({"label": 2}, ValueError, r"label: expected 0\.\.1"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED)
def test_what_is_refused(
    changed: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    arguments = {"model": unfair(), "encode": torch.from_numpy, "comments": GIVEN, **QUICK, **changed}
    with pytest.raises(error, match=message):
        rledit.debias(**arguments, out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_intersections() -> None:
    columns = {"sex": ["f", "m", "f", None], "race": ["black", "black", float("nan"), "white"]}
    groups = {name: mask.tolist() for name, mask in rledit.intersections(columns).items()}
    assert groups == {
        "f": [True, False, True, False],
        "m": [False, True, False, False],
        "black": [True, True, False, False],
        "white": [False, False, False, True],
        "f & black": [True, False, False, False],
        "m & black": [False, True, False, False],
    }
    assert set(rledit.intersections(columns, single=False)) == {"f & black", "m & black"}
    assert set(rledit.intersections(columns, least=2)) == {"f", "black"}
    same = rledit.intersections({"a": ["yes", "no"], "b": ["yes", "yes"]})
    assert {"a=yes", "b=yes", "no", "a=yes & b=yes", "no & b=yes"} == set(same)
    with pytest.raises(ValueError, match="expected one length"):
        rledit.intersections({"a": [1], "b": [1, 2]})


@pytest.mark.slow  # a process of its own
def test_importing_rledit_imports_no_recipe() -> None:
    code = (
        "import sys, rledit\n"
        "late = 'rledit.recipes', 'rledit.zoo.models', 'transformers', 'pandas'\n"
        "assert not any(name.startswith(late) for name in sys.modules)\n"
        "assert callable(rledit.debias) and 'rledit.recipes.debiasing.api' in sys.modules\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
