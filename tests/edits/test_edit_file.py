"""The file of an edit is what the design says, and a damaged one is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rledit.edits.edit import Edit, EditFileError
from rledit.storage.files import read_tensors, write_tensors
from rledit.storage.fingerprint import fingerprint

LEFT, RIGHT = torch.ones(4, 2), torch.ones(2, 5)
METRICS = {"test": {"after": {"forget_accuracy": 0.0, "per_class": [0.1, 1.0]}}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    factors = {
        "fc1": (torch.randn(6, 2), torch.randn(2, 8)),
        "conv": (torch.randn(5, 3), torch.randn(3, 18)),
    }
    path = tmp_path / "edit.safetensors"
    Edit(factors, "mask", 0.1, fingerprint({"fc1": torch.ones(6, 8)}), METRICS).save(path)
    return path


def test_loaded_as_saved(saved: Path) -> None:
    loaded = Edit.load(saved)
    assert loaded.metrics == METRICS
    assert sorted(loaded.targets) == ["conv", "fc1"]
    assert loaded.rank == 3
    assert "fc1: 6x8" in repr(loaded)


def test_several_steps_survive(tmp_path: Path) -> None:
    left, right = torch.randn(3, 6, 2), torch.randn(3, 2, 8)
    Edit({"fc1": (left, right)}, "shift", -0.3, "sha256:0").save(tmp_path / "edit")
    loaded = Edit.load(tmp_path / "edit")
    assert loaded.steps == 3
    assert torch.equal(loaded.factors["fc1"][0], left)
    assert torch.equal(loaded.factors["fc1"][1], right)


def test_equal_edits_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Edit({"a": (torch.ones(4, 2), torch.ones(2, 5))}, "shift", 1.0, "x", METRICS).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_metadata_is_what_the_design_says(saved: Path) -> None:
    tensors, metadata = read_tensors(saved)
    assert sorted(tensors) == ["conv.left", "conv.right", "fc1.left", "fc1.right"]
    assert metadata["world"] == "mask"
    assert metadata["scale"] == "0.1"
    assert metadata["format_version"] == "1"
    assert metadata["fingerprint"].startswith("sha256:")
    assert metadata["rledit_version"]
    assert json.loads(metadata["metrics"])["test"]


def test_truncated_and_flipped_files_are_refused(saved: Path) -> None:
    data = saved.read_bytes()
    for length in [*range(0, len(data), 37), len(data) - 1]:
        saved.write_bytes(data[:length])
        with pytest.raises(EditFileError):
            Edit.load(saved)
    for byte in range(8 + int.from_bytes(data[:8], "little"), len(data), 3):
        flipped = bytearray(data)
        flipped[byte] ^= 1
        saved.write_bytes(flipped)
        with pytest.raises(EditFileError, match="corrupt"):
            Edit.load(saved)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("world", "both", "world"),
        ("world", None, "lacks world"),
        ("scale", "much", "float"),
        ("scale", "inf", "scale"),
        ("fingerprint", None, "lacks fingerprint"),
        ("metrics", "{", "valid edit"),
        ("metrics", "[]", "metrics: expected a JSON object"),
        ("casts", "[]", "casts: expected"),
        ("format_version", "2", "format version 1, got 2"),
        ("format_version", None, "lacks format_version"),
    ],
)
def test_bad_metadata(saved: Path, key: str, value: str | None, text: str) -> None:
    tensors, metadata = read_tensors(saved)
    metadata = {k: v for k, v in metadata.items() if k != key} | ({key: value} if value is not None else {})
    write_tensors(saved, tensors, metadata)
    with pytest.raises(EditFileError, match=text):
        Edit.load(saved)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fc1.left": None}, "left and <module>.right"),
        ({"other": torch.ones(2, 2)}, "got .*other"),
        ({"fc1.left": torch.full((6, 2), float("nan"))}, "finite"),
        ({"fc1.left": torch.ones(6, 3)}, r"left \(6, 3\) and right \(2, 8\)"),
        ({"fc1.left": torch.ones(6, 2, dtype=torch.float16)}, "float32"),
        ({"fc1.left": torch.ones(6, 2)}, "corrupt"),
    ],
)
def test_bad_tensors(saved: Path, change: dict[str, Tensor | None], text: str) -> None:
    tensors, metadata = read_tensors(saved)
    write_tensors(saved, {k: v for k, v in (tensors | change).items() if v is not None}, metadata)
    with pytest.raises(EditFileError, match=text):
        Edit.load(saved)


def test_missing_foreign_and_nan_metrics(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Edit.load(tmp_path / "none")
    torch.save({}, tmp_path / "pickle")
    with pytest.raises(EditFileError, match="never reads pickles"):
        Edit.load(tmp_path / "pickle")
    write_tensors(tmp_path / "model", nn.Linear(3, 2).state_dict())
    with pytest.raises(EditFileError, match="lacks format_version"):
        Edit.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"metrics\[.auc.\]"):
        Edit({"a": (torch.ones(4, 2), torch.ones(2, 5))}, "shift", 1.0, "x", {"auc": float("nan")}).save(
            tmp_path / "edit"
        )


@pytest.mark.parametrize(
    "metrics",
    [
        {"per_class": {c: c / 7 for c in range(25)}},
        {"per_class": {np.int64(c): np.float32(c) for c in range(12)}},
        {-1: {10: 1, 2: 2}, "b": None, 0.5: True, None: [1, "x"], True: False},
        {
            "tensor": torch.tensor([[1.5, 2.0]]),
            "scalar": torch.tensor(3),
            "array": np.arange(3),
            "tuple": (1, 2),
        },
        {"é": "ü\n", "nested": [{"10": {11: 0.1}, "9": {}}]},
    ],
)
def test_metrics_come_back_as_they_were_kept(tmp_path: Path, metrics: dict[Any, Any]) -> None:
    edit = Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x", metrics)
    edit.save(tmp_path / "edit")
    assert Edit.load(tmp_path / "edit").metrics == edit.metrics
    late = Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x")
    late.metrics.update(metrics)
    late.save(tmp_path / "late")
    assert Edit.load(tmp_path / "late").metrics == edit.metrics
    assert (tmp_path / "late").read_bytes() == (tmp_path / "edit").read_bytes()


PATH = r"metrics\['test'\]\['after'\]\[1\]\['bpsn_auc'\]"


@pytest.mark.parametrize("bad", [1j, b"x", {1, 2}, Path("x"), {(1, 2): 3}, {1: 0, "1": 0}])
def test_metrics_that_are_no_json_are_named(tmp_path: Path, bad: object) -> None:
    metrics: Any = {"test": {"after": [{}, {"bpsn_auc": bad}]}}
    with pytest.raises((TypeError, ValueError), match=PATH):
        Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x", metrics)
    edit = Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x")
    edit.metrics.update(metrics)
    with pytest.raises((TypeError, ValueError), match=PATH):
        edit.save(tmp_path / "edit")
    assert not (tmp_path / "edit").exists()


@pytest.mark.parametrize(
    "bad", [float("nan"), float("-inf"), torch.tensor(float("nan")), np.float32("inf"), np.float64("nan")]
)
def test_numbers_that_are_not_finite_are_named_when_saved(tmp_path: Path, bad: object) -> None:
    metrics: Any = {"test": {"after": [{}, {"bpsn_auc": bad}]}}
    edit = Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x", metrics)
    with pytest.raises(ValueError, match=PATH):
        edit.save(tmp_path / "edit")
    assert not (tmp_path / "edit").exists()
    edit.metrics["test"] = None
    edit.save(tmp_path / "edit")
    assert Edit.load(tmp_path / "edit").metrics == {"test": None}


def test_metrics_that_contain_themselves() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = [loop]
    with pytest.raises(ValueError, match="contains itself"):
        Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x", loop)
    with pytest.raises(TypeError, match="metrics: expected a dict"):
        Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x", [1])  # type: ignore[arg-type]


def test_files_with_integer_keys_of_the_first_versions_load(tmp_path: Path) -> None:
    # They hashed the keys in the order of numbers, and could not read their own file.
    metrics: Any = {"per_class": dict.fromkeys(range(12), 0.5)}
    Edit({"a": (LEFT, RIGHT)}, "shift", 1.0, "x", metrics).save(tmp_path / "edit")
    tensors, metadata = read_tensors(tmp_path / "edit")
    fields = [fingerprint(tensors), "shift", "1.0", "x", metrics]
    old = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    assert metadata["content_sha256"] != old
    write_tensors(tmp_path / "edit", tensors, metadata | {"content_sha256": old})
    assert Edit.load(tmp_path / "edit").metrics == {"per_class": {str(c): 0.5 for c in range(12)}}
    write_tensors(tmp_path / "edit", tensors, metadata | {"content_sha256": old, "metrics": "{}"})
    with pytest.raises(EditFileError, match="corrupt"):
        Edit.load(tmp_path / "edit")
